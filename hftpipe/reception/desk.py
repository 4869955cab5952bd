"""Where all transports hand in their transactions; for one event loop."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from hftpipe.config import IngestLimits, ServeLimits
from hftpipe.core.transaction import Batch
from hftpipe.ports import Books, Topology
from hftpipe.producer import Producer
from hftpipe.reception.appender import Answer, Appender, Lane, Submission
from hftpipe.reception.budget import Budget
from hftpipe.reception.inquiries import Inquiries
from hftpipe.reception.metrics import Metrics
from hftpipe.reception.receipts import BacklogFull, LogAway, Receipts, Status
from hftpipe.reception.repeats import Repeats

_SWEEP_S: Final = 0.1


class Desk(Inquiries):
    """Takes batches, and answers when they are durable; and tells what became of them (`Inquiries`).

    producer: of a source of this process's own. repeats: with books of its own.
    failed: called when nothing can be taken any more, with the reason.
    """

    def __init__(
        self,
        topology: Topology,
        *,
        producer: Producer,
        repeats: Repeats,
        books: Books,
        metrics: Metrics,
        limits: ServeLimits,
        failed: Callable[[BaseException], None],
    ) -> None:
        super().__init__(books, producer.source, limits)
        self.topology = topology
        self.limits = limits
        self.budget = Budget(limits.pending_bytes_max)
        self._metrics = metrics
        self._failed = failed
        self._pending: dict[Submission, asyncio.Future[Receipts]] = {}
        self._queued = 0
        self._room = asyncio.Event()
        self._turn = asyncio.Lock()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._why_not = ""
        self._is_stopped = False
        self._appender = Appender(
            producer,
            repeats,
            generation=topology.generation,
            limits=limits,
            entry_transactions=IngestLimits().entry_transactions_max,
            deliver=self._deliver,
            appended=metrics.appended,
            ended=self._appender_ended,
        )
        self._appender.start()
        self._sweep = self._loop.create_task(self._give_up_in_time())

    async def submit(
        self, batch: Batch, *, transport: str, patient: bool, lane: Lane | None = None
    ) -> Receipts:
        """Returns when every row is durable, or known to be there already; one receipt a row.

        batch: not empty; its rows are the caller's own numbers, and mean nothing here.
        patient: waits while a shard's backlog is full. lane: keeps the order of submissions that are in it at once;
        they are answered in order, too.
        Raises BacklogFull (nothing was taken), and LogAway: at once when the log is known to be away, and `in_doubt`
        when it went away meanwhile. A caller that is cancelled does not know what became of the rows.
        """
        lane = lane or Lane()
        try:
            return await self._submit(batch, transport, lane, patient=patient)
        except BaseException:
            lane.is_broken = True
            raise

    async def _submit(self, batch: Batch, transport: str, lane: Lane, *, patient: bool) -> Receipts:
        if not patient and self._turn.locked():
            raise _too_many()
        async with self._turn:  # first come, first served: a lane's order begins here
            await self._wait_for_room(len(batch), patient=patient)
        submission = Submission.of(batch, self.topology.shards, lane, patient=patient)
        future: asyncio.Future[Receipts] = self._loop.create_future()
        self._pending[submission] = future
        self._queued += len(batch)
        self._appender.put(submission)
        try:
            receipts = await future
        except asyncio.CancelledError:
            submission.is_void = True  # nobody waits for it: what its client sends again must not pass it
            raise
        self._count(transport, receipts)
        return receipts

    def problem(self) -> str:
        """Why nothing is taken for now; empty when all is well."""
        if self._why_not:
            return self._why_not
        if self._appender.under_way_ms() > self.limits.stall_ms:
            return "the log does not take entries for now; what was taken is kept, and appended when it does"
        return ""

    def hasten(self) -> None:
        """Refuses those who wait for a full shard, so that the transports can end."""
        self._appender.hasten()

    async def stop(self, wait_ms: int) -> None:
        """Takes nothing any more, and returns when all that was taken is answered; gives up after so long."""
        if self._is_stopped:
            return
        self._is_stopped = True
        self._why_not = self._why_not or "the service is stopping"
        self._appender.close()
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._ended), wait_ms / 1000)
        self._give_up(self._why_not)
        self._sweep.cancel()
        self.close()

    # --- one submission ----------------------------------------------------------------------------------------

    async def _wait_for_room(self, rows: int, *, patient: bool) -> None:
        while True:
            if problem := self.problem():
                raise LogAway(problem)
            queued = self._queued - self._appender.held_rows
            if queued <= 0 or queued + rows <= self.limits.queue_transactions_max:
                return
            if not patient:
                raise _too_many()
            self._room.clear()
            await self._room.wait()

    def _count(self, transport: str, receipts: Receipts) -> None:
        if receipts.all_durable:
            self._metrics.count(transport, "durable", len(receipts))
            return
        for status, rows in Counter(receipts.statuses.tolist()).items():
            self._metrics.count(transport, Status(status).name.lower(), rows)

    def _resolve(self, answered: Sequence[tuple[Submission, Answer]]) -> None:
        for submission, answer in answered:
            future = self._pending.pop(submission, None)
            if future is None:
                continue  # given up before
            self._queued -= len(submission.batch)
            if future.done():
                continue
            if isinstance(answer, Receipts):
                future.set_result(answer)
            else:
                future.set_exception(answer)
        self._room.set()

    # --- giving up ---------------------------------------------------------------------------------------------

    async def _give_up_in_time(self) -> None:
        """Answers those who have waited long for a log that is away."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            self._room.set()  # rows may be held meanwhile, which do not count
            if self._appender.under_way_ms() > self.limits.reply_ms:
                self._give_up("the log did not answer in time")

    def _give_up(self, why: str) -> None:
        pending, self._pending = self._pending, {}
        for submission in pending:  # all of them first: none may be appended behind one that is not
            submission.is_void = True
        for submission, future in pending.items():
            self._queued -= len(submission.batch)
            if not future.done():
                future.set_exception(LogAway(f"{why}; send again, with the same ids", in_doubt=True))
        self._room.set()

    def _note_end(self, error: BaseException | None) -> None:
        self._why_not = "the service is stopping" if error is None else str(error)
        self._give_up(self._why_not)
        if not self._ended.done():
            self._ended.set_result(None)
        if error is not None:
            self._failed(error)

    # --- called in the appender's thread -----------------------------------------------------------------------

    def _deliver(self, answered: Sequence[tuple[Submission, Answer]]) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._resolve, answered)

    def _appender_ended(self, error: BaseException | None) -> None:
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._note_end, error)


def _too_many() -> BacklogFull:
    return BacklogFull("more transactions wait to be appended than may; send again soon")
