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
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, NamedTuple

import orjson

from hftpipe.core.payload import Unreadable, read_columns
from hftpipe.core.transaction import AMOUNT_MAX, INT64_MAX, Batch
from hftpipe.errors import EntryDamaged

FORMAT: Final = 1

ENTRY_TRANSACTIONS_MAX: Final = 65_536
"""No producer of ours puts more into one entry."""

SOURCE_BYTES_MAX: Final = 8_192
"""No source of ours has a longer id."""

_SIGNED: Final = (b"v", b"src", b"prev", b"pos", b"t", b"n", b"b")
_FIELDS: Final = frozenset((*_SIGNED, b"d"))
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


@dataclass(frozen=True, slots=True)
class Lost(Foreign):
    """Entries that an operator has given up, in the place where they stood: `first` to `id`, both included.

    first: None when nobody knows what there was; the shard then goes on behind `id`.
    positions: of sources that cannot be read again: what they have sent behind the loss follows on from there.
    fields, digest: of an entry that is there, but damaged: the only one that is given up. Else empty.
    """

    first: EntryId | None
    positions: Mapping[str, int]


def encode(source: str, previous: int, batch: Batch, time_ms: int) -> dict[bytes, bytes]:
    """The fields of an entry, in the order in which they are written."""
    increments = batch.rows.copy()
    increments[0] -= previous
    increments[1:] -= batch.rows[:-1]
    payload = {
        "kind": batch.kinds,
        "account": batch.accounts,
        "tx": batch.txs,
        "amount": batch.amounts,
        "row": increments,
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
    return _digest(part for name in sorted(fields) for part in (name, fields[name]))


def decode(raw: RawEntry, shard: int, shards: int) -> Entry | Foreign:
    """Reads an entry, checking everything that a producer of ours guarantees.

    Raises EntryDamaged when the entry is of our making but does not match its digest: money may be in it.
    """
    digest = digest_of(raw.fields)
    try:
        return _decode(raw, digest, shard, shards)
    except Unreadable as reason:
        return Foreign(raw.id, str(reason), raw.fields, digest)


def appended_ms(raw: RawEntry) -> int | None:
    """When an entry says that it was appended, Unix ms; None when it does not. Nothing else of it is looked at."""
    text = raw.fields.get(b"t", b"")
    return int(text) if _NUMBER.fullmatch(text) else None


def _decode(raw: RawEntry, digest: str, shard: int, shards: int) -> Entry:
    fields = raw.fields
    _check_fields(fields)
    if fields[b"d"].decode() != digest:
        raise EntryDamaged(
            f"entry {shard}/{raw.id} does not match its digest ({fields[b'd'].decode()} written, {digest} found): "
            f"it was changed after it was appended. Restore the log from a copy; if there is none, `hftpipe repair "
            f"--shard {shard}` shows what would be given up"
        )
    previous, count = _number(fields, b"prev"), _number(fields, b"n")
    if count > ENTRY_TRANSACTIONS_MAX or len(fields[b"src"]) > SOURCE_BYTES_MAX:
        raise Unreadable("field n or src is too large")
    batch = read_columns(fields[b"b"], previous, count)
    if batch.rows[-1] != _number(fields, b"pos"):
        raise Unreadable("field pos is not the position of the last row")
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
    if fields.keys() != _FIELDS:
        if missing := sorted(_FIELDS - fields.keys()):
            raise Unreadable(f"missing field {missing[0].decode()}")
        raise Unreadable(f"unknown field {min(fields.keys() - _FIELDS)[:40]!r}")
    if fields[b"v"] != b"%d" % FORMAT:
        raise Unreadable(f"unknown version {fields[b'v'][:20]!r}")
    if not _DIGEST.fullmatch(fields[b"d"]):
        raise Unreadable("field d is not a digest")


def _check_values(batch: Batch, shard: int, shards: int) -> None:
    if (batch.accounts % shards != shard).any():
        raise Unreadable("an account belongs to another shard")
    if batch.amounts.max() > AMOUNT_MAX:
        raise Unreadable("an amount is out of range")
    moving = batch.is_moving
    if batch.txs is None and not moving.all():
        raise Unreadable("a dispute names no transaction")
    if ((batch.amounts > 0) != moving).any():
        raise Unreadable("an amount does not suit its kind")


def _number(fields: Mapping[bytes, bytes], name: bytes) -> int:
    if not _NUMBER.fullmatch(fields[name]) or (value := int(fields[name])) > INT64_MAX:
        raise Unreadable(f"field {name.decode()} is not a number in range")
    return value


def _text(value: bytes, name: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise Unreadable(f"field {name} is not UTF-8") from None


def _signature(fields: Mapping[bytes, bytes]) -> str:
    return _digest(map(fields.__getitem__, _SIGNED))


def _digest(values: Iterable[bytes]) -> str:
    """Each value with its length before it, so that no two lists of values look alike."""
    return blake2b(b"".join([b"%d:%b" % (len(value), value) for value in values]), digest_size=16).hexdigest()
