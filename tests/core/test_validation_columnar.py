"""The fast path says what the plain one says: the same batch, the same reports, for any bytes."""

from hypothesis import example, given
from hypothesis import strategies as st

from hftpipe.validation import Broken, CsvValidator, Rounding, Row
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
