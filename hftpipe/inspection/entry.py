"""All about one entry: decoded row by row, from the journal, or from the log while it is not applied."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

import orjson

from hftpipe.core.entry import Entry, EntryId, Foreign
from hftpipe.core.transaction import Kind
from hftpipe.inspection.home import Home
from hftpipe.ports import Movement
from hftpipe.store.inspecting import Head, ShardInspector

WAITING = "waiting"
"""In place of an outcome: the row is in the log, and not applied yet."""


class EntryState(StrEnum):
    """How an entry ended, or where it is."""

    APPLIED = "applied"
    WAITING = "waiting"
    GAP = "gap"
    DEAD = "dead"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class EntryStory:
    """An entry of a shard.

    number, hash: of its journal record, 0 and empty while it has none. others: further records of that id, from before
    the log lost its tail. previous, position: of its source. time_ms: of its append, Unix ms; 0 when unknown.
    skipped: leading rows that had been decided before. reason: why it is none of ours, or is lost.
    fields: of one that is none of ours, made legible.
    """

    shard: int
    entry: EntryId
    state: EntryState
    source: str = ""
    previous: int = 0
    position: int = 0
    time_ms: int = 0
    digest: str = ""
    movements: Sequence[Movement] = ()
    skipped: int = 0
    number: int = 0
    hash: str = ""
    others: Sequence[int] = ()
    reason: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)


def journaled(home: Home, shard: int, entry: EntryId) -> EntryStory | None:
    """What the journal says of an entry; None when it is in no record. Raises StoreUnavailable, StoreDamaged."""
    if shard not in home.paths:
        return None
    with home.inspecting(shard) as inspector:
        numbers = inspector.numbers_with(entry)
        if not numbers:
            return None
        return _journaled(inspector, shard, inspector.head(numbers[0]), numbers[1:])


def _journaled(inspector: ShardInspector, shard: int, head: Head, others: Sequence[int]) -> EntryStory:
    outcomes = orjson.loads(head.outcomes)
    story = EntryStory(
        shard,
        head.entry,
        EntryState.APPLIED,
        head.source,
        head.previous,
        head.position,
        head.time_ms,
        head.digest,
        number=head.number,
        hash=head.hash,
        others=others,
    )
    if "lost" in outcomes or "dead" in outcomes:
        reason, fields = inspector.dead(head.number) if "dead" in outcomes else ("", {})
        if "lost" in outcomes:
            return replace(
                story, state=EntryState.LOST, reason=reason or _lost(outcomes["lost"]), fields=fields
            )
        return replace(story, state=EntryState.DEAD, reason=reason, fields=fields)
    told = inspector.told(head.number)
    return replace(
        story,
        state=EntryState.GAP if "gap" in outcomes else EntryState.APPLIED,
        movements=[told.movement(place) for place in range(len(told))],
        skipped=outcomes.get("skipped", 0),
    )


def _lost(span: Sequence[str]) -> str:
    return f"given up by an operator: {' to '.join(span)}" if span else "given up by an operator"


def waiting(shard: int, found: Entry | Foreign) -> EntryStory:
    """What an entry says that is in the log, and not applied yet."""
    if isinstance(found, Foreign):
        fields = {_legible(name): _legible(value) for name, value in found.fields.items()}
        return EntryStory(
            shard, found.id, EntryState.WAITING, digest=found.digest, reason=found.reason, fields=fields
        )
    return EntryStory(
        shard,
        found.id,
        EntryState.WAITING,
        found.source,
        found.previous,
        found.position,
        found.time_ms,
        found.digest,
        [waiting_row(shard, found, place) for place in range(len(found.batch))],
    )


def waiting_row(shard: int, entry: Entry, place: int) -> Movement:
    """A row that is not applied yet."""
    batch = entry.batch
    return Movement(
        shard,
        entry.id,
        entry.source,
        int(batch.rows[place]),
        entry.time_ms,
        Kind(batch.kinds[place]),
        int(batch.accounts[place]),
        None if batch.txs is None else int(batch.txs[place]),
        int(batch.amounts[place]),
        WAITING,
    )


def _legible(octets: bytes) -> str:
    return octets.decode("utf-8", "backslashreplace")
