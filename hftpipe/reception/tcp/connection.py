"""One TCP connection: moves bytes between its socket, the protocol (`lines.py`) and the desk, and holds its bounds.

While there is something to do a task does it: takes blocks one after the other and hands them in, the next one while
the last one is appended; they share a lane, so that the order of the bytes is the order of the log. An idle connection
has none. Nobody has a timer: the server looks at all deadlines once in a while.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, cast

from hftpipe.config import ServeLimits
from hftpipe.core.transaction import Batch
from hftpipe.reception.access.tokens import Gate, Grant, Scope, Unauthorized
from hftpipe.reception.appender import Lane
from hftpipe.reception.desk import Desk
from hftpipe.reception.metrics import Metrics
from hftpipe.reception.receipts import Receipts, Unacknowledged
from hftpipe.reception.tcp.events import Block, BlockBounds, End, Event, Failure, Opening
from hftpipe.reception.tcp.lines import LineConnection
from hftpipe.reception.tcp.replies import Code
from hftpipe.validation import Rounding

TRANSPORT: Final = "tcp"

_BLOCKS_A_SECOND: Final = 4
"""Where a token has a rate, blocks are so small that some are answered each second."""

_TRICKLE_BYTES: Final = 64
"""Read of a connection when the budget is used up; then it is not read any more until it gets some."""


@dataclass(frozen=True, slots=True)
class Service:
    """What all connections share.

    opened, closed: called when a connection begins and when it has ended. stopping: done when the service is told
    to stop. scratch: bytes are read into it, and kept elsewhere at once.
    """

    desk: Desk
    gate: Gate
    metrics: Metrics
    limits: ServeLimits
    rounding: Rounding
    opened: Callable[["TcpConnection"], None]
    closed: Callable[["TcpConnection"], None]
    stopping: asyncio.Future[None]
    scratch: memoryview = field(default_factory=lambda: memoryview(bytearray(1 << 16)))


class TcpConnection(asyncio.BufferedProtocol):
    """Bytes that were read are taken from the budget, and given back when they are answered."""

    __slots__ = (
        "_clogged_since",
        "_drained",
        "_grant",
        "_in_hand",
        "_is_ended",
        "_is_half_closed",
        "_lane",
        "_line_since",
        "_lines",
        "_loop",
        "_over_since",
        "_owed",
        "_owing",
        "_paused_since",
        "_quiet_since",
        "_reserved",
        "_service",
        "_task",
        "_transport",
        "_unfinished",
    )

    _transport: asyncio.Transport

    def __init__(self, service: Service) -> None:
        self._service = service
        self._loop = asyncio.get_running_loop()
        limits = service.limits
        bounds = BlockBounds(
            limits.read_ahead_bytes_max, limits.block_lines_max, limits.wary_lines_max, limits.blocks_max
        )
        self._lines = LineConnection(rounding=service.rounding, bounds=bounds)
        self._grant: Grant | None = None
        self._task: asyncio.Task[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._is_ended = self._is_half_closed = False
        self._lane = Lane()
        self._in_hand: deque[tuple[Block, asyncio.Task[Receipts | None]]] = deque()
        self._reserved = self._owed = 0
        self._owing: asyncio.Task[None] | None = None
        self._unfinished: int | None = None
        self._quiet_since = self._line_since = self._loop.time()
        self._paused_since: float | None = None
        self._clogged_since: float | None = None
        self._over_since: float | None = None

    # --- called by the event loop ------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=self._service.limits.write_buffer_bytes_max)
        self._service.metrics.opened(TRANSPORT)
        self._service.opened(self)

    def get_buffer(self, _: int) -> memoryview:
        size = len(self._service.scratch)
        if self._over_since is None:
            size = max(min(size, self._service.limits.read_ahead_bytes_max - self._lines.held), 1)
            if self._service.desk.budget.is_used_up:
                size = min(size, _TRICKLE_BYTES)
        return self._service.scratch[:size]

    def buffer_updated(self, nbytes: int) -> None:
        if self._is_ended or self._over_since is not None:
            return
        self._lines.receive(self._service.scratch[:nbytes])
        self._quiet_since = self._loop.time()
        if self._lines.unfinished != self._unfinished:
            self._unfinished = self._lines.unfinished
            self._line_since = self._quiet_since
        if self._service.desk.budget.take(nbytes):
            self._reserved += nbytes
        else:
            self._owed += nbytes
            self._owing = self._owing or self._loop.create_task(self._take_owed())
        self._regulate()
        self._wake()

    def eof_received(self) -> bool:
        if self._over_since is not None:
            return False
        self._is_half_closed = True
        self._end(None)
        # With TLS there is no half-closed connection: it is shut down whatever is answered here.
        return self._transport.can_write_eof()

    def pause_writing(self) -> None:
        self._clogged_since = self._loop.time()
        self._regulate()

    def resume_writing(self) -> None:
        self._clogged_since = None
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self._regulate()

    def connection_lost(self, _: Exception | None) -> None:
        if self._over_since is None and (self._in_hand or self._lines.held):
            self._service.metrics.dropped(TRANSPORT, "connection_lost")
        self._over_since = self._loop.time()
        self._drop()
        if self._owing is not None:
            self._owing.cancel()
        self._service.desk.budget.give(self._reserved)
        self._reserved = 0
        self._service.metrics.closed(TRANSPORT)
        self._service.closed(self)

    @property
    def unread_bytes(self) -> int:
        """Replies that were written and not yet sent, because the client does not read them."""
        return self._transport.get_write_buffer_size()

    # --- called by the server ----------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """Ends the connection if a deadline has passed."""
        limits = self._service.limits
        if self._over_since is not None:
            grace_ms = limits.message_ms if self.unread_bytes else limits.linger_ms
            if now >= self._over_since + grace_ms / 1000:
                self._transport.abort()
        elif self._clogged_since is not None:
            if now >= self._clogged_since + limits.unread_ms / 1000:
                self._service.metrics.dropped(TRANSPORT, "unread_replies")
                self._transport.abort()
        elif self._is_late(now):
            self._end(Code.TIMEOUT)

    def stop(self) -> None:
        """Reads nothing any more; answers complete lines that were read, then closes."""
        self._end(Code.STOPPING)

    def give_up(self) -> None:
        """Closes without waiting for what is not answered yet."""
        self._drop()
        if self._over_since is None:
            self._finish(self._lines.fail(Code.STOPPING))
        self._transport.close()

    def abort(self) -> None:
        """Lets go of the socket at once."""
        self._transport.abort()

    # --- the task ----------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        if self._task is None and self._over_since is None:
            self._task = self._loop.create_task(self._work())

    async def _work(self) -> None:
        try:
            while self._over_since is None:
                await self._until_welcome()
                event = self._lines.next_event()
                if event is None:
                    break
                await self._deal_with(event)
        except BaseException:
            self._transport.abort()
            raise
        finally:
            self._task = None

    async def _until_welcome(self) -> None:
        """Waits until the client has read its replies, and its token's rate lets it go on."""
        while self._clogged_since is not None:
            self._drained = self._loop.create_future()
            await self._drained
        while self._grant is not None and (debt_ms := self._grant.debt_ms()):
            if self._service.stopping.done():
                self._finish(self._lines.fail(Code.STOPPING))
                return
            await asyncio.wait([self._service.stopping], timeout=debt_ms / 1000)

    async def _deal_with(self, event: Event) -> None:
        match event:
            case Opening(secret):
                self._open(secret)
            case Block():
                self._hand_in(event)
                await asyncio.sleep(0)  # who sends much is not to keep the others waiting
            case Failure(code, reply):
                self._service.metrics.dropped(TRANSPORT, code)
                self._finish(reply)
            case End():
                self._finish(b"")

    def _open(self, secret: bytes | None) -> None:
        try:
            grant = self._service.gate.admit(secret)
        except Unauthorized as refused:
            self._fail(Code.UNAUTHORIZED, str(refused))
            return
        if not grant.allows(Scope.SUBMIT):
            self._fail(
                Code.UNAUTHORIZED, "this token may not submit transactions: that takes the scope submit"
            )
            return
        self._grant = grant
        if grant.rate is not None:
            self._lines.keep_to(max(grant.rate // _BLOCKS_A_SECOND, 1))
        topology = self._service.desk.topology
        self._write(self._lines.admit(topology.pipeline, topology.shards))

    def _hand_in(self, block: Block) -> None:
        """Submits a block; while it is appended, the next one can be taken."""
        if self._grant is not None:
            self._grant.charge(block.validated.rows)
        submitting = self._loop.create_task(self._submit(block.validated.batch))
        self._in_hand.append((block, submitting))
        submitting.add_done_callback(self._answer)
        self._regulate()

    async def _submit(self, batch: Batch) -> Receipts | None:
        if self._grant is None or not self._service.gate.is_current(self._grant):
            raise Unauthorized
        if not len(batch):
            return None
        return await self._service.desk.submit(batch, transport=TRANSPORT, patient=True, lane=self._lane)

    def _answer(self, _: "asyncio.Task[Receipts | None]") -> None:
        """Answers blocks in their order, as far as they are done."""
        while self._in_hand and self._in_hand[0][1].done() and self._over_since is None:
            block, submitted = self._in_hand.popleft()
            self._quiet_since = self._loop.time()
            try:
                receipts = submitted.result()
            except Unacknowledged as unacknowledged:
                self._service.metrics.dropped(TRANSPORT, "busy")
                self._finish(self._lines.busy(block, unacknowledged))
            except Unauthorized:
                self._fail(Code.UNAUTHORIZED, "the token was withdrawn while the connection was open")
            except BaseException:
                self._transport.abort()
                raise
            else:
                for reason, rows in Counter(row.reason for row in block.validated.invalid).items():
                    self._service.metrics.invalid(TRANSPORT, reason, rows)
                self._write(self._lines.answer(block, receipts))
        self._settle()
        self._wake()

    # --- ends --------------------------------------------------------------------------------------------------

    def _end(self, code: Code | None) -> None:
        """Nothing more is read; what is complete is answered first."""
        if not self._is_ended:
            self._is_ended = True
            self._lines.receive_end(code)
            self._regulate()
            self._wake()

    def _fail(self, code: Code, message: str) -> None:
        self._service.metrics.dropped(TRANSPORT, code)
        self._finish(self._lines.fail(code, message))

    def _finish(self, reply: bytes) -> None:
        """Sends the last reply, and closes: at once if the client sends nothing more, else when it does so."""
        self._over_since = self._loop.time()
        self._write(reply)
        self._settle()
        if self._is_half_closed or self._transport.is_closing() or not self._transport.can_write_eof():
            self._transport.close()
            return
        try:
            self._transport.write_eof()
        except OSError:
            self._transport.abort()  # it was reset meanwhile

    def _write(self, reply: bytes) -> None:
        if reply and not self._transport.is_closing():
            self._transport.write(reply)

    def _drop(self) -> None:
        """Waits for nothing any more."""
        if self._task is not None:
            self._task.cancel()
        in_hand, self._in_hand = self._in_hand, deque()
        for _, submitting in in_hand:
            submitting.cancel()

    @property
    def _octets_in_hand(self) -> int:
        return sum(block.octets for block, _ in self._in_hand)

    @property
    def _is_idle(self) -> bool:
        """Nothing is done for it."""
        return self._task is None and not self._in_hand

    # --- bounds ------------------------------------------------------------------------------------------------

    def _is_late(self, now: float) -> bool:
        limits = self._service.limits
        if self._paused_since is not None:
            # It cannot send; only when nothing is done for it either, it is not to wait for ever.
            return self._is_idle and now >= self._paused_since + limits.idle_ms / 1000
        if self._unfinished is not None:
            return now >= self._line_since + limits.message_ms / 1000
        return self._is_idle and now >= self._quiet_since + limits.idle_ms / 1000

    def _regulate(self) -> None:
        """Reads on, or not."""
        is_full = self._lines.held >= self._service.limits.read_ahead_bytes_max
        is_held_up = self._is_ended or self._owed or self._clogged_since is not None or is_full
        if is_held_up and self._over_since is None:
            if self._paused_since is None:
                self._paused_since = self._loop.time()
                self._transport.pause_reading()
        elif self._paused_since is not None:
            self._paused_since = None
            self._line_since = self._loop.time()
            self._transport.resume_reading()

    async def _take_owed(self) -> None:
        """Takes from the budget what was read although it was used up; until then nothing is read."""
        while self._owed:
            count = self._owed
            await self._service.desk.budget.wait(count)
            self._owed -= count
            self._reserved += count
        self._owing = None
        self._settle()

    def _settle(self) -> None:
        """Gives back to the budget what is done with."""
        surplus = self._reserved - self._lines.held - self._octets_in_hand
        if surplus > 0:
            self._reserved -= surplus
            self._service.desk.budget.give(surplus)
        self._regulate()
