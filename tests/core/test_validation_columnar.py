"""The fast path says what the plain one says: the same batch, the same reports, for any bytes."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hftpipe.config import LINE_BYTES_MAX
from hftpipe.validation import Broken, CsvValidator, Rounding, Row, Validated
from hftpipe.validation.columnar import ColumnarCsvValidator

HEADERS = [
    b"type,client,tx,amount",
    b"amount,tx,client,type",
    b"note,type,client,amount",
    b"type,client,tx",
    b"type,client,tx,amount,note",
    b"type,client",
]

NUMBERS = st.one_of(
    st.integers(0, 10**20).map(str),
    st.sampled_from(
        [
            "0",
            "00",
            "007",
            "-1",
            "+1",
            "1.0",
            "9223372036854775807",
            "9223372036854775808",
            "1e2",
            "",
            " 1",
            "1 ",
        ]
    ),
)
AMOUNTS = st.one_of(
    st.tuples(st.integers(0, 10**15), st.text("0123456789", max_size=7)).map(
        lambda pair: f"{pair[0]}.{pair[1]}"
    ),
    st.integers(0, 10**15).map(str),
    st.sampled_from(
        ["", ".", ".5", "1.", "1.2.3", "0", "0.0000", "1.00000", "10000000000000", "10000000000000.0001"]
    ),
)
KINDS = st.sampled_from(
    [
        "deposit",
        "withdrawal",
        "dispute",
        "resolve",
        "chargeback",
        "Deposit",
        "DISPUTE",
        "depositt",
        "",
        "d",
        "D",
    ]
)
# The first ones of these would be in range once they have wrapped round in 64 bits.
AMOUNTS_TRIED = [
    *(
        "1844674407370955.5",
        "1844674407370956",
        "184467440737096",
        "18446744073709551617",
        "922337203685477.6",
    ),
    *(
        "",
        ".",
        ".5",
        "5.",
        "01",
        "00.10",
        "1.2.3",
        "1..2",
        "1.00000",
        "1.00001",
        "12345.6789",
        "123456789012.5",
    ),
    *(
        "0",
        "0.0",
        "0.0001",
        "99999999",
        "999999999",
        "10000000000000",
        "10000000000000.0001",
        "10000000000001",
    ),
    *("1" * length for length in (8, 9, 14, 15, 16, 17, 32, 33, 136, 137, 140, 200)),
    *("." + "1" * length for length in (1, 4, 5, 7, 8, 135, 136)),
    *("-1", "+1", "1e2", "1/2", "1:2", "x", "1 ", " 1", "1\u0661"),
]
NUMBERS_TRIED = [
    *("", "0", "00", "01", "-1", "1.5", "1/", "/1", "1:", ":1", "x", "1\u0661", "12345678", "123456789"),
    *("1" * length for length in (15, 16, 17, 19, 20, 24, 25, 32, 33)),
    *("0123456789", "1234567:", "12345678:", ":12345678", "9223372036854775807", "9223372036854775808"),
]
KINDS_TRIED = [
    *("deposit", "Withdrawal", "DISPUTE", "resolve", "chargeback", "depositt", "deposi", "withdrawa"),
    *("withdrawall", "w", "", "depositdeposit", "withdrawxl", "xithdrawal", "DEPOS\u0130T", "deposit\u0000"),
]
CELLS = st.one_of(NUMBERS, AMOUNTS, KINDS, st.text(max_size=6))
LINES = st.one_of(
    st.tuples(KINDS, NUMBERS, NUMBERS, AMOUNTS).map(",".join),
    st.lists(CELLS, max_size=6).map(",".join),
    st.sampled_from(
        ["", " ", '"deposit",1,1,1', "deposit,1,1,1\r", "x" * 5_000, "deposit,1,1," + "1" * 4_084]
    ),
)
BLOCKS = st.one_of(
    st.tuples(st.lists(LINES, max_size=30), st.sampled_from(["\n", "\r\n"]), st.booleans()).map(
        lambda parts: (parts[1].join(parts[0]) + parts[1] * parts[2]).encode("utf-8", "surrogatepass")
    ),
    st.binary(max_size=200),
)


@given(st.sampled_from(HEADERS), BLOCKS, st.integers(1, 10**9), st.sampled_from(Rounding))
@example(HEADERS[0], b"deposit,1,1,1.0", 2, Rounding.REJECT)
@example(HEADERS[0], b"deposit,1,1,1.0\r\r\n", 2, Rounding.REJECT)
@example(HEADERS[0], b"\n\n", 2, Rounding.REJECT)
@example(HEADERS[0], b"", 2, Rounding.REJECT)
@example(HEADERS[0], b"deposit,1,1,1\ndispute,1,1\ndispute,1,1,\ndeposit,1,1\n", 2, Rounding.REJECT)
@example(HEADERS[0], b"deposit,1,1.5,5\ndeposit,1,1,.5\ndeposit,1,1,5.\ndeposit,1,1,.\n", 2, Rounding.REJECT)
@example(HEADERS[0], b"dispute,1,1,5.5\nresolve,1,1,0\nchargeback,1,1,x\n", 2, Rounding.REJECT)
@example(HEADERS[0], b"deposit\0,1,1,1\ndeposit,1\0,1,1\n\0deposit,1,1,1\n", 2, Rounding.REJECT)
@example(
    HEADERS[2], b'a b,deposit,1,1\n\xff,deposit,1,1\n\t,deposit,1,1\n",deposit,1,1\n', 2, Rounding.REJECT
)
@example(HEADERS[4], b"deposit,1,1,1\ndispute,1,1\ndeposit,1,1,1,\n", 2, Rounding.REJECT)
def test_the_columnar_path_equals_the_plain_one(
    header: bytes, block: bytes, first_line: int, rounding: Rounding
) -> None:
    """Whatever the lines hold, and however the ordinary and the unusual ones are mixed."""
    plain = CsvValidator.from_header(header, rounding=rounding)
    assert ColumnarCsvValidator(plain).validate(block, first_line) == plain.validate(block, first_line)


def test_rules_about_whole_rows_hold_for_every_line() -> None:
    """Also for lines that the columns would have read."""

    def no_house_account(row: Row) -> Broken | None:
        return Broken("account", "house_account") if row.account == 0 else None

    plain = CsvValidator.from_header(HEADERS[0], extra_rules=[no_house_account])
    validated = ColumnarCsvValidator(plain).validate(b"deposit,0,1,1\ndeposit,1,2,1\n", 2)
    assert [(row.line, row.reason) for row in validated.invalid] == [(2, "house_account")]
    assert validated.batch.rows.tolist() == [3]


def test_each_odd_value_is_found_among_ordinary_ones() -> None:
    """Each in its field, for kinds with and without an amount."""
    lines = [f"{kind},1,1,{amount}" for kind in KINDS_TRIED for amount in AMOUNTS_TRIED]
    lines += [f"{kind},{number},1,1" for kind in KINDS_TRIED for number in NUMBERS_TRIED]
    lines += [f"{kind},1,{number},1" for kind in KINDS_TRIED for number in NUMBERS_TRIED]
    block = "\n".join(lines).encode()
    plain = CsvValidator.from_header(HEADERS[0])
    assert ColumnarCsvValidator(plain).validate(block, 2) == plain.validate(block, 2)


@pytest.mark.parametrize("length", [LINE_BYTES_MAX, LINE_BYTES_MAX + 1])
def test_over_long_lines_are_found(length: int) -> None:
    """A column that is not ours may be as long as the line allows."""
    plain = CsvValidator.from_header(HEADERS[4])
    block = b"deposit,1,1,1,\n" + b"deposit,1,1,1,".ljust(length, b"x") + b"\ndeposit,1,1,1,\n"
    assert ColumnarCsvValidator(plain).validate(block, 2) == plain.validate(block, 2)


class Unused(CsvValidator):
    """Fails when it is asked."""

    def validate(self, lines: bytes, first_line: int) -> Validated:
        raise AssertionError((lines, first_line))


def test_ordinary_lines_do_not_go_the_plain_way() -> None:
    """Else the columns would be of no use; a line of a kind without amount may end before it."""
    lines = b"deposit,1,1,1.5\ndispute,1,1\nWITHDRAWAL,123456789,2,123456\nresolve,1,1,\n" * 3
    validated = ColumnarCsvValidator(Unused.from_header(HEADERS[0])).validate(lines, 2)
    assert validated.batch.kinds == "DPWR" * 3
    assert validated.batch.amounts.tolist() == [15_000, 0, 1_234_560_000, 0] * 3
    assert validated.batch.rows.tolist() == list(range(2, 14))
