"""What holds for any input: no exception, every line accounted for, exact amounts."""

import csv
import io
from decimal import ROUND_HALF_EVEN, Decimal, localcontext

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftpipe.core.amount import render
from hftpipe.core.transaction import AMOUNT_MAX, INT64_MAX, KIND_LETTERS, MOVING
from hftpipe.validation import CsvValidator, InvalidReason, JsonlValidator, Rounding, Validated
from hftpipe.validation.csv import split_line

CSV = CsvValidator.from_header(b"type,client,tx,amount")
JSONL = JsonlValidator()

CELLS = st.sampled_from(
    ["deposit", "Dispute", "1", "0", "1.5", "", '"', '""', '"1"', " ", "\t", "\r", "é", "\x00", "\u2028", "x"]
) | st.text(max_size=6)
CSV_LINES = st.lists(st.lists(CELLS, max_size=6).map(",".join), max_size=8).map("\n".join).map(str.encode)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2**64 - 1) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
JSON_KEYS = st.sampled_from(["type", "kind", "account", "client", "tx", "id", "amount", "a:b", "-0"])
JSON_LINES = st.lists(st.dictionaries(JSON_KEYS, JSON_VALUES, max_size=5).map(orjson.dumps), max_size=4).map(
    b"\n".join
)


def check_sound(validated: Validated, lines: bytes) -> None:
    batch = validated.batch
    columns = [batch.accounts, batch.amounts, batch.rows, *([batch.txs] if batch.txs is not None else [])]
    assert {len(column) for column in columns} == {len(batch)}
    assert set(batch.kinds) <= KIND_LETTERS
    assert all(
        0 <= number <= INT64_MAX for number in (*batch.accounts, *([] if batch.txs is None else batch.txs))
    )
    for kind, amount in zip(batch.kinds, batch.amounts, strict=True):
        assert 1 <= amount <= AMOUNT_MAX if kind in MOVING else amount == 0
    numbers = sorted([*batch.rows, *(row.line for row in validated.invalid)])
    assert numbers == sorted(set(numbers))
    assert len(numbers) == validated.rows <= lines.count(b"\n") + 1
    assert list(batch.rows) == sorted(batch.rows)
    for row in validated.invalid:
        assert len(row.content) <= 80
        assert row.content.isprintable()
        assert row.field.isprintable()


@given(st.binary(max_size=300) | CSV_LINES)
def test_any_bytes_are_accepted_or_reported_as_csv(lines: bytes) -> None:
    check_sound(CSV.validate(lines, 2), lines)


@given(st.binary(max_size=300) | JSON_LINES)
def test_any_bytes_are_accepted_or_reported_as_json_lines(lines: bytes) -> None:
    check_sound(JSONL.validate(lines, 2), lines)


@given(CSV_LINES, CSV_LINES)
def test_lines_are_judged_alike_in_one_block_and_in_two(first: bytes, second: bytes) -> None:
    border = 2 + first.count(b"\n") + 1
    whole = CSV.validate(first + b"\n" + second, 2)
    parts = [CSV.validate(first + b"\n", 2), CSV.validate(second, border)]
    assert whole.invalid == [row for part in parts for row in part.invalid]
    assert list(whole.batch.rows) == [number for part in parts for number in part.batch.rows]
    assert list(whole.batch.amounts) == [amount for part in parts for amount in part.batch.amounts]


@given(st.lists(st.text(st.sampled_from('ab",; '), max_size=5).map(str.strip), min_size=1, max_size=5))
def test_quotes_are_read_as_the_csv_module_writes_them(cells: list[str]) -> None:
    written = io.StringIO()
    csv.writer(written, quoting=csv.QUOTE_ALL, lineterminator="").writerow(cells)
    assert split_line(written.getvalue()) == (cells, -1)


@given(st.integers(1, AMOUNT_MAX))
def test_an_amount_written_out_reads_back(amount: int) -> None:
    text = render(amount)
    assert CSV.validate(f"deposit,1,1,{text}".encode(), 2).batch.amounts == [amount]
    line = orjson.dumps({"type": "deposit", "account": 1, "tx": 1, "amount": text})
    assert JSONL.validate(line, 2).batch.amounts == [amount]


@given(
    st.from_regex(r"[0-9]{1,13}\.[0-9]{1,12}", fullmatch=True)
    | st.from_regex(r"0\.000[0-9]5{1,3}0?", fullmatch=True)
)
def test_half_even_is_that_of_decimal(text: str) -> None:
    with localcontext(prec=60):
        exact = Decimal(text)
        expected = int(exact.quantize(Decimal("0.0001"), rounding=ROUND_HALF_EVEN) * 10_000)
    validated = CsvValidator.from_header(b"type,client,amount", rounding=Rounding.HALF_EVEN).validate(
        f"deposit,1,{text}".encode(), 2
    )
    if exact > 10**13:
        assert [row.reason for row in validated.invalid] == [InvalidReason.AMOUNT_TOO_LARGE]
    elif expected == 0:
        assert [row.reason for row in validated.invalid] == [InvalidReason.AMOUNT_NOT_POSITIVE]
    else:
        assert validated.batch.amounts == [expected]


@pytest.mark.parametrize("reason", InvalidReason)
def test_every_reason_is_given_to_some_line(reason: InvalidReason) -> None:
    lines = (
        b"deposit\ndeposit,1,1,1,1\nx,1,1,1\ndeposit,x,1,1\ndeposit,1,x,1\ndeposit,1,1,x\ndeposit,1,1,0\n"
        b"deposit,1,1,0.00001\ndeposit,1,1,10000000000001\n\xff\n" + b"x" * 5_000
    )
    invalid = CSV.validate(lines, 2).invalid + JSONL.validate(b"{", 1).invalid
    assert reason in {row.reason for row in invalid}
