"""All that a shard's store holds, in plain values: to compare one with another, and with its own journal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hftpipe.core.commit import Checkpoint
from hftpipe.core.journal import Record
from hftpipe.core.taken import Packed, unpacked


@dataclass(frozen=True, slots=True)
class Tables:
    """What follows from the journal alone, and is therefore the same for every worker and commit size.

    balances: account → available, held, locked, journal number that last named it.
    id_ranges: highest → lowest id, and the journal number that took them. late_ids: id → journal number.
    taken_ids: journal number → what it took and whom it named, as `Taken.packed` gives it.
    mentions: id → journal numbers that named it without taking it, ascending.
    disputes: id → account, amount, state.
    sources: source → last position applied. dead: entry id → reason.
    """

    records: Sequence[Record]
    balances: Mapping[int, tuple[int, int, bool, int]]
    id_ranges: Mapping[int, tuple[int, int]]
    late_ids: Mapping[int, int]
    taken_ids: Mapping[int, Packed]
    mentions: Mapping[int, tuple[int, ...]]
    disputes: Mapping[int, tuple[int, int, str]]
    sources: Mapping[str, int]
    dead: Mapping[str, str]

    def transactions(self) -> dict[int, int]:
        """Every id that was taken → the journal number that took it."""
        return {
            tx: number
            for number, columns in self.taken_ids.items()
            for tx in unpacked(number, *columns).txs.tolist()
        }


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One moment of a shard's store."""

    pipeline: str
    shard: int
    shards: int
    epoch: int
    checkpoint: Checkpoint
    tables: Tables
