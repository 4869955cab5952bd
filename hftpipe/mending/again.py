"""A dead letter as the entry that is appended when it is retried; pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from hftpipe.core.entry import Entry, EntryId, Foreign, RawEntry, decode, encode
from hftpipe.core.routing import shard_of
from hftpipe.errors import EntryDamaged, MendingRefused
from hftpipe.store.dead_letters import RETRIED_SOURCES, DeadRow
from hftpipe.validation import Rounding
from hftpipe.validation.entries import EntryValidator, Positioned

Fields = Mapping[bytes, bytes]

_DIGITS = 16


@dataclass(frozen=True, slots=True)
class Again:
    """What is appended. shard: whose log it belongs to, which may be another than the letter's.

    letter, record: the address of the letter, and its journal record. entry: decoded. is_own: it has its own source,
    of which other entries may be there.
    """

    shard: int
    letter: tuple[int, EntryId]
    record: int
    entry: Entry
    fields: Fields
    is_own: bool

    def comes_before(self, source: str) -> bool:
        """Whether a source is a retried letter that stood before this one in the same log."""
        other = _letter_of(source)
        return other is not None and other[0] == self.letter[0] and other[1] < self.letter[1]


def source_of_letter(shard: int, row: DeadRow) -> str:
    """The source id under which a letter with plain fields is appended; no other letter, of any content, has it."""
    return f"{RETRIED_SOURCES}{shard}/{row.entry}:{row.digest[:_DIGITS]}"


def _letter_of(source: str) -> tuple[int, EntryId] | None:
    if not source.startswith(RETRIED_SOURCES):
        return None
    shard, _, rest = source.removeprefix(RETRIED_SOURCES).partition("/")
    try:
        return int(shard), EntryId.parse(rest.partition(":")[0])
    except ValueError:
        return None


def again_of(shard: int, row: DeadRow, fields: Fields, shards: int, rounding: Rounding, now_ms: int) -> Again:
    """The entry that a letter is, or that its plain fields make. Raises MendingRefused when they make none."""
    address = f"dead letter {shard}/{row.entry}"
    try:
        entry = decode(RawEntry(row.entry, fields), shard, shards)
    except EntryDamaged:
        raise MendingRefused(
            f"{address} cannot be retried: it does not match its digest, and money may be in it"
        ) from None
    if isinstance(entry, Entry):
        return Again(shard, (shard, row.entry), row.number, entry, fields, is_own=True)
    return _plain(address, shard, row, fields, shards, rounding, now_ms, entry)


def _plain(
    address: str,
    shard: int,
    row: DeadRow,
    fields: Fields,
    shards: int,
    rounding: Rounding,
    now_ms: int,
    foreign: Foreign,
) -> Again:
    validator = EntryValidator(rounding=rounding)
    if not fields or not validator.names_fields(list(fields)):
        raise MendingRefused(
            f"{address} cannot be retried: {foreign.reason}; nor has it the plain fields type, account, tx, amount"
        )
    plain = [part for pair in fields.items() for part in pair]
    validated = validator.validate([Positioned(1, plain)])
    if validated.invalid:
        (invalid,) = validated.invalid
        where = f"field {invalid.field}: " if invalid.field else ""
        raise MendingRefused(f"{address} cannot be retried: {where}{invalid.reason}: {invalid.content}")
    target = shard_of(int(validated.batch.accounts[0]), shards)
    encoded = encode(source_of_letter(shard, row), 0, validated.batch, now_ms)
    entry = decode(RawEntry(row.entry, encoded), target, shards)
    if not isinstance(entry, Entry):
        raise MendingRefused(f"{address} cannot be retried: {entry.reason}")
    return Again(target, (shard, row.entry), row.number, entry, encoded, is_own=False)
