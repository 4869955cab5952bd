"""From a journal record back to the entry that it was made of."""

from collections.abc import Mapping

import orjson

from hftpipe.core.entry import FORMAT, Entry, EntryId, Foreign, Lost, RawEntry, decode, digest_of
from hftpipe.core.journal import Record, is_loss, lost_in
from hftpipe.errors import EntryDamaged

Fields = Mapping[bytes, bytes]


class Unlike(Exception):
    """How a record and the entry that it was made of disagree."""


def fields_of(record: Record) -> dict[bytes, bytes]:
    """The fields of the entry of ours that a record was made of."""
    return {
        b"v": b"%d" % FORMAT,
        b"src": octets_of(record.source),
        b"prev": b"%d" % record.previous,
        b"pos": b"%d" % record.position,
        b"t": b"%d" % record.time_ms,
        b"n": b"%d" % record.count,
        b"b": octets_of(record.payload),
        b"d": octets_of(record.digest),
    }


def fields_of_entry(entry: Entry) -> dict[bytes, bytes]:
    """The fields that an entry of ours was read from."""
    return {
        b"v": b"%d" % FORMAT,
        b"src": entry.source.encode(),
        b"prev": b"%d" % entry.previous,
        b"pos": b"%d" % entry.position,
        b"t": b"%d" % entry.time_ms,
        b"n": b"%d" % len(entry.batch),
        b"b": entry.payload.encode(),
        b"d": entry.digest.encode(),
    }


def octets_of(text: str) -> bytes:
    """Text as it was stored, also where that was no UTF-8 and was read with `surrogateescape`."""
    return text.encode("utf-8", "surrogateescape")


def entry_of(record: Record, shard: int, shards: int, dead: Fields | None = None) -> Entry | Foreign:
    """The entry that a record was made of, with everything checked that a producer of ours guarantees.

    dead: the fields of a dead letter, kept apart from the journal; None when there are none.
    Raises Unlike when the record's content is not that of its digest.
    """
    if is_loss(record):
        return _lost(record, dead)
    reason = dead_reason(record.outcomes)
    if reason is not None:
        return _foreign(record.id, reason, dead, record.digest)
    fields = fields_of(record)
    try:
        entry = decode(RawEntry(record.id, fields), shard, shards)
    except EntryDamaged:
        raise Unlike(f"holds content of digest {digest_of(fields)}, but says {record.digest}") from None
    if isinstance(entry, Foreign):
        raise Unlike(f"holds no entry of ours: {entry.reason}")
    return entry


def _lost(record: Record, fields: Fields | None) -> Lost:
    found = digest_of(fields) if fields is not None else ""
    if found != record.digest:
        raise Unlike(
            f"gives up an entry of digest {record.digest or 'none'}, and {found or 'none'} is kept of it"
        )
    try:
        return lost_in(record, fields or {})
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as problem:
        raise Unlike(f"has outcomes that cannot be read: {record.outcomes[:60]!r} ({problem})") from None


def _foreign(entry_id: EntryId, reason: str, fields: Fields | None, digest: str) -> Foreign:
    if fields is None:
        raise Unlike("is a dead letter whose fields are not kept")
    if (found := digest_of(fields)) != digest:
        raise Unlike(f"is a dead letter whose fields have digest {found}, but says {digest}")
    return Foreign(entry_id, reason, fields, digest)


def dead_reason(outcomes: str) -> str | None:
    """Why a record's entry is none of ours; None when it is one. Raises Unlike when the outcomes cannot be read."""
    if "dead" not in outcomes:
        return None  # most records: not worth reading their lists of refused rows
    try:
        reason = orjson.loads(outcomes).get("dead")
    except (orjson.JSONDecodeError, AttributeError):
        raise Unlike(f"has outcomes that cannot be read: {outcomes[:60]!r}") from None
    return reason if isinstance(reason, str) else None
