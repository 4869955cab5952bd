"""All that a shard's store holds, in plain values: to compare one with another, and with its own journal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hftpipe.core.commit import Checkpoint
from hftpipe.core.journal import Record


@dataclass(frozen=True, slots=True)
class Tables:
    """What follows from the journal alone, and is therefore the same for every worker and commit size.

    balances: account → available, held, locked, journal number that last named it.
    transactions: id → journal number that took it. disputes: id → account, amount, state.
    sources: source → last position applied. dead: entry id → reason.
    """

    records: Sequence[Record]
    balances: Mapping[int, tuple[int, int, bool, int]]
    transactions: Mapping[int, int]
    disputes: Mapping[int, tuple[int, int, str]]
    sources: Mapping[str, int]
    dead: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One moment of a shard's store."""

    pipeline: str
    shard: int
    shards: int
    epoch: int
    checkpoint: Checkpoint
    tables: Tables
