"""A payload is read in two ways, and both accept the same ones: those that a plain reader accepts."""

import json
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hftpipe.core.entry import encode
from hftpipe.core.payload import Unreadable, read_columns
from hftpipe.core.transaction import INT64_MAX, Batch

COLUMNS = ("kind", "account", "tx", "amount", "row")
COMPACT = b'{"kind":"DWP","account":[2,4,6],"tx":[10,11,10],"amount":[100000,5,0],"row":[1,4,1]}'


def plainly(payload: bytes, previous: int, count: int) -> Batch | None:
    """The batch of a payload, read with Python's own JSON and nothing clever; None when it is not acceptable."""
    try:
        columns = json.loads(payload.decode())
    except ValueError:
        return None
    if not isinstance(columns, dict) or sorted(columns) != sorted(COLUMNS):
        return None
    kinds, txs = columns["kind"], columns["tx"]
    if not isinstance(kinds, str) or not set(kinds) <= set("DWPRC") or not 0 < len(kinds) == count:
        return None
    for name in COLUMNS[1:]:
        if not (name == "tx" and txs is None) and not _is_column(columns[name], count):
            return None
    rows, position = [], previous
    for increment in columns["row"]:
        position += increment
        if increment == 0 or position > INT64_MAX:
            return None
        rows.append(position)
    return Batch.of(kinds, columns["account"], txs, columns["amount"], rows)


def _is_column(values: object, count: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) == count
        and all(type(value) is int and 0 <= value <= INT64_MAX for value in values)
    )


def read(payload: bytes, previous: int, count: int) -> Batch | None:
    """What `read_columns` says, in the same words."""
    try:
        return read_columns(payload, previous, count)
    except Unreadable:
        return None


def assert_read_as_plainly(payload: bytes, previous: int = 2, count: int = 3) -> None:
    """As it is, and with a blank before it, so that it is read with all questions asked."""
    expected = plainly(payload, previous, count)
    assert read(b" " + payload, previous, count) == expected
    assert read(payload, previous, count) == expected


def loosened(payload: bytes, random: Random) -> bytes:
    """The same JSON in another shape: blanks, another order of the columns, escapes."""

    def blank() -> str:
        return random.choice(["", "", " ", "\n", "\t ", "\r\n"])

    def text(word: str) -> str:
        letters = (f"\\u{ord(letter):04x}" if random.random() < 0.3 else letter for letter in word)
        return '"' + "".join(letters) + '"'

    def value(column: object) -> str:
        if isinstance(column, list):
            return "[" + ",".join(f"{blank()}{number}{blank()}" for number in column) + "]"
        return "null" if column is None else text(str(column))

    columns = list(json.loads(payload).items())
    random.shuffle(columns)
    members = (
        f"{blank()}{text(name)}{blank()}:{blank()}{value(column)}{blank()}" for name, column in columns
    )
    return f"{blank()}{{{','.join(members)}}}{blank()}".encode()


@st.composite
def batches(draw: st.DrawFn) -> tuple[int, Batch]:
    """A position and any batch behind it."""
    kinds = draw(st.text("DWPRC", min_size=1, max_size=12))
    numbers = st.lists(
        st.integers(0, INT64_MAX) | st.integers(0, 9), min_size=len(kinds), max_size=len(kinds)
    )
    largest = INT64_MAX // (len(kinds) + 1)
    sizes = st.sampled_from([1, 3, largest])
    steps = [draw(st.integers(1, draw(sizes))) for _ in kinds]
    previous = draw(st.integers(0, draw(st.sampled_from([0, 100, largest]))))
    rows = [previous + sum(steps[: index + 1]) for index in range(len(steps))]
    return previous, Batch.of(kinds, draw(numbers), draw(st.none() | numbers), draw(numbers), rows)


@settings(deadline=None, max_examples=300)
@given(batches(), st.integers(0, 2**32))
def test_the_shape_of_the_json_does_not_matter(sent: tuple[int, Batch], seed: int) -> None:
    """Compact as it is written, or with blanks, escapes and its columns in another order: the same batch."""
    previous, batch = sent
    payload = encode("source", previous, batch, 0)[b"b"]
    assert read(payload, previous, len(batch)) == batch
    assert read(loosened(payload, Random(seed)), previous, len(batch)) == batch
    assert_read_as_plainly(payload, previous, len(batch))


@settings(deadline=None, max_examples=1_000)
@given(
    st.integers(0, len(COMPACT)),
    st.integers(0, 3),
    st.text('0123456789,"[]{}:-+.eE nultrDWPRC\\\x00é', max_size=3),
)
@example(9, 0, "1")
def test_a_changed_payload_is_read_as_plainly(place: int, width: int, inserted: str) -> None:
    """Some bytes taken away, some put there: accepted and equal, or refused, in both ways."""
    assert_read_as_plainly(COMPACT[:place] + inserted.encode() + COMPACT[place + width :])


@settings(deadline=None, max_examples=300)
@given(st.integers(0, len(COMPACT) - 1), st.binary(min_size=1, max_size=2))
def test_bytes_that_are_no_text_are_refused_both_ways(place: int, octets: bytes) -> None:
    """Also within the letters of a name."""
    assert_read_as_plainly(COMPACT[:place] + octets + COMPACT[place + 1 :])


VALUES = [
    "0",
    "-0",
    "-1",
    "1.0",
    "0.0",
    "1e2",
    "01",
    "00",
    "true",
    "false",
    "null",
    '"1"',
    "[]",
    "[1]",
    "{}",
    "",
    "1,",
    "NaN",
    "Infinity",
    "1_0",
    str(2**63 - 1),
    str(2**63),
    str(2**64 - 1),
    str(2**64),
    str(-(2**63)),
    str(-(2**63) - 1),
    "1" + "0" * 29,
    "9" * 400,
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: value[:24] or "nothing")
@pytest.mark.parametrize("column", COLUMNS[1:])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_value_is_an_integer_of_63_bits(value: str, column: str, place: int) -> None:
    """Or the payload is refused: in any column, at any place."""
    columns = json.loads(COMPACT)
    written = {name: [str(number) for number in columns[name]] for name in COLUMNS[1:]}
    written[column][place] = value
    members = ",".join(f'"{name}":[{",".join(written[name])}]' for name in COLUMNS[1:])
    payload = f'{{"kind":"DWP",{members}}}'.encode()
    assert_read_as_plainly(payload)
    if value not in ("0", "-0", str(2**63 - 1)):
        assert read(payload, 2, 3) is None


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("value", ["null", "[]", "{}", '""', '"DWP"', "1", "true", "[[1,2,3]]", "[1,2,3]"])
def test_a_column_of_another_type_is_refused(column: str, value: str) -> None:
    """But for ids, which a source may not have."""
    columns = {name: json.dumps(values) for name, values in json.loads(COMPACT).items()}
    columns[column] = value
    assert_read_as_plainly(("{" + ",".join(f'"{name}":{columns[name]}' for name in columns) + "}").encode())


@pytest.mark.parametrize("kinds", ["D1P", "D,P", "123", ",,,", "DW1", "0WP"])
def test_digits_and_commas_are_no_kinds(kinds: str) -> None:
    """A row of such a kind would be taken for a dispute."""
    assert read(COMPACT.replace(b"DWP", kinds.encode()), 2, 3) is None


@pytest.mark.parametrize("kinds", ["DWP1", "D,WP", "1DWP"])
def test_digits_and_commas_beside_the_kinds_are_refused(kinds: str) -> None:
    """Whichever count the entry gives."""
    payload = COMPACT.replace(b"DWP", kinds.encode())
    assert_read_as_plainly(payload, count=3)
    assert_read_as_plainly(payload, count=4)


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("name", ["{}1", "2{}", "{},", "{}00,1"])
def test_a_name_with_digits_or_commas_is_refused(column: str, name: str) -> None:
    """It is another name: none of ours, and no reason to break."""
    payload = COMPACT.replace(f'"{column}"'.encode(), f'"{name.format(column)}"'.encode())
    assert_read_as_plainly(payload)


@pytest.mark.parametrize(
    ("increments", "previous"),
    [
        ([INT64_MAX, INT64_MAX, 2], 0),
        ([INT64_MAX, 1, 1], 0),
        ([1, INT64_MAX - 3, 2], 0),
        ([1, INT64_MAX - 3, 3], 0),
        ([1, 1, 1], INT64_MAX),
        ([1, 1, 1], INT64_MAX - 3),
        ([1, 1, 1], INT64_MAX - 2),
        ([INT64_MAX, INT64_MAX, INT64_MAX], INT64_MAX),
        ([2**62, 2**62, 2**62], 2**62),
        ([0, 1, 1], 5),
        ([1, 0, 1], 5),
        ([1, 1, 0], 5),
    ],
)
def test_rows_ascend_and_stay_within_64_bits(increments: list[int], previous: int) -> None:
    """Each step fits; where their sum does not, it is never taken for a small number."""
    payload = COMPACT.replace(b"[1,4,1]", json.dumps(increments, separators=(",", ":")).encode())
    assert_read_as_plainly(payload, previous)


@pytest.mark.parametrize("count", [0, 1, 2, 4, 65_536])
def test_the_count_is_that_of_the_columns(count: int) -> None:
    """In both ways."""
    assert_read_as_plainly(COMPACT, count=count)
    assert_read_as_plainly(b'{"kind":"","account":[],"tx":[],"amount":[],"row":[]}', count=count)
    assert_read_as_plainly(b'{"kind":"","account":[],"tx":null,"amount":[],"row":[]}', count=count)


def test_of_a_column_written_twice_the_last_one_counts() -> None:
    """As JSON readers have it."""
    assert_read_as_plainly(COMPACT[:-1] + b',"row":[1,1,1]}')
    assert_read_as_plainly(COMPACT[:-1] + b',"row":[1,1,"1"]}')
