"""Every line of BAD_INPUT, between two good ones, through the validators of both formats."""

import pytest

from hftpipe.validation import CsvValidator, JsonlValidator
from tests.core.bad_input import ACCEPTED, SKIPPED, Case, csv_cases, json_cases, json_line

CSV_HEADER = b"type,client,tx,amount,note"
CSV_GOOD = b"deposit,5,6,7.5,fine"
JSON_GOOD = json_line()


def shortened(case: Case) -> str:
    return f"{case.line[:40]!r}-{case.outcome}"


def check(validator: CsvValidator | JsonlValidator, good: bytes, case: Case) -> None:
    validated = validator.validate(b"\n".join((good, case.line, good)) + b"\n", 2)
    reported = [(invalid.line, invalid.reason, invalid.field) for invalid in validated.invalid]
    if case.outcome == ACCEPTED:
        assert (reported, list(validated.batch.rows), validated.rows) == ([], [2, 3, 4], 3)
    elif case.outcome == SKIPPED:
        assert (reported, list(validated.batch.rows), validated.rows) == ([], [2, 4], 2)
    else:
        assert (reported, list(validated.batch.rows), validated.rows) == (
            [(3, case.outcome, case.field)],
            [2, 4],
            3,
        )
        content = validated.invalid[0].content
        assert content.isprintable()
        assert len(content) <= 80


@pytest.mark.parametrize("case", csv_cases(), ids=shortened)
def test_a_csv_line_has_its_outcome_and_harms_no_neighbour(case: Case) -> None:
    check(CsvValidator.from_header(CSV_HEADER), CSV_GOOD, case)


@pytest.mark.parametrize("case", json_cases(), ids=shortened)
def test_a_json_line_has_its_outcome_and_harms_no_neighbour(case: Case) -> None:
    check(JsonlValidator(), JSON_GOOD, case)


@pytest.mark.parametrize("cases", [csv_cases(), json_cases()], ids=["csv", "jsonl"])
def test_all_lines_in_one_block_have_the_outcomes_they_have_alone(cases: list[Case]) -> None:
    is_json = cases == json_cases()
    validator = JsonlValidator() if is_json else CsvValidator.from_header(CSV_HEADER)
    validated = validator.validate(b"\n".join(case.line for case in cases), 1)
    outcomes: dict[int, str] = dict.fromkeys(validated.batch.rows, ACCEPTED)
    outcomes |= {invalid.line: invalid.reason for invalid in validated.invalid}
    assert [outcomes.get(line, SKIPPED) for line in range(1, len(cases) + 1)] == [
        case.outcome for case in cases
    ]
    assert [invalid.line for invalid in validated.invalid] == sorted(
        invalid.line for invalid in validated.invalid
    )
