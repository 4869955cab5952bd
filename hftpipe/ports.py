"""The two seams: `Log` (Redis Streams now, Kafka later) and `Store` (SQLite now, PostgreSQL later).

Ingest and worker know only these protocols. Every adapter, the memory ones too, passes the contract suites in
`tests/contract/`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from hftpipe.core.commit import Checkpoint, Commit
from hftpipe.core.entry import EntryId, Foreign, RawEntry
from hftpipe.core.ledger import Account, Facts, Needs
from hftpipe.core.transaction import Column, Kind
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


class LogView(Protocol):
    """What there is in one shard's log. Methods raise LogUnavailable."""

    def extent(self) -> Extent:
        """What the log holds. Raises LogForeign when its key holds something else than a stream."""

    def range(self, first: EntryId, last: EntryId, count: int) -> list[RawEntry]:
        """Up to `count` entries from `first` to `last`, both included, in order."""


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

    def losses(self) -> dict[int, int]:
        """A number that changes when a loss is accepted, per shard where one was: a source may have lost what it was
        confirmed. Raises LogUnavailable.
        """


class LogReader(LogView, Protocol):
    """The worker's side of one shard's log, as one consumer of its group. All methods raise LogUnavailable."""

    def topology(self) -> Topology | None:
        """What the log belongs to; None when it belongs to nothing."""

    def attach(self, checkpoint: EntryId) -> EntryId:
        """Makes this consumer the group's only one: all that is pending becomes its own, others are removed.

        Creates a missing group at the checkpoint. What is at or below the checkpoint counts as handed out, and as done.
        Returns the last id that the group has delivered: entries up to there must be read with `range`.
        """

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


class LogMender(LogView, Protocol):
    """An operator's side of one shard's log. All methods raise LogUnavailable."""

    def topology(self) -> Topology | None:
        """What the log belongs to; None when it belongs to nothing."""

    def found(self, topology: Topology) -> Topology:
        """Writes what the log belongs to where that is not written; what holds then, whoever wrote it."""

    def append_as(self, entry_id: EntryId, fields: Mapping[bytes, bytes]) -> bool:
        """Appends under that very id; False, with nothing appended, when it or one above it was given already."""

    def begin_behind(self, entry_id: EntryId) -> bool:
        """Makes a log that holds no entry, and has given no id above that one, go on behind it; False for any other."""

    def bury(self, foreign: Foreign) -> None:
        """As `LogReader.bury`."""

    def unbury(self, entry_id: EntryId) -> None:
        """Removes a dead letter; one that is not there is no fault."""

    def lowest_in_inbox(self) -> EntryId | None:
        """The lowest entry of the pipeline's inbox; None when it is empty."""

    def announce_loss(self, number: int) -> None:
        """Lets producers see that a loss is accepted, by a number that was never announced: see `LogWriter.losses`."""

    def producers(self) -> list[str]:
        """The connections of producers."""

    def disconnect(self, connections: Sequence[str]) -> None:
        """Breaks connections, so that the producers look what the log still holds."""


# --- store ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ownership:
    """Who owns a shard: `owner` is empty when nobody does; `beat` moves while the owner is alive.

    stopped: why the last owner could not go on; empty otherwise.
    """

    epoch: int
    owner: str
    beat: int
    stopped: str = field(default="", compare=False)


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


# --- books ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Movement:
    """One transaction as a shard's journal has it.

    row: its position in the source. time_ms: Unix time of its append. tx: None when its source has none.
    amount: ten-thousandths, 0 for dispute, resolve and chargeback. outcome: `applied`, or a refusal's name.
    """

    shard: int
    entry: EntryId
    source: str
    row: int
    time_ms: int
    kind: Kind
    account: int
    tx: int | None
    amount: int
    outcome: str


@dataclass(frozen=True, slots=True)
class Standing:
    """An account, and the last entry of its shard that was applied then."""

    account: Account
    shard: int
    entry: EntryId


class Books(Protocol):
    """What all shards have applied, read beside their owners; for one thread.

    Methods raise StoreUnavailable and StoreDamaged. A shard that has no store yet has applied nothing.
    """

    def applied(self, shard: int) -> EntryId | None:
        """The last entry applied; None when none is."""

    def highest(self, shard: int) -> int:
        """No id that the shard has taken is above it; -1 when none is taken."""

    def standing(self, account: int) -> Standing | None:
        """An account; None when no applied transaction has named it."""

    def taken(self, shard: int, txs: Column) -> dict[int, Movement]:
        """For those of some ids, ascending, that are taken: the transaction that took each."""

    def history(self, tx: int, count_max: int) -> list[Movement]:
        """Transactions that named an id, in the order applied: first the one that took it, if there is one.

        Where shards share an id, shard by shard. At most the first `count_max`.
        """

    def rows(self, shard: int, entry: EntryId, source: str, positions: Column) -> list[Movement | None]:
        """What became of rows of a source that stand, or stood first, in an applied entry; None for one not found."""

    def close(self) -> None:
        """Lets go of the stores."""


# --- inbox ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class InboxEntry:
    """An entry as its client wrote it. `fields`: names and values in turn, repeated names too.

    Ids of an inbox are Unix milliseconds and a number within them; they rise, and are not dense.
    """

    id: EntryId
    fields: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Rejection:
    """An entry that is not let through; `field` and `reason` as validation reports them.

    content: the entry for people, bounded and printable. keeps_id: whether its id may be that of its report.
    """

    id: EntryId
    field: str
    reason: str
    content: str
    keeps_id: bool = True


class Attached(NamedTuple):
    """How an inbox was found.

    removed: entries that were read before, and removed by somebody before they were done. is_anew: it was removed and
    begun anew, with lower ids than it had given before.
    """

    removed: int
    is_anew: bool


class Inbox(Protocol):
    """Entries of any client, as one of many validators reads them. Methods raise LogUnavailable, and LogForeign when
    a key of the inbox holds something else.

    An entry stays until it is done, and the lowest come first, whoever has read them before. So two validators at
    once repeat each other's work; neither ever sees an entry while a lower one is neither done nor in its hand.
    """

    def own(self) -> bool:
        """Takes the lease or renews it; False while another validator has it. It says who works, not what is safe.

        To renew it works also when the log is full.
        """

    def release(self) -> None:
        """Gives the lease up, if it is this validator's."""

    def attach(self, floor: EntryId) -> Attached:
        """Begins anew: what was read and is not done comes again.

        Entries that are added from now on get ids above `floor`, also where the inbox was removed and its server's
        clock was set back.
        """

    def read(self, count: int, wait_ms: int, done: Sequence[InboxEntry]) -> list[InboxEntry]:
        """Removes what was read last, if it is `done`; then the lowest entries, ascending, at most so many.

        Waits up to `wait_ms` for the first one; 0 does not wait.
        """

    def reject(self, rejections: Sequence[Rejection]) -> None:
        """Keeps reports of entries that are not done yet, ascending; the newest so many stay, all are counted.

        To report an entry again changes nothing. Where a former attempt failed half-way it may be there twice.
        """

    def is_empty(self) -> bool:
        """Whether every entry is done."""

    def announce(self, role: str) -> None:
        """Lets `status` see this validator: `owner` or `standby`."""
