"""The fast path of JSON Lines says what the plain one says: the same batch, the same reports, for any bytes."""

import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hftpipe.config import LINE_BYTES_MAX
from hftpipe.validation import Broken, ColumnarJsonlValidator, JsonlValidator, Rounding, Row, Validated
from tests.core.bad_input import json_cases
from tests.core.test_validation_columnar import AMOUNTS_TRIED, KINDS_TRIED, NUMBERS_TRIED

LAYOUTS = [
    '{"type":"KIND","client":ACCOUNT,"tx":TX,"amount":"AMOUNT"}',
    '{"type":"KIND","client":ACCOUNT,"tx":TX,"amount":AMOUNT}',
    '{"type":"KIND","client":ACCOUNT,"tx":TX}',
    '{"type": "KIND", "client": ACCOUNT, "tx": TX, "amount": "AMOUNT"}',
    ' {\t"amount" : "AMOUNT" , "id" : TX , "account_id" :ACCOUNT,"transaction_type":"KIND" } ',
    '{"tx":TX,"type":"KIND","amount":AMOUNT,"client":ACCOUNT}',
    '{"type":"KIND","client":ACCOUNT,"amount":"AMOUNT"}',
    '{"type":"KIND","client":"ACCOUNT","tx":TX,"amount":"AMOUNT"}',
    '{"type":"KIND","client":ACCOUNT,"tx":TX,"amount":"AMOUNT","kind":"KIND"}',
    '{"type":"KIND","client":ACCOUNT,"tx":TX,"amount":"AMOUNT","note":"AMOUNT"}',
    '"type":"KIND","client":ACCOUNT,"tx":TX,"amount":"AMOUNT"}',
    ',"type":"KIND","client":ACCOUNT,"tx":TX,"amount":"AMOUNT"}',
    '{"type":"KIND","client":ACCOUNT,"tx":TX,"amount":"AMOUNT"',
    '{"type":"KIND","client":ACCOUNT,{"tx":TX,"amount":"AMOUNT"}',
    '{"type":"KIND","client":ACCOUNT,"tx":TX,"amount":"AMOUNT"}}',
    '{"type":KIND,"client":ACCOUNT,"tx":TX,"amount":"AMOUNT"}',
    "KIND,ACCOUNT,TX,AMOUNT",
]
ORDINARY = LAYOUTS[:6]
ORDINARY_VALUES = ("deposit", "1", "1", "1")

KINDS = ["deposit", "withdrawal", "dispute", "resolve", "chargeback"]
ODD_KINDS = ["Deposit", " deposit", "\\u0064eposit", "", "depositt", "deposit\\u0000", 'deposit","client":1']
IDENTIFIERS = ["0", "1", "65535", "12345678", "123456789", "1234567890123456", "12345678901234567"]
ODD_IDENTIFIERS = [
    *("00", "01", "-1", "-0", "+1", "1.0", "1e2", " 1", "1 ", "1,1", '"1"', "", "true", "null", "[]", ":"),
    *("9223372036854775807", "9223372036854775808", "18446744073709551616", "9" * 400, "1:1", "１"),
]
AMOUNTS = ["1", "10", "1.5", "0.0001", "491.6544", "99999.99", "123456789012.5", "10000000000000"]
ODD_AMOUNTS = [
    *(
        "0",
        "0.0",
        "",
        ".",
        "1.",
        ".5",
        "01",
        "00.10",
        "1.2.3",
        "1..2",
        "1.00000",
        "1.00001",
        "1e2",
        "-1",
        "NaN",
    ),
    *(
        "10000000000000.0001",
        "10000000000001",
        "1" * 40,
        "0." + "1" * 33,
        " 1",
        "1 ",
        '1","amount":"2',
        "null",
    ),
    *('"1"', "1" * 140, "1." + "1" * 140, "\\u0031", "1:5"),
]
BAD_LINES = [case.line for case in json_cases()]


def filled(layout: str, kind: str, account: str, tx: str, amount: str) -> bytes:
    """A line of a layout."""
    text = layout.replace("KIND", kind).replace("ACCOUNT", account)
    return text.replace("TX", tx).replace("AMOUNT", amount).encode()


def a_line(layouts: list[str], *, is_odd: bool) -> st.SearchStrategy[bytes]:
    """A line of one of the layouts, with ordinary values, or others among them."""

    identifiers = st.sampled_from(IDENTIFIERS + ODD_IDENTIFIERS * is_odd)
    return st.tuples(
        st.sampled_from(layouts),
        st.sampled_from(KINDS + ODD_KINDS * is_odd),
        identifiers,
        identifiers,
        st.sampled_from(AMOUNTS + ODD_AMOUNTS * is_odd),
    ).map(lambda parts: filled(*parts))


ODD_LINES = st.one_of(
    a_line(LAYOUTS, is_odd=True),
    st.sampled_from(BAD_LINES),
    st.sampled_from([b"", b" ", b"\r", b"x" * 5_000, b"\x01", b'{"type":"deposit" }' + b" " * 4_080]),
)
BLOCKS = st.tuples(
    st.lists(
        st.one_of(a_line(ORDINARY[:2], is_odd=False), a_line(ORDINARY, is_odd=True), ODD_LINES), max_size=30
    ),
    st.sampled_from([b"\n", b"\r\n"]),
    st.booleans(),
).map(lambda parts: parts[1].join(parts[0]) + parts[1] * parts[2])


def both(
    blocks: list[bytes], first_line: int = 1, rounding: Rounding = Rounding.REJECT
) -> tuple[list[Validated], list[Validated]]:
    """What the two ways say of blocks, one after another."""
    plain = JsonlValidator(rounding=rounding)
    columnar = ColumnarJsonlValidator(plain)
    return (
        [columnar.validate(block, first_line) for block in blocks],
        [plain.validate(block, first_line) for block in blocks],
    )


def line(text: str = '"1"', layout: str = ORDINARY[0]) -> bytes:
    """An ordinary line, or one with another amount."""
    return filled(layout.replace('"AMOUNT"', "AMOUNT"), "deposit", "1", "1", text)


@settings(max_examples=400)
@given(st.lists(BLOCKS, min_size=1, max_size=3), st.integers(1, 10**9), st.sampled_from(Rounding))
@example([b""], 1, Rounding.REJECT)
@example([b"\n\n"], 1, Rounding.REJECT)
@example([line(), line()], 1, Rounding.REJECT)
@example([line() + b"\r\r\n" + line()], 1, Rounding.REJECT)
@example([line("1", ORDINARY[1]) + b"\n" + line()], 1, Rounding.REJECT)
@example([line("1", ORDINARY[1]) + b"\n" + line("", ORDINARY[1])], 1, Rounding.REJECT)
@example([line() + b"\n" + line()[1:]], 1, Rounding.REJECT)
@example([line() + b"\n" + line() + line()], 1, Rounding.REJECT)
@example([line() + b"\nx" + line()], 1, Rounding.REJECT)
@example([line() + b"\n" + line() + b"x"], 1, Rounding.REJECT)
@example([line() + b"\n::::\n" + line()], 1, Rounding.REJECT)
def test_the_columnar_path_equals_the_plain_one(
    blocks: list[bytes], first_line: int, rounding: Rounding
) -> None:
    """Whatever the lines hold, however the layouts are mixed, and whatever was learned from blocks before."""
    columnar, plain = both(blocks, first_line, rounding)
    assert columnar == plain


@given(st.binary(max_size=200), st.booleans())
def test_it_does_so_for_any_bytes(block: bytes, is_after_others: bool) -> None:
    """Behind ordinary lines, too, whose layout is known then."""
    columnar, plain = both([(line() + b"\n") * is_after_others + block])
    assert columnar == plain


@pytest.mark.parametrize("layout", ORDINARY)
def test_a_changed_byte_anywhere_is_found(layout: str) -> None:
    """Each byte of a line of a known layout, left out, doubled, or turned into another."""
    text = line(layout=layout, text='"1.25"' if '"AMOUNT"' in layout else "125")
    randomness = random.Random(layout)
    changed = [text[:at] + text[at + 1 :] for at in range(len(text))]
    changed += [text[:at] + text[at : at + 1] + text[at:] for at in range(len(text))]
    for other in b'0a:", {}\\\t\x00\x85' + randomness.randbytes(4):
        changed += [text[:at] + bytes([other]) + text[at + 1 :] for at in range(len(text))]
    lines = [each for each in changed if b"\n" not in each and b"\r" not in each]
    columnar, plain = both([text + b"\n" + b"\n".join(lines)])
    assert columnar == plain


@pytest.mark.parametrize("layout", ORDINARY)
def test_each_odd_value_is_found_among_ordinary_ones(layout: str) -> None:
    """Each in its field, for kinds with and without an amount."""
    values = [(kind, number, "1", "1") for kind in KINDS + KINDS_TRIED for number in NUMBERS_TRIED]
    values += [(kind, "1", number, "1") for kind in KINDS + KINDS_TRIED for number in NUMBERS_TRIED]
    values += [(kind, "1", "1", amount) for kind in KINDS + KINDS_TRIED for amount in AMOUNTS_TRIED]
    columnar, plain = both([b"\n".join(filled(layout, *each) for each in [ORDINARY_VALUES, *values])])
    assert columnar == plain


def test_a_long_layout_does_not_hide_an_over_long_line() -> None:
    """Values that are longer than those of the line that it was learned from."""
    longest = line().replace(b":", b":" + b" " * (LINE_BYTES_MAX - len(line())), 1)
    columnar, plain = both([longest + b"\n" + longest.replace(b'"1"', b'"12"')])
    assert columnar == plain
    assert len(plain[0].invalid) == 1


def test_a_layout_does_not_reach_beyond_the_text() -> None:
    """Colons stand nearer to the block's beginning and end than in the line that it was learned from."""
    wide = line().replace(b":", b" " * 40 + b":" + b" " * 40)
    begun = wide[: wide.index(b":")] + b"::::"
    columnar, plain = both([wide, b"::::\n" + wide + b"\n" + begun, begun, b"::::"])
    assert columnar == plain


def test_every_line_of_bad_input_is_found_among_good_ones() -> None:
    """Each between ordinary lines, whose layout is known."""
    block = b"\n".join(b"%b\n%b" % (line(), case) for case in BAD_LINES)
    columnar, plain = both([line(), block])
    assert columnar == plain


def test_lines_of_known_layouts_do_not_go_the_plain_way() -> None:
    """Else the columns would be of no use; two layouts in turn are known, with and without an amount."""

    class Unused(JsonlValidator):
        """Fails when it is asked."""

        def validate(self, lines: bytes, first_line: int) -> Validated:
            raise AssertionError((lines, first_line))

    dispute = filled(ORDINARY[2], "dispute", "1", "1", "")
    validated = ColumnarJsonlValidator(Unused()).validate(b"\n".join([line(), dispute] * 9), 5)
    assert validated.batch.kinds == "DP" * 9
    assert validated.batch.rows.tolist() == list(range(5, 23))


def test_rules_about_whole_rows_hold_for_every_line() -> None:
    """Also for lines that the columns would have read."""

    def no_house_account(row: Row) -> Broken | None:
        return Broken("account", "house_account") if row.account == 1 else None

    plain = JsonlValidator(extra_rules=[no_house_account])
    validated = ColumnarJsonlValidator(plain).validate(line() + b"\n" + line(), 1)
    assert [(row.line, row.reason) for row in validated.invalid] == [
        (1, "house_account"),
        (2, "house_account"),
    ]
