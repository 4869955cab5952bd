"""What the header decides, what is reported, and rules of a library user."""

import pytest

from hftpipe.core.transaction import Batch, Kind
from hftpipe.errors import SourceRefused
from hftpipe.validation import Broken, CsvValidator, Invalid, InvalidReason, JsonlValidator, Rounding, Row

HEADER = b"type,client,tx,amount"


def validate(lines: bytes, header: bytes = HEADER, first_line: int = 2) -> tuple[Batch, list[Invalid]]:
    validated = CsvValidator.from_header(header).validate(lines, first_line)
    return validated.batch, validated.invalid


def test_rows_become_columns_with_their_line_numbers() -> None:
    lines = b"deposit,1,10,1.5\n\nwithdrawal,2,11,.0001\ndispute,1,10,\nresolve,1,10,9\nchargeback,1,10,0\n"
    batch, invalid = validate(lines, first_line=100)
    assert batch == Batch.of(
        "DWPRC", [1, 2, 1, 1, 1], [10, 11, 10, 10, 10], [15_000, 1, 0, 0, 0], [100, 102, 103, 104, 105]
    )
    assert invalid == []


def test_no_lines_are_an_empty_batch() -> None:
    validated = CsvValidator.from_header(HEADER).validate(b"", 2)
    assert validated.batch.txs is not None
    assert (len(validated.batch), validated.invalid, validated.rows) == (0, [], 0)


def test_a_last_line_needs_no_line_end() -> None:
    batch, _ = validate(b"deposit,1,1,1\r\ndeposit,1,2,1\r")
    assert batch.rows.tolist() == [2, 3]


@pytest.mark.parametrize(
    "header",
    [
        b"type,client,tx,amount",
        b"TYPE,Client,TX,Amount\r\n",
        b"\xef\xbb\xbftype,client,tx,amount\n",
        b" kind , account , tx_id , amount ",
        b'"transaction_type","account_id","id","amount"',
    ],
)
def test_a_header_names_the_columns_in_any_case_quotes_and_aliases(header: bytes) -> None:
    batch, invalid = validate(b"deposit,1,2,3", header)
    assert batch == Batch.of("D", [1], [2], [30_000], [2])
    assert invalid == []


def test_columns_may_stand_in_any_order_between_others() -> None:
    batch, invalid = validate(b"x,3,2,,1,deposit", b"note,amount,tx,,client,type")
    assert batch == Batch.of("D", [1], [2], [30_000], [2])
    assert invalid == []


def test_without_tx_column_deposits_have_no_ids_and_disputes_are_invalid() -> None:
    batch, invalid = validate(
        b"deposit,1,3\ndispute,1,\nwithdrawal,1,2\nbad,1,1\ndispute,x", b"type,client,amount"
    )
    assert batch == Batch.of("DW", [1, 1], None, [30_000, 20_000], [2, 4])
    assert [(row.line, row.field, row.reason) for row in invalid] == [
        (3, "tx", "missing_field"),
        (5, "kind", "bad_kind"),
        (6, "tx", "missing_field"),
    ]


def test_without_amount_column_only_disputes_and_their_like_pass() -> None:
    batch, invalid = validate(b"deposit,1,1\ndispute,1,1\n", b"type,client,tx")
    assert (batch.kinds, [(row.field, row.reason) for row in invalid]) == ("P", [("amount", "missing_field")])


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"", "no header"),
        (b" \t\r\n", "no header"),
        (b"deposit,1,1,10", "no kind column"),
        (b"type,tx,amount", "no account column"),
        (b"client,tx,amount", "no kind column"),
        (b"type,client,tx,Amount,amount", "'amount' twice"),
        (b"type,client,note,note", "'note' twice"),
        (b"type,kind,client", "type and kind both name the kind"),
        (b"type,client,account_id", "both name the account"),
        (b"type;client;tx;amount", "semicolons"),
        (b"type\tclient\ttx\tamount", "tabs"),
        (b'"type"|"client"', "bars"),
        (b"type,client,tx,amount,k\xe4se", "not clean UTF-8"),
        ("type,client".encode("utf-16"), "not clean UTF-8"),
        (b"type,client,a\x1b[2J", "not clean UTF-8"),
        (b"type,client,a\rb", "not clean UTF-8"),
        (b'type,"client', "quotes"),
        (b'type,cli"ent', "quotes"),
        (b"type,client," + b"x" * 5_000, "longer than 4096 bytes"),
    ],
)
def test_a_source_with_such_a_header_is_refused_as_a_whole(header: bytes, message: str) -> None:
    with pytest.raises(SourceRefused, match=message) as refused:
        CsvValidator.from_header(header)
    assert str(refused.value).isprintable()


def test_columns_without_name_may_repeat() -> None:
    batch, _ = validate(b"deposit,1,1,1,,", b"type,client,tx,amount,,")
    assert len(batch) == 1


def test_what_is_reported_is_the_field_or_the_row_escaped_and_shortened() -> None:
    lines = b"deposit,x,1,1\ndeposit,1\ndeposit,1,1,1\x1b[2J\ndeposit,1,1," + b"9" * 3_000 + b"\n\xff\xfe\n"
    _, invalid = validate(lines)
    assert [row.content for row in invalid] == [
        "x",
        "deposit,1",
        "deposit,1,1,1\\x1b[2J",
        "9" * 79 + "…",
        "\\xff\\xfe",
    ]


def test_text_that_turns_the_direction_of_writing_is_escaped() -> None:
    _, invalid = validate("deposit,\u202e1,1,1".encode())
    assert invalid[0].content == "\\u202e1"


def test_the_first_broken_rule_is_reported() -> None:
    lines = b"x,x,x,x,x\nx,x,x,x\ndeposit,x,x,x\ndeposit,1,x,x\ndeposit,1,1,x\n"
    _, invalid = validate(lines)
    assert [row.reason for row in invalid] == [
        "too_many_fields",
        "bad_kind",
        "bad_account",
        "bad_tx",
        "bad_amount",
    ]


def test_an_over_long_line_is_that_whatever_its_encoding() -> None:
    _, invalid = validate(b"\xff" * 5_000)
    assert [row.reason for row in invalid] == [InvalidReason.LINE_TOO_LONG]


def test_a_quoted_newline_makes_two_invalid_lines_and_swallows_nothing() -> None:
    batch, invalid = validate(b'"1\n2",1,deposit,1\ndeposit,1,1,1\n')
    assert (batch.rows, [row.line for row in invalid]) == ([4], [2, 3])


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("1.00005", 10_000),
        ("1.00015", 10_002),
        ("1.000150", 10_002),
        ("1.0001500001", 10_002),
        ("0.00005000000000000000000000000001", 1),
        ("0.99999", 10_000),
        ("0.00015", 2),
    ],
)
def test_half_even_rounds_to_four_decimals(text: str, amount: int) -> None:
    validator = CsvValidator.from_header(HEADER, rounding=Rounding.HALF_EVEN)
    assert validator.validate(f"deposit,1,1,{text}".encode(), 2).batch.amounts == [amount]


def test_half_even_invalidates_what_becomes_zero() -> None:
    for validator, line in (
        (CsvValidator.from_header(HEADER, rounding=Rounding.HALF_EVEN), b"deposit,1,1,0.00005"),
        (
            JsonlValidator(rounding=Rounding.HALF_EVEN),
            b'{"type":"deposit","account":1,"tx":1,"amount":"0.00005"}',
        ),
    ):
        assert [row.reason for row in validator.validate(line, 1).invalid] == ["amount_not_positive"]


def no_house_account(row: Row) -> Broken | None:
    return Broken("account", "house_account") if row.account == 0 else None


def only_small_deposits(row: Row) -> Broken | None:
    return Broken("amount", "large") if row.kind is Kind.DEPOSIT and row.amount > 10**6 else None


def test_a_library_user_adds_rules_of_his_own() -> None:
    rules = [no_house_account, only_small_deposits]
    lines = b"deposit,0,1,1\ndeposit,1,1,1\ndeposit,1,2,1000\ndeposit,0,x,1\nwithdrawal,1,3,1000\n"
    validated = CsvValidator.from_header(HEADER, extra_rules=rules).validate(lines, 2)
    assert list(validated.batch.rows) == [3, 6]
    assert validated.invalid == [
        Invalid(2, "account", "house_account", "0"),
        Invalid(4, "amount", "large", "1000"),
        Invalid(5, "tx", "bad_tx", "x"),
    ]
    jsonl = JsonlValidator(extra_rules=rules)
    line = b'{"type":"deposit","account":0,"tx":1,"amount":"1"}'
    assert jsonl.validate(line, 1).invalid == [Invalid(1, "account", "house_account", "0")]


def test_extra_rules_see_no_tx_where_the_source_has_none() -> None:
    seen: list[Row] = []

    def remember(row: Row) -> Broken | None:
        seen.append(row)
        return None

    CsvValidator.from_header(b"type,client,amount", extra_rules=[remember]).validate(b"deposit,1,2", 2)
    assert seen == [Row(Kind.DEPOSIT, 1, None, 20_000)]
