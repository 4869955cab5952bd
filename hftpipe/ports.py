"""The two seams: `Log` (Redis Streams now, Kafka later) and `Store` (SQLite now, PostgreSQL later).

Ingest and worker know only these protocols. Every adapter, the memory ones too, passes the contract suites in
`tests/contract/`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from hftpipe.core.commit import Checkpoint, Commit
from hftpipe.core.entry import EntryId, Foreign, RawEntry
from hftpipe.core.ledger import Facts, Needs
from hftpipe.errors import PassingFault


class Clock(Protocol):
    """Time as it comes in from outside."""

    def monotonic_ms(self) -> int:
        """Milliseconds that never go back."""

    def unix_ms(self) -> int:
        """Milliseconds since 1970; information only, no decision reads it."""

    def sleep_ms(self, milliseconds: int) -> None:
        """Waits so long, or until the process is told to stop."""


# --- log ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Topology:
    """What all members of a pipeline must agree on; written once, checked by every process."""

    pipeline: str
    shards: int
    generation: int
    format: int


@dataclass(frozen=True, slots=True)
class Outgoing:
    """An entry on its way to a shard's log."""

    shard: int
    fields: Mapping[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Appended:
    """Ids of the leading entries that are durable, and the fault that stopped the others, if any.

    Entries behind the first failed one count as failed, whatever became of them: they are to be sent again.
    """

    ids: list[EntryId]
    fault: PassingFault | None = None


@dataclass(frozen=True, slots=True)
class Extent:
    """What a shard's log holds: `first` is the oldest entry still there, `last` the newest id ever given.

    `first` is None when it holds no entry, `last` None when nothing was ever appended.
    """

    first: EntryId | None
    last: EntryId | None


class LogWriter(Protocol):
    """The producer's side of the log. Nothing is ever sent twice by the adapter itself."""

    def topology(self) -> Topology | None:
        """What the log belongs to; None when it belongs to nothing yet. Raises LogUnavailable."""

    def append(self, entries: Sequence[Outgoing]) -> Appended:
        """Appends in order. Entries whose ids come back are durable; of the others nothing is known."""

    def fetch(self, shard: int, entry_id: EntryId) -> RawEntry | None:
        """One entry, or None when the log does not hold it. Raises LogUnavailable."""

    def extent(self, shard: int) -> Extent:
        """What the shard's log holds. Raises LogUnavailable."""

    def backlog(self, shard: int) -> int:
        """Entries appended but not yet acknowledged by the shard's worker. Raises LogUnavailable."""

    def note(self, source: str, advice: Mapping[int, bytes]) -> None:
        """Keeps a producer's advice to its successor, per shard. Raises LogUnavailable."""

    def advice(self, source: str) -> dict[int, bytes]:
        """What was noted last, per shard. Advice, not truth. Raises LogUnavailable."""


class LogReader(Protocol):
    """The worker's side of one shard's log, as one consumer of its group. All methods raise LogUnavailable."""

    def topology(self) -> Topology | None:
        """What the log belongs to; None when it belongs to nothing."""

    def extent(self) -> Extent:
        """What the log holds. Raises LogForeign when its key holds something else than a stream."""

    def attach(self, checkpoint: EntryId) -> EntryId:
        """Makes this consumer the group's only one: all that is pending becomes its own, others are removed.

        Creates a missing group at the checkpoint. Acknowledges what is pending at or below the checkpoint.
        Returns the last id that the group has delivered: entries up to there must be read with `range`.
        """

    def range(self, first: EntryId, last: EntryId, count: int) -> list[RawEntry]:
        """Up to `count` entries from `first` to `last`, both included, in order."""

    def read(
        self, count: int, wait_ms: int, done: Sequence[EntryId], keep_from: EntryId | None
    ) -> list[RawEntry]:
        """Acknowledges `done`, trims what is below `keep_from`, then takes up to `count` new entries.

        Waits up to `wait_ms` for the first one; 0 does not wait. Raises LogUnavailable also when the group is
        gone: to attach again is the answer to both.
        """

    def bury(self, foreign: Foreign) -> None:
        """Keeps a foreign entry under the shard's dead letters; burying it again changes nothing."""

    def announce(self, role: str) -> None:
        """Lets `status` see this worker: `owner` or `standby`."""


# --- store ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ownership:
    """Who owns a shard: `owner` is empty when nobody does; `beat` moves while the owner is alive."""

    epoch: int
    owner: str
    beat: int


class Store(Protocol):
    """The state of one shard. Methods raise StoreUnavailable (busy, full, I/O error) and StoreDamaged."""

    def identity(self) -> tuple[str, int, int]:
        """Pipeline id, shard and number of shards that the store was made for."""

    def ownership(self) -> Ownership:
        """Who owns the shard now."""

    def take(self, owner: str, seen: Ownership) -> int | None:
        """Takes the shard over if its ownership is still as `seen`; returns the new epoch, else None."""

    def beat(self, epoch: int) -> None:
        """Shows that the owner lives. Raises Fenced when it was replaced."""

    def release(self, epoch: int, stopped: str = "") -> None:
        """Gives the shard up; `stopped` says why it cannot go on, if so. Changes nothing after a takeover."""

    def checkpoint(self) -> Checkpoint:
        """How far the shard has been applied."""

    def facts(self, needs: Needs) -> Facts:
        """What the ledger must know before it decides."""

    def positions(self, sources: set[str]) -> dict[str, int]:
        """The last position applied of each source; absent when there is none."""

    def anchors(self, below: int, count: int) -> list[tuple[int, EntryId, str]]:
        """Up to `count` journal records before number `below`, newest first: number, entry id, digest."""

    def commit(self, epoch: int, commit: Commit) -> None:
        """Writes all of it in one transaction, durably.

        Raises Fenced, with nothing written, when the epoch is over or the checkpoint is not `commit.before`.
        After StoreUnavailable it is not known whether it was written: open the store anew and look.
        """

    def rewind(self, epoch: int, entry_id: EntryId, digest: str) -> None:
        """Sets the checkpoint back to an entry that log and journal share; incarnation + 1. Raises Fenced."""

    def close(self) -> None:
        """Lets go of the store."""
