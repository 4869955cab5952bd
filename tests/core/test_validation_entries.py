"""Plain stream entries: read by name, judged as CSV cells, each by itself."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftpipe.config import LINE_BYTES_MAX
from hftpipe.core.transaction import Batch
from hftpipe.validation import Broken, CsvValidator, Rounding, Row
from hftpipe.validation.columnar_entries import ColumnarEntryValidator
from hftpipe.validation.entries import EntryValidator, Positioned
from tests.core.bad_input import (
    BAD_AMOUNTS,
    BAD_IDENTIFIERS,
    CONTROLS,
    FRAGMENTS,
    LARGEST,
    NOT_POSITIVE,
    NOT_UTF_8,
    TOO_LARGE,
    TOO_PRECISE,
)

GOOD: Mapping[str, str] = {"type": "deposit", "account": "5", "tx": "6", "amount": "7.5"}

Pairs = Sequence[tuple[str | bytes, str | bytes]]


def flat(pairs: Pairs) -> list[bytes]:
    return [part if isinstance(part, bytes) else part.encode() for pair in pairs for part in pair]


def changed(**fields: str) -> list[tuple[str, str]]:
    return list({**GOOD, **fields}.items())


def without(name: str, **fields: str) -> list[tuple[str, str]]:
    return [pair for pair in changed(**fields) if pair[0] != name]


def outcome(pairs: Pairs, validator: EntryValidator | None = None) -> tuple[str, str] | None:
    """Field and reason of what is invalid; None for what is let through. Its neighbours are, in any case."""
    good = flat(changed())
    entries = [Positioned(position, fields) for position, fields in ((3, good), (7, flat(pairs)), (9, good))]
    validated = (validator or EntryValidator()).validate(entries)
    assert validated.rows == 3
    assert {3, 9} <= set(validated.batch.rows.tolist())
    if not validated.invalid:
        assert validated.batch.rows.tolist() == [3, 7, 9]
        return None
    (invalid,) = validated.invalid
    assert invalid.line == 7
    assert invalid.content.isprintable()
    assert len(invalid.content) <= 80
    return invalid.field, str(invalid.reason)


@pytest.mark.parametrize(
    "pairs",
    [
        changed(),
        [("Type", "DEPOSIT"), ("CLIENT", "5"), ("Tx_Id", "6"), ("AMOUNT", "7.5")],
        [("kind", " deposit\t"), (" account_id ", " 5"), ("id", "6 "), ("amount", "\t7.50000 ")],
        [("amount", "7.5"), ("tx", "6"), ("transaction_type", "Deposit"), ("client", "5")],
        changed(amount=LARGEST),
        changed(account="0", tx="9223372036854775807"),
        changed(amount=".5"),
        without("amount", type="dispute"),
        changed(type="dispute", amount=""),
    ],
)
def test_what_a_csv_line_may_say_an_entry_may_say(pairs: Pairs) -> None:
    """Any alias in any case, in any order, blanks round names and values."""
    assert outcome(pairs) is None


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        *((changed(account=text), ("account", "bad_account")) for text in BAD_IDENTIFIERS),
        *((changed(tx=text), ("tx", "bad_tx")) for text in BAD_IDENTIFIERS),
        *((changed(amount=text), ("amount", "bad_amount")) for text in BAD_AMOUNTS if text != "\u200b12"),
        *((changed(amount=text), ("amount", "amount_too_large")) for text in TOO_LARGE),
        *((changed(amount=text), ("amount", "too_precise")) for text in TOO_PRECISE),
        *((changed(amount=text), ("amount", "amount_not_positive")) for text in NOT_POSITIVE),
        *((changed(type=text), ("kind", "bad_kind")) for text in (*FRAGMENTS, "depositt", "", "transfer")),
        *((changed(type=f"deposit{text}"), ("", "bad_encoding")) for text in CONTROLS),
        (changed(amount="1\n2"), ("", "bad_encoding")),
        (changed(amount='"7.5"'), ("amount", "bad_amount")),
        *(([*changed(), (b"note" + text, b"x")], ("", "bad_encoding")) for text in NOT_UTF_8),
        *(([("amount", text), *without("amount")], ("", "bad_encoding")) for text in NOT_UTF_8),
        ([*changed(), ("note", "x")], ("note", "too_many_fields")),
        ([*changed(), ("amuont\x1b", "x")], ("", "bad_encoding")),
        ([*changed(), ("amount", "7.5")], ("amount", "too_many_fields")),
        ([*changed(), ("CLIENT", "5")], ("CLIENT", "too_many_fields")),
        ([*changed(), ("", "")], ("", "too_many_fields")),
        (without("type"), ("kind", "missing_field")),
        (without("account"), ("account", "missing_field")),
        (without("tx"), ("tx", "missing_field")),
        (without("tx", type="dispute"), ("tx", "missing_field")),
        (without("amount"), ("amount", "missing_field")),
        ([("a", "b")], ("a", "too_many_fields")),
        (changed(amount="1" * (LINE_BYTES_MAX + 1)), ("", "line_too_long")),
        (changed(amount="1" * LINE_BYTES_MAX), ("amount", "bad_amount")),
        ([*changed(), ("x" * (LINE_BYTES_MAX + 1), "1")], ("", "line_too_long")),
        ([("type", b"\xff"), ("account", b"1" * (LINE_BYTES_MAX + 1))], ("", "line_too_long")),
    ],
)
def test_an_invalid_entry_is_reported_with_the_first_rule_it_breaks(
    pairs: Pairs, expected: tuple[str, str]
) -> None:
    """And harms no neighbour."""
    assert outcome(pairs) == expected


def test_amounts_are_rounded_when_that_is_wanted() -> None:
    """Else they are refused."""
    validated = EntryValidator(rounding=Rounding.HALF_EVEN).validate(
        [Positioned(1, flat(changed(amount="0.00015")))]
    )
    assert validated.batch == Batch.of("D", [5], [6], [2], [1])


def test_rules_about_whole_rows_hold_here_too() -> None:
    """They see the transaction, and have reasons of their own."""

    def no_house_account(row: Row) -> Broken | None:
        return Broken("account", "house_account") if row.account == 0 else None

    validator = EntryValidator(extra_rules=[no_house_account])
    assert outcome(changed(account="0"), validator) == ("account", "house_account")
    assert outcome(changed(), validator) is None


def test_any_number_of_layouts_is_read() -> None:
    """What is remembered of them is bounded."""
    validator = EntryValidator()
    for number in range(200):
        spelled = [
            ("".join(letter.upper() if number >> at & 1 else letter for at, letter in enumerate(name)), value)
            for name, value in GOOD.items()
        ]
        assert outcome(spelled, validator) is None


@given(st.lists(st.tuples(st.binary(max_size=12), st.binary(max_size=12)), min_size=1, max_size=6))
def test_whatever_an_entry_holds_it_is_judged(pairs: Pairs) -> None:
    """Without an error, and with its neighbours untouched."""
    outcome(pairs)


CELLS = st.text(st.characters(codec="utf-8", exclude_characters=',"\n\r'), max_size=8)


@given(
    kind=st.sampled_from(["deposit", "Withdrawal", "dispute", ""]) | CELLS,
    account=st.sampled_from(["1", " 2", "007"]) | CELLS,
    tx=st.sampled_from(["1", "9223372036854775808"]) | CELLS,
    amount=st.sampled_from(["1", ".5", "0", "1.23456"]) | CELLS,
)
def test_an_entry_means_what_the_csv_line_of_its_values_means(
    kind: str, account: str, tx: str, amount: str
) -> None:
    """The plain CSV validator is the specification."""
    line = ",".join((kind, account, tx, amount)).encode()
    csv = CsvValidator.from_header(b"type,client,tx,amount").validate(line + b"\n", 4)
    entry = EntryValidator().validate(
        [Positioned(4, flat([("type", kind), ("client", account), ("tx", tx), ("amount", amount)]))]
    )
    assert entry.batch == csv.batch
    assert np.array_equal(entry.batch.rows, csv.batch.rows)
    told = [(row.field, row.reason) for row in csv.invalid]
    assert [(row.field, row.reason) for row in entry.invalid] == told


# --- the fast path ----------------------------------------------------------------------------------------------

ODD = st.sampled_from(
    ["1", "2.50", "deposit", "dispute", "", "x", " 1 ", "1,2", "1\n2", "1\r", '"1"', "\x85", "9" * 5_000]
)
LAYOUTS = (
    ("type", "client", "tx", "amount"),
    ("Kind", "account", "id", "AMOUNT"),
    ("amount", "tx", "client", "type"),
    ("type", "client", "tx"),
    ("type", "client", "amount"),
    ("type", "client", "tx", "amount", "note"),
    ("type", "client", "tx", "tx"),
)


@st.composite
def fields_of_an_entry(draw: st.DrawFn) -> list[bytes]:
    """Mostly ordinary ones of one layout."""
    if draw(st.integers(0, 9)):
        kind = draw(st.sampled_from(["deposit", "Withdrawal", "dispute"]))
        values = [kind, str(draw(st.integers(0, 99))), str(draw(st.integers(0, 99))), "1.5"]
        return flat(list(zip(LAYOUTS[0], values, strict=True)))
    names = draw(st.sampled_from(LAYOUTS))
    return flat([(name, draw(ODD)) for name in names])


@settings(max_examples=300)
@given(st.lists(fields_of_an_entry(), max_size=30), st.sampled_from(Rounding))
def test_the_fast_path_says_what_the_plain_one_says(entries: list[list[bytes]], rounding: Rounding) -> None:
    """Whatever stands beside what: the same transactions, the same reports."""
    positioned = [Positioned(3 * at + 2, fields) for at, fields in enumerate(entries)]
    plain = EntryValidator(rounding=rounding)
    fast = ColumnarEntryValidator(plain)
    for part in (positioned, positioned[len(positioned) // 2 :]):
        expected, found = plain.validate(part), fast.validate(part)
        assert found.batch == expected.batch
        assert (found.invalid, found.rows) == (expected.invalid, expected.rows)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_may_come_first(layout: Sequence[str]) -> None:
    """Those that are not of four fields, or not of ours, go the plain way."""
    plain = EntryValidator()
    values = ("deposit", "1", "2", "3", "4")
    fields = flat(list(zip(layout, values, strict=False)))
    part = [Positioned(at, fields) for at in range(1, 20)]
    expected, found = plain.validate(part), ColumnarEntryValidator(plain).validate(part)
    assert found.batch == expected.batch
    assert found.invalid == expected.invalid


def test_rules_about_whole_rows_hold_on_the_fast_path() -> None:
    """All entries go the plain way then."""
    plain = EntryValidator(extra_rules=[lambda row: Broken("account", "none") if row.account else None])
    part = [Positioned(at, flat(changed(account=str(at % 2)))) for at in range(1, 20)]
    found = ColumnarEntryValidator(plain).validate(part)
    assert found.batch == plain.validate(part).batch
    assert len(found.invalid) == 10
