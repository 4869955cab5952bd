"""One thread that appends: what arrived while the last append was under way is the next group.

So a lone transaction leaves at once, and under load groups fill by themselves; nothing is ever held back to be
batched. All of the process goes into the log as one source, whose positions count what it has appended.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hftpipe.config import IngestLimits, ServeLimits
from hftpipe.core.transaction import Batch, Column
from hftpipe.errors import Interrupted, PassingFault, ShardStopped
from hftpipe.producer import Placed, Producer
from hftpipe.reception.receipts import BacklogFull, LogAway, Receipts, Status
from hftpipe.reception.repeats import NEW, Repeats, Sorted

Answer: TypeAlias = Receipts | BacklogFull | LogAway

_DURABLE: Final = int(Status.DURABLE)

_FULL_POLL_S: Final = IngestLimits().backlog_poll_ms / 1000
_CHECK_S: Final = 1.0
"""An idle appender looks so often at whether the log is still there."""


@dataclass(slots=True, eq=False)
class Lane:
    """Submissions that keep their order: when one of them is not appended, none behind it is.

    is_broken: one was not.
    """

    is_broken: bool = False


@dataclass(slots=True, eq=False)
class Submission:
    """Rows that somebody waits for, until `is_void` is set.

    patient: waits while a shard's backlog is full; else is refused then.
    """

    batch: Batch
    patient: bool
    lane: Lane
    rows_by_shard: Column
    is_void: bool = False

    @classmethod
    def of(cls, batch: Batch, shards: int, lane: Lane, *, patient: bool) -> "Submission":
        """A submission of some rows to so many shards."""
        if len(batch) == 1:
            return cls(batch, patient, lane, _one_row(shards)[int(batch.accounts[0]) % shards])
        return cls(batch, patient, lane, np.bincount(batch.accounts % shards, minlength=shards))


@lru_cache(1)
def _one_row(shards: int) -> NDArray[np.int64]:
    """For each shard, what a lone row of it counts."""
    return np.eye(shards, dtype=np.int64)


@dataclass(slots=True)
class _Queue:
    """What the event loop hands over."""

    changed: threading.Condition = field(default_factory=threading.Condition)
    submissions: deque[Submission] = field(default_factory=deque)
    is_closed: bool = False


class Appender:
    """Appends submissions in the order in which they were put, except that one may wait for its shard alone.

    deliver: takes answered submissions; called in this thread.
    ended: called last in this thread, with what ended it: None when it was told to stop.
    """

    def __init__(
        self,
        producer: Producer,
        repeats: Repeats,
        *,
        generation: int,
        limits: ServeLimits,
        entry_transactions: int,
        deliver: Callable[[Sequence[tuple[Submission, Answer]]], None],
        appended: Callable[[float, int], None],
        ended: Callable[[BaseException | None], None],
    ) -> None:
        self._producer = producer
        self._repeats = repeats
        self._generation = generation
        self._limits = limits
        self._entry_transactions = entry_transactions
        self._deliver = deliver
        self._appended = appended
        self._ended = ended
        self._queue = _Queue()
        self._waiting: deque[Submission] = deque()
        self._full_until: dict[int, float] = {}
        self._since = 0.0
        self._position = 0
        self._losses = producer.losses
        self._last_of = dict(repeats.last_of)
        self._is_hasty = False
        self.held_rows = 0
        """Rows that wait for a shard whose backlog is full."""
        self._thread = threading.Thread(target=self._work, name="appender", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def put(self, submission: Submission) -> None:
        """From any thread: appended as soon as what is under way, and what was put before, is durable."""
        with self._queue.changed:
            self._queue.submissions.append(submission)
            self._queue.changed.notify()

    def close(self) -> None:
        """From any thread: what was put is still appended, then the thread ends. Does not wait for it."""
        with self._queue.changed:
            self._queue.is_closed = True
            self._queue.changed.notify()

    def hasten(self) -> None:
        """From any thread: who waits for a full shard is refused from now on."""
        with self._queue.changed:
            self._is_hasty = True
            self._queue.changed.notify()

    def under_way_ms(self) -> int:
        """From any thread: how long the log has been waited for; 0 when it is not."""
        since = self._since
        return round((time.monotonic() - since) * 1000) if since else 0

    # --- in the thread -----------------------------------------------------------------------------------------

    def _work(self) -> None:
        error: BaseException | None = None
        try:
            while self._take():
                group = self._next_group()
                if group:
                    self._append(group)
        except Interrupted:
            pass  # told not to wait for the log any more, and those who did have been answered
        except BaseException as end:  # handed over whole: the service ends with it
            error = end
        finally:
            with suppress(PassingFault, ShardStopped):
                self._repeats.close()
            self._ended(error)

    def _take(self) -> bool:
        """Waits for something to do; False when there is nothing left and never will be."""
        queue = self._queue
        while True:
            with queue.changed:
                if not queue.submissions and not queue.is_closed:
                    queue.changed.wait(_FULL_POLL_S if self._waiting else _CHECK_S)
                self._waiting.extend(queue.submissions)
                queue.submissions.clear()
                if self._waiting or queue.is_closed:
                    return bool(self._waiting)
            self._since = time.monotonic()
            self._producer.check()
            self._since = 0.0
            self._has_lost()

    def _next_group(self) -> list[Submission]:
        """The submissions to append now: as many as a group may have, all with ids or all without."""
        group: list[Submission] = []
        left: deque[Submission] = deque()
        held: set[Lane] = set()
        refused: list[tuple[Submission, Answer]] = []
        rows = np.zeros(1, dtype=np.int64)
        held_rows, now = 0, time.monotonic()
        while self._waiting:
            submission = self._waiting.popleft()
            if submission.is_void or submission.lane.is_broken:
                submission.lane.is_broken = True
                refused.append((submission, _broken()))
                continue
            full = None if submission.lane in held else self._full_shard(submission.rows_by_shard, now)
            if submission.lane not in held and full is None:
                joined = rows + submission.rows_by_shard
                if group and not self._joins(group[0], submission, joined):
                    left.append(submission)
                    break
                group.append(submission)
                rows = joined
            elif full is None or (submission.patient and not self._is_hasty and not self._queue.is_closed):
                left.append(submission)
                held.add(submission.lane)
                held_rows += len(submission.batch)
            else:
                submission.lane.is_broken = True
                refused.append((submission, _backlog_full(full)))
        self._waiting.extendleft(reversed(left))
        self.held_rows = held_rows
        if refused:
            self._deliver(refused)
        return group

    def _joins(self, first: Submission, submission: Submission, joined: Column) -> bool:
        """Whether a submission can be in a group of so many rows a shard, its own among them."""
        has_ids = (first.batch.txs is None, submission.batch.txs is None)
        if has_ids[0] != has_ids[1] or joined.sum() > self._limits.group_transactions_max:
            return False
        return all(self._has_room(shard, joined) for shard in np.flatnonzero(joined).tolist())

    def _full_shard(self, rows_by_shard: Column, now: float) -> int | None:
        """A shard whose backlog has no room for these rows alone; it is not asked again at once."""
        for shard in np.flatnonzero(rows_by_shard).tolist():
            if self._full_until.get(shard, 0.0) > now:
                return int(shard)
            if not self._has_room(shard, rows_by_shard):
                self._full_until[shard] = now + _FULL_POLL_S
                return int(shard)
        return None

    def _has_room(self, shard: int, rows_by_shard: Column) -> bool:
        entries = -(-int(rows_by_shard[shard]) // self._entry_transactions)
        self._since = time.monotonic()
        room = self._producer.room(shard, entries)
        self._since = 0.0
        self._has_lost()
        return room >= entries

    def _append(self, group: list[Submission]) -> None:
        whole = _joined([submission.batch for submission in group])
        sorted_ = self._repeats.sort(whole)
        new = np.flatnonzero(sorted_.statuses == _DURABLE) if len(sorted_.within) else None
        batch = self._numbered(whole if new is None else whole.pick(new))
        self._since = began = time.monotonic()
        try:
            placed = self._producer.append(batch) if len(batch) else []
        except Interrupted:
            self._deliver([(submission, _given_up()) for submission in group])
            raise
        finally:
            self._since = 0.0
        self._appended(time.monotonic() - began, len(batch))
        if self._has_lost():
            # Entries of this very group may be among the lost, and what its repeats refer to.
            for submission in group:
                submission.lane.is_broken = True
            self._deliver([(submission, _lost()) for submission in group])
            return
        appended = self._addresses(batch, placed)
        if self._has_met_others(placed):
            appended = self._repeats.corrected(batch, appended)
        receipts = appended if new is None else _filled(appended, new, sorted_)
        self._deliver(list(zip(group, _cut(receipts, group), strict=True)))
        self._repeats.remember(batch, appended)

    def _numbered(self, batch: Batch) -> Batch:
        """The rows with their positions in our source."""
        first, self._position = self._position + 1, self._position + len(batch)
        rows = np.arange(first, first + len(batch))
        return Batch(batch.kinds, batch.accounts, batch.txs, batch.amounts, rows)

    def _has_met_others(self, placed: Sequence[Placed]) -> bool:
        """Ids of entries are dense: one that does not follow the last shows that somebody else appends too."""
        has_met = False
        for entry in placed:
            has_met |= entry.id.sequence != self._last_of.get(entry.shard, -1) + 1
            self._last_of[entry.shard] = entry.id.sequence
        if has_met:
            self._repeats.meet_others()
        return has_met

    def _has_lost(self) -> bool:
        """Whether the log was found to have lost entries; then what they held is not known any more."""
        if self._producer.losses == self._losses:
            return False
        self._losses = self._producer.losses
        self._repeats.forget()
        return True

    def _addresses(self, batch: Batch, placed: Sequence[Placed]) -> Receipts:
        """Where the rows that were appended stand."""
        statuses = np.zeros(len(batch), dtype=np.uint8)
        shards = np.zeros(len(batch), dtype=np.int64)
        sequences = np.zeros(len(batch), dtype=np.int64)
        for entry in placed:
            indexes = entry.rows - batch.rows[0]
            shards[indexes] = entry.shard
            sequences[indexes] = entry.id.sequence
        return Receipts(self._generation, statuses, shards, sequences, batch.rows)


def _filled(appended: Receipts, new: NDArray[np.intp], sorted_: Sorted) -> Receipts:
    """The receipts of a whole group: of the new rows what they got, of the others where the first one stands."""
    first, statuses = sorted_.first, sorted_.statuses
    statuses[new] = appended.statuses
    columns = (first.shards, first.sequences, first.positions)
    repeating = np.flatnonzero(sorted_.within != NEW)
    for column, values in zip(
        columns, (appended.shards, appended.sequences, appended.positions), strict=True
    ):
        column[new] = values
        column[repeating] = column[sorted_.within[repeating]]
    return Receipts(appended.generation, statuses, *columns)


def _broken() -> LogAway:
    return LogAway("what was sent before it was not appended; send both again, with the same ids")


def _given_up() -> LogAway:
    return LogAway("the service stopped while the log was away; send again, with the same ids", in_doubt=True)


def _lost() -> LogAway:
    return LogAway(
        "the log lost entries that it had confirmed, perhaps these; send again, with the same ids",
        in_doubt=True,
    )


def _backlog_full(shard: int) -> BacklogFull:
    return BacklogFull(
        f"shard {shard} has as many entries waiting as it may; its worker is behind, or does not run "
        "(see: hftpipe status)"
    )


def _joined(batches: Sequence[Batch]) -> Batch:
    """Rows one after the other; their numbers count nothing any more."""
    if len(batches) == 1:
        return batches[0]
    txs = [batch.txs for batch in batches if batch.txs is not None]
    return Batch(
        "".join(batch.kinds for batch in batches),
        np.concatenate([batch.accounts for batch in batches]),
        np.concatenate(txs) if txs else None,
        np.concatenate([batch.amounts for batch in batches]),
        np.concatenate([batch.rows for batch in batches]),
    )


def _cut(receipts: Receipts, group: Sequence[Submission]) -> list[Receipts]:
    """Each submission's part."""
    if len(group) == 1:
        return [receipts]
    parts: list[Receipts] = []
    start = 0
    for submission in group:
        part = slice(start, start + len(submission.batch))
        start = part.stop
        parts.append(
            Receipts(
                receipts.generation,
                receipts.statuses[part],
                receipts.shards[part],
                receipts.sequences[part],
                receipts.positions[part],
            )
        )
    return parts
