"""What a store takes whole or not at all: how far a shard was, how far it is, and all that changed between."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from hftpipe.core.entry import EntryId, Foreign
from hftpipe.core.journal import Record
from hftpipe.core.ledger import Deposit
from hftpipe.core.taken import Taken
from hftpipe.core.transaction import Column

ACCEPTED_LOSS: Final = "accepted_loss"
REBUILT: Final = "rebuilt"
"""Decisions about a shard; those about a dead letter are in `store.dead_letters`."""


@dataclass(frozen=True, slots=True)
class Totals:
    """Counts since the shard began: rows applied, refused and skipped; entries left alone for a gap, or dead."""

    applied: int = 0
    refused: int = 0
    skipped: int = 0
    gaps: int = 0
    dead: int = 0


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far a shard has been applied: the truth, whatever the log's group says.

    id, digest: of the last entry applied; `core.entry.origin` and "" before the first.
    number, hash: of the last journal record; 0 and `core.journal.GENESIS` before the first.
    highest_tx: no id taken in this shard is above it; -1 when none is taken.
    incarnation: how often the checkpoint had to go back because the log had lost its tail.
    """

    id: EntryId
    digest: str
    number: int
    hash: str
    highest_tx: int
    incarnation: int
    totals: Totals


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person has decided about a shard; it follows from nothing else, and is never removed.

    time_ms: Unix time. action: `dropped` and `retried` of a dead letter, `accepted_loss`, `rebuilt`.
    entry: the address that it is about; empty for none. record: number of that journal record; 0 for none.
    who: user and host. note: what came of it, in words.
    """

    time_ms: int
    action: str
    entry: str
    record: int
    who: str
    note: str


@dataclass(frozen=True, slots=True, eq=False)
class Commit:
    """All that some entries changed.

    taken: transaction ids taken and accounts named, record by record; without those that decided nothing.
    mentions: ids named without being taken; see `mentions.index_mentions`.
    balances: every account that was named, ascending; see `ledger.Changes`.
    positions: last position applied, of each source that moved.
    decisions: of the operator who made it.
    """

    before: Checkpoint
    after: Checkpoint
    records: Sequence[Record]
    taken: Sequence[Taken]
    mentions: Column
    balances: Column
    disputes: Mapping[int, Deposit]
    positions: Mapping[str, int]
    dead: Sequence[Foreign]
    decisions: Sequence[Decision] = ()
