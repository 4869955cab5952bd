"""The wire format: one stream entry carries 1..K transactions of one shard, as columns.

| field       | meaning                                                                              |
|-------------|--------------------------------------------------------------------------------------|
| v           | format version                                                                       |
| src         | source id                                                                            |
| prev, pos   | the source's position before and after this batch, for this shard                    |
| t           | append time, Unix ms (information only: no decision reads it)                        |
| n           | number of transactions                                                               |
| b           | payload: JSON columns kind, account, tx, amount, row (`row` as increments from prev) |
| d           | BLAKE2b-16 over all the other fields, hex                                            |
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, NamedTuple

import numpy as np
import orjson

from hftpipe.core.transaction import AMOUNT_MAX, INT64_MAX, KIND_LETTERS, Batch, Column
from hftpipe.errors import EntryDamaged

FORMAT: Final = 1

ENTRY_TRANSACTIONS_MAX: Final = 65_536
"""No producer of ours puts more into one entry."""

SOURCE_BYTES_MAX: Final = 8_192
"""No source of ours has a longer id."""

_SIGNED: Final = (b"v", b"src", b"prev", b"pos", b"t", b"n", b"b")
_FIELDS: Final = frozenset((*_SIGNED, b"d"))
_COLUMNS: Final = ("kind", "account", "tx", "amount", "row")
_NUMBER: Final = re.compile(rb"0|[1-9][0-9]{0,18}")
_ID: Final = re.compile(r"([0-9]{1,20})-([0-9]{1,20}|-1)", re.ASCII)
_DIGEST: Final = re.compile(rb"[0-9a-f]{32}")


class EntryId(NamedTuple):
    """An id in a shard's stream. Ids are dense: `1-0`, `1-1`, `1-2`, … with no hole."""

    generation: int
    sequence: int

    def __str__(self) -> str:
        return f"{self.generation}-{self.sequence}"

    @classmethod
    def parse(cls, text: str | bytes) -> "EntryId":
        """Reads `1-1042`, and what `origin` is written as. Raises ValueError for anything else."""
        found = _ID.fullmatch(text if isinstance(text, str) else text.decode("ascii"))
        if found is None:
            raise ValueError(f"{text[:40]!r} is no entry id")
        return cls(int(found[1]), int(found[2]))

    def moved(self, steps: int) -> "EntryId":
        """The id so many entries later (earlier when negative), within the generation."""
        return EntryId(self.generation, self.sequence + steps)


def origin(generation: int) -> EntryId:
    """The position before a generation's first entry; never the id of an entry."""
    return EntryId(generation, -1)


@dataclass(frozen=True, slots=True)
class RawEntry:
    """An entry as the log holds it; `fields` is empty when it was trimmed while pending."""

    id: EntryId
    fields: Mapping[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of ours, decoded and checked. `time_ms` is Unix time; `digest` is hex."""

    id: EntryId
    source: str
    previous: int
    position: int
    time_ms: int
    payload: str
    digest: str
    batch: Batch


@dataclass(frozen=True, slots=True)
class Foreign:
    """An entry that no producer of ours can have made, and why. `digest` is that of its raw fields."""

    id: EntryId
    reason: str
    fields: Mapping[bytes, bytes]
    digest: str


def encode(source: str, previous: int, batch: Batch, time_ms: int) -> dict[bytes, bytes]:
    """The fields of an entry, in the order in which they are written."""
    payload = {
        "kind": batch.kinds,
        "account": batch.accounts,
        "tx": batch.txs,
        "amount": batch.amounts,
        "row": np.diff(batch.rows, prepend=previous),
    }
    fields = {
        b"v": b"%d" % FORMAT,
        b"src": source.encode(),
        b"prev": b"%d" % previous,
        b"pos": b"%d" % batch.rows[-1],
        b"t": b"%d" % time_ms,
        b"n": b"%d" % len(batch),
        b"b": orjson.dumps(payload, option=orjson.OPT_SERIALIZE_NUMPY),
    }
    fields[b"d"] = _signature(fields).encode()
    return fields


def digest_of(fields: Mapping[bytes, bytes]) -> str:
    """What identifies an entry's content: recomputed, so that a changed field changes it; hex."""
    if fields.keys() == _FIELDS:
        return _signature(fields)
    digest = blake2b(digest_size=16)
    for name in sorted(fields):
        _add(digest, name)
        _add(digest, fields[name])
    return digest.hexdigest()


def decode(raw: RawEntry, shard: int, shards: int) -> Entry | Foreign:
    """Reads an entry, checking everything that a producer of ours guarantees.

    Raises EntryDamaged when the entry is of our making but does not match its digest: money may be in it.
    """
    digest = digest_of(raw.fields)
    try:
        return _decode(raw, digest, shard, shards)
    except _NotOurs as reason:
        return Foreign(raw.id, str(reason), raw.fields, digest)


class _NotOurs(Exception):
    """Why an entry cannot be of our making."""


def _decode(raw: RawEntry, digest: str, shard: int, shards: int) -> Entry:
    fields = raw.fields
    _check_fields(fields)
    if fields[b"d"].decode() != digest:
        raise EntryDamaged(
            f"entry {shard}/{raw.id} does not match its digest ({fields[b'd'].decode()} written, {digest} found): "
            "it was changed after it was appended. Restore the log from a copy"
        )
    previous, count = _number(fields, b"prev"), _number(fields, b"n")
    if count > ENTRY_TRANSACTIONS_MAX or len(fields[b"src"]) > SOURCE_BYTES_MAX:
        raise _NotOurs("field n or src is too large")
    batch = read_columns(fields[b"b"], previous, count)
    if batch.rows[-1] != _number(fields, b"pos"):
        raise _NotOurs("field pos is not the position of the last row")
    _check_values(batch, shard, shards)
    return Entry(
        raw.id,
        _text(fields[b"src"], "src"),
        previous,
        int(batch.rows[-1]),
        _number(fields, b"t"),
        fields[b"b"].decode(),
        digest,
        batch,
    )


def _check_fields(fields: Mapping[bytes, bytes]) -> None:
    if missing := sorted(_FIELDS - fields.keys()):
        raise _NotOurs(f"missing field {missing[0].decode()}")
    if unknown := sorted(fields.keys() - _FIELDS):
        raise _NotOurs(f"unknown field {unknown[0][:40]!r}")
    if fields[b"v"] != b"%d" % FORMAT:
        raise _NotOurs(f"unknown version {fields[b'v'][:20]!r}")
    if not _DIGEST.fullmatch(fields[b"d"]):
        raise _NotOurs("field d is not a digest")


def read_columns(payload: bytes, previous: int, count: int) -> Batch:
    """The batch in a payload whose rows begin behind `previous`; of a journal, it was checked when it was applied."""
    try:
        columns = orjson.loads(payload)
    except orjson.JSONDecodeError:
        raise _NotOurs("field b is not JSON") from None
    if not isinstance(columns, dict):
        raise _NotOurs("field b is not an object")
    if unknown := sorted(columns.keys() - set(_COLUMNS)):
        raise _NotOurs(f"unknown column {unknown[0][:40]!r}")
    if missing := sorted(set(_COLUMNS) - columns.keys()):
        raise _NotOurs(f"missing column {missing[0]}")
    kinds, txs = columns["kind"], columns["tx"]
    if not isinstance(kinds, str) or not KIND_LETTERS.issuperset(kinds):
        raise _NotOurs("column kind holds an unknown letter")
    if count == 0 or len(kinds) != count:
        raise _NotOurs("field n is not the number of transactions")
    accounts, amounts, increments = (_column(name, columns, count) for name in ("account", "amount", "row"))
    rows = np.cumsum(increments) + previous
    if rows[0] <= previous or (rows[1:] <= rows[:-1]).any():  # also where the sum went beyond 64 bits
        raise _NotOurs("rows do not ascend")
    return Batch(kinds, accounts, None if txs is None else _column("tx", columns, count), amounts, rows)


def _column(name: str, columns: Mapping[str, object], count: int) -> Column:
    values = columns[name]
    if not isinstance(values, list) or len(values) != count:
        raise _NotOurs(f"column {name} has not n values")
    try:
        column = np.array(values)
    except ValueError:  # lists of different lengths within
        column = np.array([])
    # numpy takes a boolean among integers for 1 or 0, and an integer beyond 64 bits for a float.
    if column.dtype != np.int64 or column.ndim != 1 or column.min() < 0 or bool in map(type, values):
        raise _NotOurs(f"column {name} holds something else than integers from 0 to 2^63-1")
    return column


def _check_values(batch: Batch, shard: int, shards: int) -> None:
    if (batch.accounts % shards != shard).any():
        raise _NotOurs("an account belongs to another shard")
    if batch.amounts.max() > AMOUNT_MAX:
        raise _NotOurs("an amount is out of range")
    moving = batch.is_moving
    if batch.txs is None and not moving.all():
        raise _NotOurs("a dispute names no transaction")
    if ((batch.amounts > 0) != moving).any():
        raise _NotOurs("an amount does not suit its kind")


def _number(fields: Mapping[bytes, bytes], name: bytes) -> int:
    if not _NUMBER.fullmatch(fields[name]) or (value := int(fields[name])) > INT64_MAX:
        raise _NotOurs(f"field {name.decode()} is not a number in range")
    return value


def _text(value: bytes, name: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise _NotOurs(f"field {name} is not UTF-8") from None


def _signature(fields: Mapping[bytes, bytes]) -> str:
    digest = blake2b(digest_size=16)
    for name in _SIGNED:
        _add(digest, fields[name])
    return digest.hexdigest()


def _add(digest: "blake2b", value: bytes) -> None:
    """Each value with its length before it, so that no two lists of values look alike."""
    digest.update(b"%d:" % len(value))
    digest.update(value)
