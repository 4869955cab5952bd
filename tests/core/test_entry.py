"""The wire format: what is written is what is read, and nothing else is ever taken for it."""

from hashlib import blake2b

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftpipe.core.entry import Entry, EntryId, Foreign, RawEntry, decode, digest_of, encode, origin
from hftpipe.core.transaction import AMOUNT_MAX, INT64_MAX, KIND_LETTERS, MOVING, Batch
from hftpipe.errors import EntryDamaged

ID = EntryId(1, 1042)
SIGNED = (b"v", b"src", b"prev", b"pos", b"t", b"n", b"b")
HUGE = 5 * 1024 * 1024

BATCH = Batch.of("DWP", [2, 4, 6], [10, 11, 10], [100_000, 5, 0], [3, 7, 8])
FIELDS = encode("orders.csv", 2, BATCH, 1_700_000_000_123)


def read(fields: dict[bytes, bytes], shard: int = 0, shards: int = 2) -> Entry | Foreign:
    return decode(RawEntry(ID, fields), shard, shards)


def signed(fields: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """The fields with the digest that belongs to them, made as the format says: lengths keep values apart."""
    content = b"".join(b"%d:%b" % (len(fields[name]), fields[name]) for name in SIGNED)
    return {**fields, b"d": blake2b(content, digest_size=16).hexdigest().encode()}


def with_columns(columns: dict[str, object], **fields: bytes) -> dict[bytes, bytes]:
    """A rightly signed entry with other columns; `None` takes a column away."""
    payload: dict[str, object] = {**orjson.loads(FIELDS[b"b"]), **columns}
    kept = {name: column for name, column in payload.items() if column is not ...}
    other = {name.encode(): value for name, value in fields.items()}
    return signed({**FIELDS, b"b": orjson.dumps(kept), **other})


def reason_of(fields: dict[bytes, bytes], shard: int = 0, shards: int = 2) -> str:
    entry = read(fields, shard, shards)
    assert isinstance(entry, Foreign)
    assert entry.id == ID
    assert entry.fields == fields
    assert entry.digest == digest_of(fields)
    return entry.reason


# --- Round trip ----------------------------------------------------------------------------------------------


@st.composite
def batches(draw: st.DrawFn, shard: int = 0, shards: int = 1) -> tuple[int, Batch]:
    """A position and a batch behind it that a producer of ours could send."""
    has_ids = draw(st.booleans())
    kinds = draw(st.text(sorted(KIND_LETTERS if has_ids else MOVING), min_size=1, max_size=20))
    numbers = st.integers(0, INT64_MAX)
    amount = st.integers(1, AMOUNT_MAX)
    steps = draw(st.lists(st.integers(1, 10**6), min_size=len(kinds) + 1, max_size=len(kinds) + 1))
    positions = [sum(steps[: index + 1]) for index in range(len(steps))]
    accounts = st.integers(0, (INT64_MAX - shard) // shards).map(lambda each: each * shards + shard)
    batch = Batch.of(
        kinds,
        draw(st.lists(accounts, min_size=len(kinds), max_size=len(kinds))),
        draw(st.lists(numbers, min_size=len(kinds), max_size=len(kinds))) if has_ids else None,
        [draw(amount) if kind in MOVING else 0 for kind in kinds],
        positions[1:],
    )
    return draw(st.integers(0, positions[0])), batch


@settings(deadline=None)
@given(batches(), st.text(min_size=1), st.integers(0, INT64_MAX))
def test_what_is_encoded_is_decoded(sent: tuple[int, Batch], source: str, time_ms: int) -> None:
    """Every value of every column, any source name, any time."""
    previous, batch = sent
    try:
        fields = encode(source, previous, batch, time_ms)
    except UnicodeEncodeError:
        return  # a lone surrogate is no text
    entry = decode(RawEntry(ID, fields), 0, 1)
    assert entry == Entry(
        ID,
        source,
        previous,
        batch.rows[-1],
        time_ms,
        fields[b"b"].decode(),
        fields[b"d"].decode(),
        batch,
    )


@settings(deadline=None)
@given(st.integers(1, 9), st.data())
def test_an_entry_is_accepted_by_its_own_shard_only(shards: int, data: st.DataObject) -> None:
    """An entry under the key of another shard is none of ours there."""
    shard = data.draw(st.integers(0, shards - 1))
    previous, batch = data.draw(batches(shard, shards))
    fields = encode("source", previous, batch, 0)
    for other in range(shards):
        entry = decode(RawEntry(ID, fields), other, shards)
        assert isinstance(entry, Entry if other == shard else Foreign)


def test_the_wire_format_stays_as_it_is() -> None:
    """A later version must still read what this one has written: bytes as they are on disk."""
    assert FIELDS == {
        b"v": b"1",
        b"src": b"orders.csv",
        b"prev": b"2",
        b"pos": b"8",
        b"t": b"1700000000123",
        b"n": b"3",
        b"b": b'{"kind":"DWP","account":[2,4,6],"tx":[10,11,10],"amount":[100000,5,0],"row":[1,4,1]}',
        b"d": b"94c8f3b56b3a6cedc9bcd7a2724e48d7",
    }
    assert list(FIELDS) == [b"v", b"src", b"prev", b"pos", b"t", b"n", b"b", b"d"]


def test_a_batch_without_ids_has_none_after_the_round_trip() -> None:
    """`tx` is null for the whole batch, never for one row."""
    entry = read(encode("source", 0, Batch.of("D", [2], None, [1], [1]), 0))
    assert isinstance(entry, Entry)
    assert entry.batch.txs is None


# --- Nothing else is accepted -----------------------------------------------------------------------------------


@settings(deadline=None, max_examples=500)
@given(st.sampled_from(sorted(FIELDS)), st.data())
def test_a_changed_byte_is_never_accepted(name: bytes, data: st.DataObject) -> None:
    """One byte changed, added or taken away anywhere: damaged, or not ours."""
    value = FIELDS[name]
    place = data.draw(st.integers(0, len(value) - 1))
    byte = data.draw(st.binary(min_size=0, max_size=1))
    width = data.draw(st.integers(0, 1))
    changed = value[:place] + byte + value[place + width :]
    if changed == value:
        return
    _assert_not_accepted({**FIELDS, name: changed})


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(sorted(FIELDS)), st.binary(max_size=40) | st.sampled_from(list(FIELDS.values())))
def test_a_changed_field_is_never_accepted(name: bytes, value: bytes) -> None:
    """Whatever it is changed to, values of other fields included."""
    if value != FIELDS[name]:
        _assert_not_accepted({**FIELDS, name: value})


@pytest.mark.parametrize("name", SIGNED[1:])
def test_each_field_but_the_version_is_under_the_digest(name: bytes) -> None:
    """A change that leaves the entry well-formed is damage: money may be in it, and the shard must stop."""
    changed = {
        **FIELDS,
        name: FIELDS[name].replace(b"1", b"2").replace(b"2", b"3").replace(b"8", b"9") + b"0",
    }
    with pytest.raises(EntryDamaged, match="0/1-1042"):
        read(changed)


def test_values_moved_across_the_border_of_two_fields_are_noticed() -> None:
    """prev 2, pos 8 and prev 28, pos empty have the same bytes and another digest."""
    left = {**FIELDS, b"prev": b"2", b"pos": b"8"}
    right = {**FIELDS, b"prev": b"28", b"pos": b""}
    assert digest_of(left) != digest_of(right)


def _assert_not_accepted(fields: dict[bytes, bytes]) -> None:
    try:
        entry = read(fields)
    except EntryDamaged:
        return
    assert isinstance(entry, Foreign)


# --- Not ours, and why --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_an_entry_without_one_of_the_fields_is_not_ours(name: bytes) -> None:
    """The reason names the field."""
    fields = {other: value for other, value in FIELDS.items() if other != name}
    assert reason_of(fields) == f"missing field {name.decode()}"


def test_an_entry_without_any_field_is_not_ours() -> None:
    """What a pending entry looks like after it was trimmed."""
    assert reason_of({}) == "missing field b"


def test_an_entry_with_a_field_more_is_not_ours() -> None:
    """Never guessed: a later version says what it means."""
    assert reason_of({**FIELDS, b"extra": b"1"}) == "unknown field b'extra'"


@pytest.mark.parametrize("version", [b"2", b"0", b"01", b"", b"one", b"\xff"])
def test_an_entry_of_an_unknown_version_is_not_ours(version: bytes) -> None:
    """Refused by name, rightly signed or not."""
    assert reason_of({**FIELDS, b"v": version}) == f"unknown version {version!r}"
    assert reason_of(signed({**FIELDS, b"v": version})) == f"unknown version {version!r}"


@pytest.mark.parametrize("digest", [b"", b"0" * 31, b"0" * 33, b"G" * 32, b"A" * 32, b"\xff" * 32])
def test_a_digest_that_cannot_be_one_is_not_ours(digest: bytes) -> None:
    """32 digits of lower-case hex, else no producer of ours made it."""
    assert reason_of({**FIELDS, b"d": digest}) == "field d is not a digest"


@pytest.mark.parametrize("name", [b"prev", b"pos", b"t", b"n"])
@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"-1",
        b"+1",
        b"01",
        b"1.0",
        b"1e3",
        b" 1",
        b"1_0",
        b"9223372036854775808",
        b"9" * 40,
        "١".encode(),
    ],
)
def test_a_number_that_is_none_is_not_ours(name: bytes, value: bytes) -> None:
    """Digits only, no leading zero, at most 2^63-1."""
    reason = reason_of(signed({**FIELDS, name: value}))
    assert reason == f"field {name.decode()} is not a number in range"


def test_a_source_that_is_not_text_is_not_ours() -> None:
    """Source names are UTF-8."""
    assert reason_of(signed({**FIELDS, b"src": b"\xff\xfe"})) == "field src is not UTF-8"


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "field b is not JSON"),
        (b"{", "field b is not JSON"),
        (b"\xff", "field b is not JSON"),
        (FIELDS[b"b"][:-1], "field b is not JSON"),
        (FIELDS[b"b"] + b"x", "field b is not JSON"),
        (b"[" * 100_000, "field b is not JSON"),
        (b"[]", "field b is not an object"),
        (b"null", "field b is not an object"),
        (b'"DWP"', "field b is not an object"),
    ],
)
def test_a_payload_that_is_no_object_is_not_ours(payload: bytes, reason: str) -> None:
    """However rightly it is signed."""
    assert reason_of(signed({**FIELDS, b"b": payload})) == reason


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"note": []}, "unknown column 'note'"),
        ({"row": ...}, "missing column row"),
        ({"tx": ...}, "missing column tx"),
        ({"kind": "DWX"}, "column kind holds an unknown letter"),
        ({"kind": "dwp"}, "column kind holds an unknown letter"),
        ({"kind": ["D", "W", "P"]}, "column kind holds an unknown letter"),
        ({"kind": None}, "column kind holds an unknown letter"),
        ({"kind": "DW"}, "field n is not the number of transactions"),
        ({"kind": "DWPP"}, "field n is not the number of transactions"),
        ({"account": [2, 4]}, "column account has not n values"),
        ({"account": [2, 4, 6, 8]}, "column account has not n values"),
        ({"tx": [10, 11]}, "column tx has not n values"),
        ({"amount": []}, "column amount has not n values"),
        ({"row": {}}, "column row has not n values"),
        ({"account": "246"}, "column account has not n values"),
        ({"account": [2, 4, True]}, "column account holds something else than integers from 0 to 2^63-1"),
        ({"account": [2, 4, 6.0]}, "column account holds something else than integers from 0 to 2^63-1"),
        ({"account": [2, 4, "6"]}, "column account holds something else than integers from 0 to 2^63-1"),
        ({"account": [2, 4, None]}, "column account holds something else than integers from 0 to 2^63-1"),
        ({"tx": [10, None, 10]}, "column tx holds something else than integers from 0 to 2^63-1"),
        ({"amount": [100_000, 5.5, 0]}, "column amount holds something else than integers from 0 to 2^63-1"),
        ({"amount": [False, 5, 0]}, "column amount holds something else than integers from 0 to 2^63-1"),
        ({"row": [1, 4.0, 1]}, "column row holds something else than integers from 0 to 2^63-1"),
        ({"account": [2, 4, -6]}, "column account holds something else than integers from 0 to 2^63-1"),
        ({"account": [2, 4, 2**63]}, "column account holds something else than integers from 0 to 2^63-1"),
        ({"tx": [10, 11, -1]}, "column tx holds something else than integers from 0 to 2^63-1"),
        ({"tx": [10, 11, 2**63]}, "column tx holds something else than integers from 0 to 2^63-1"),
        ({"amount": [-1, 5, 0]}, "column amount holds something else than integers from 0 to 2^63-1"),
        ({"row": [1, 5, -1]}, "column row holds something else than integers from 0 to 2^63-1"),
        ({"account": [2, 4, 7]}, "an account belongs to another shard"),
        ({"amount": [AMOUNT_MAX + 1, 5, 0]}, "an amount is out of range"),
        ({"amount": [0, 5, 0]}, "an amount does not suit its kind"),
        ({"amount": [1, 5, 1]}, "an amount does not suit its kind"),
        ({"kind": "DWD"}, "an amount does not suit its kind"),
        ({"tx": None}, "a dispute names no transaction"),
        ({"row": [1, 0, 5]}, "rows do not ascend"),
        ({"row": [0, 3, 3]}, "rows do not ascend"),
        ({"row": [1, 4, 2]}, "field pos is not the position of the last row"),
    ],
)
def test_columns_that_no_producer_of_ours_writes_are_not_ours(
    columns: dict[str, object], reason: str
) -> None:
    """Each of them rightly signed: a digest alone makes no transaction."""
    fields = with_columns(columns)
    if "row" in columns and reason == "rows do not ascend":
        steps = columns["row"]
        assert isinstance(steps, list)
        fields = signed({**fields, b"pos": b"%d" % (2 + sum(steps))})
    assert reason_of(fields) == reason


def test_an_integer_beyond_64_bits_is_not_taken_for_a_float() -> None:
    """The JSON reader turns it into a float: no money is read from that."""
    payload = FIELDS[b"b"].replace(b"100000", b"1" + b"0" * 30)
    assert reason_of(signed({**FIELDS, b"b": payload})) == (
        "column amount holds something else than integers from 0 to 2^63-1"
    )


@pytest.mark.parametrize("word", [b"NaN", b"Infinity", b"-Infinity", b"1e400"])
def test_words_for_no_number_are_not_ours(word: bytes) -> None:
    """Python's own JSON would take them."""
    payload = FIELDS[b"b"].replace(b"100000", word)
    assert isinstance(read(signed({**FIELDS, b"b": payload})), Foreign)


def test_an_entry_of_no_transaction_is_not_ours() -> None:
    """There is no empty batch."""
    fields = with_columns({"kind": "", "account": [], "tx": [], "amount": [], "row": []}, n=b"0")
    assert reason_of(fields) == "field n is not the number of transactions"


def test_rows_beyond_64_bits_are_not_ours() -> None:
    """Each step fits, their sum does not."""
    row = [INT64_MAX, INT64_MAX, 1]
    assert isinstance(read(with_columns({"row": row}, pos=b"%d" % INT64_MAX)), Foreign)
    with_sum = with_columns({"row": row}, pos=b"%d" % (2 + sum(row)))
    assert reason_of(with_sum) == "rows do not ascend"


@pytest.mark.parametrize(
    "fields",
    [
        {b"x" * HUGE: b"1"},
        {**FIELDS, b"x" * HUGE: b"1"},
        {**FIELDS, b"v": b"x" * HUGE},
        {**FIELDS, b"d": b"x" * HUGE},
        signed({**FIELDS, b"n": b"9" * HUGE}),
        signed({**FIELDS, b"b": b"x" * HUGE}),
        with_columns({"x" * HUGE: []}),
        with_columns({"kind": "X" * HUGE}),
    ],
    ids=["alone", "field", "version", "digest", "number", "payload", "column", "kind"],
)
def test_a_huge_field_has_a_short_reason(fields: dict[bytes, bytes]) -> None:
    """The reason is kept in journal and dead letters: it does not grow with what it speaks of."""
    assert len(reason_of(fields)) < 100


# --- Digests and ids -----------------------------------------------------------------------------------------------


def test_the_digest_of_a_foreign_entry_does_not_depend_on_the_order_of_its_fields() -> None:
    """A log may hand them out in another order."""
    assert digest_of({b"a": b"1", b"b": b"2"}) == digest_of({b"b": b"2", b"a": b"1"})


@settings(deadline=None)
@given(*[st.dictionaries(st.binary(max_size=3), st.binary(max_size=3), max_size=3)] * 2)
def test_other_fields_have_another_digest(one: dict[bytes, bytes], other: dict[bytes, bytes]) -> None:
    """Foreign entries too are told apart by their content."""
    assert (digest_of(one) == digest_of(other)) is (one == other)


def test_the_digest_written_is_recomputed_not_believed() -> None:
    """Else a changed entry with its old digest would pass for the one that was applied."""
    assert digest_of({**FIELDS, b"n": b"4"}) != digest_of(FIELDS)
    assert digest_of({**FIELDS, b"d": b"0" * 32}) == digest_of(FIELDS)


@given(st.tuples(st.integers(0, 2**63), st.integers(0, 2**63)))
def test_an_id_is_read_as_it_is_written(parts: tuple[int, int]) -> None:
    """From text and from bytes."""
    entry_id = EntryId(*parts)
    assert EntryId.parse(str(entry_id)) == entry_id
    assert EntryId.parse(str(entry_id).encode()) == entry_id


def test_ids_are_in_the_order_of_the_log() -> None:
    """By number, not by letter, and a later generation behind every id of an earlier one."""
    texts = ["1-10", "10-0", "2-1", "1-0", "2-0", "1-9", "1-100", "1-1"]
    ordered = sorted(EntryId.parse(text) for text in texts)
    assert list(map(str, ordered)) == ["1-0", "1-1", "1-9", "1-10", "1-100", "2-0", "2-1", "10-0"]


def test_the_origin_is_right_before_the_first_id() -> None:
    """It is written like an id and read again, and no entry can have it."""
    assert origin(1) < EntryId(1, 0)
    assert origin(1).moved(1) == EntryId(1, 0)
    assert EntryId.parse(str(origin(1))) == origin(1)
    assert EntryId(1, 5).moved(-2) == EntryId(1, 3)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "-",
        "1-",
        "-1",
        "a-b",
        "1-1-1",
        "1-x",
        b"\xff-1",
        "1-0 ",
        " 1-0",
        "1_0-0",
        "+1-0",
        "1-1.0",
        "1--2",
    ],
)
def test_what_is_no_id_is_refused(text: str | bytes) -> None:
    """Never read as another one."""
    with pytest.raises(ValueError):  # noqa: PT011 - any text of it will do
        EntryId.parse(text)
