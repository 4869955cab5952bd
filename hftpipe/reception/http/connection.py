"""One connection: bytes in, answers out in the order of the requests, and a deadline for each of its states."""

import asyncio
import math
from typing import Final, Protocol, cast

from hftpipe.config import ServeLimits
from hftpipe.reception.budget import Budget
from hftpipe.reception.http.application import Application
from hftpipe.reception.http.messages import Refused, Response
from hftpipe.reception.http.reading import Reader, Turn
from hftpipe.reception.http.request import Request
from hftpipe.reception.metrics import Metrics

TRANSPORT: Final = "http"

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_SLICE_BYTES: Final = 16 << 10
"""Bytes that are parsed at a time."""
_LINGER_S: Final = 1.0
"""How long bytes behind the last answer are read and dropped."""

_OTHER: Final = "other"
_METHODS: Final = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"})
"""Named in the metrics; the others are counted as one."""


class House(Protocol):
    """What all connections of a server share.

    date: of now, as a header has it. is_stopping: whether a connection ends with the request that it has in hand.
    """

    application: Application
    budget: Budget
    metrics: Metrics
    limits: ServeLimits
    date: bytes
    is_stopping: bool

    def enter(self, connection: "Connection") -> bool:
        """A connection began; False when there are too many."""

    def leave(self, connection: "Connection") -> None:
        """It ended."""


class Connection(asyncio.Protocol):
    """States: reading, serving one request, draining an answer, lingering before the end.

    deadline_s: time of the loop at which `expire` is to be called; whoever sweeps the connections does so.
    """

    def __init__(self, house: House) -> None:
        self._house = house
        self._limits = house.limits
        self._loop = asyncio.get_running_loop()
        self._reader = Reader(house.application.admit, house.budget, house.limits, self._loop.time)
        self._transport: asyncio.Transport | None = None
        self.deadline_s = math.inf
        self._serving: asyncio.Task[None] | None = None
        self._in_hand: Request | None = None
        self._unread = b""
        self._drained_bytes = 0
        self._is_draining = False
        self._is_lingering = False

    @property
    def _is_free(self) -> bool:
        """Nothing is served or on its way out."""
        return self._serving is None and not self._is_draining and self._transport is not None

    # --- the transport's calls ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = stream = cast(asyncio.Transport, transport)
        stream.set_write_buffer_limits(high=self._limits.write_buffer_bytes_max)
        self._rest()
        if not self._house.enter(self):
            self._reader.refuse(_TOO_MANY)
            self._advance()
            stream.close()

    def data_received(self, data: bytes) -> None:
        if self._is_lingering or self._reader.has_ended:
            return  # behind the last request: read so that its answer is not lost, and dropped
        if self._is_free:
            self._read(data)
        elif self._reader.hold(len(data)):
            self._unread += data
            self._pause_reading()
        self._advance()

    def eof_received(self) -> bool:
        # Whoever half-closes still gets his answers; a request cut short gets none.
        if self._reader.is_reading:
            self._house.metrics.dropped(TRANSPORT, "incomplete")
        self._reader.end()
        is_done = self._is_free and not self._reader.turns
        return not is_done and not self._is_tls

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the name is asyncio's
        self._transport = None
        self.deadline_s = math.inf
        if self._serving is not None:
            self._serving.cancel()
        if self._in_hand is not None:
            self._house.budget.give(self._in_hand.charged)
            self._in_hand = None
        self._house.budget.give(self._drained_bytes)
        self._drained_bytes = 0
        self._reader.drop()
        self._house.leave(self)

    def pause_writing(self) -> None:
        self._is_draining = True
        self.deadline_s = self._loop.time() + self._limits.message_ms / 1000

    def resume_writing(self) -> None:
        self._is_draining = False
        self._house.budget.give(self._drained_bytes)
        self._drained_bytes = 0
        self._rest()
        self._advance()

    # --- the server's calls ------------------------------------------------------------------------------------

    def expire(self) -> None:
        """Its deadline has passed."""
        if self._transport is None:
            return
        if self._is_draining or self._is_lingering:
            self._transport.abort()
        elif self._reader.is_reading:
            self._house.metrics.dropped(TRANSPORT, "timeout")
            seconds = self._limits.message_ms / 1000
            self._reader.refuse(Refused(408, "timeout", f"the request was not complete after {seconds:g} s"))
            self._advance()
        else:
            self._transport.close()

    def stop(self) -> None:
        """Ends with the request in hand, if there is one; what was not read completely is refused."""
        if self._transport is None:
            return
        if self._reader.is_reading:
            self._reader.refuse(_STOPPING)
            self._advance()
        elif self._is_free and not self._reader.turns:
            self._transport.close()

    def abort(self) -> None:
        """Ends now."""
        if self._transport is not None:
            self._transport.abort()

    # --- reading -----------------------------------------------------------------------------------------------

    def _read(self, octets: bytes) -> None:
        reader = self._reader
        begun = reader.begun
        for start in range(0, len(octets), _SLICE_BYTES):
            if reader.turns:
                # Requests sent ahead stay bytes until it is their turn: as objects they would take far more room.
                rest = octets[start:]
                if reader.hold(len(rest)):
                    self._unread = rest
                    self._pause_reading()
                break
            reader.receive(octets[start : start + _SLICE_BYTES])
        if reader.is_reading and reader.begun != begun:
            self.deadline_s = self._loop.time() + self._limits.message_ms / 1000
        if reader.awaits_continue and not reader.turns and self._transport is not None:
            reader.awaits_continue = False
            self._transport.write(_CONTINUE)

    def _advance(self) -> None:
        """Goes on with the next turn, or with what was received meanwhile."""
        while self._is_free:
            if self._reader.turns:
                self._begin(self._reader.turns.popleft())
            elif self._unread:
                unread, self._unread = self._unread, b""
                self._reader.release()
                self._resume_reading()
                self._read(unread)
            elif self._reader.has_ended and not self._is_lingering:
                self._linger()
            else:
                if not self._reader.is_reading:
                    self._reader.release()
                return

    # --- answering ---------------------------------------------------------------------------------------------

    def _begin(self, turn: Turn) -> None:
        if turn.refusal is not None:
            self._answer(turn, turn.refusal.response())
        elif turn.request is not None:
            self.deadline_s = math.inf
            self._in_hand = turn.request
            self._serving = self._loop.create_task(self._serve(turn, turn.request))

    async def _serve(self, turn: Turn, request: Request) -> None:
        # When the client is gone this is cancelled; what was submitted is not taken back.
        response = await self._house.application.respond(request)
        self._serving = self._in_hand = None
        self._answer(turn, response)
        self._advance()

    def _answer(self, turn: Turn, response: Response) -> None:
        self._count(turn, response.status)
        if self._transport is None:
            return  # what the request held was given back when the connection was lost
        charged = 0 if turn.request is None else turn.request.charged
        is_last = not self._reader.turns and not self._unread
        closes = turn.closes or (is_last and (self._reader.has_ended or self._house.is_stopping))
        without_body = turn.method == b"HEAD"
        self._transport.write(response.encode(self._house.date, close=closes, without_body=without_body))
        if self._is_draining:
            self._drained_bytes += charged  # as long as its answer takes room
        else:
            self._house.budget.give(charged)
        if closes:
            self._linger()
        else:
            self._rest()

    def _rest(self) -> None:
        """Between two messages, or within one that began while another was served."""
        if self._is_lingering or self._is_draining:
            return
        wait_ms = self._limits.message_ms if self._reader.is_reading else self._limits.idle_ms
        self.deadline_s = self._loop.time() + wait_ms / 1000

    def _linger(self) -> None:
        """Says that no more comes, and reads on for a while: to close with bytes unread would drop the answer."""
        if self._transport is None:
            return
        self._reader.drop()
        self._is_lingering = True
        if not self._is_draining:
            self.deadline_s = self._loop.time() + _LINGER_S
        self._unread = b""
        self._resume_reading()
        if self._is_tls:
            self._transport.close()
        else:
            self._transport.write_eof()

    def _count(self, turn: Turn, status: int) -> None:
        route = _OTHER if turn.request is None else turn.request.route.path
        method = turn.method.decode() if turn.method in _METHODS else _OTHER
        self._house.metrics.request(method, route, status, self._loop.time() - turn.began_s)

    # --- the transport -----------------------------------------------------------------------------------------

    @property
    def _is_tls(self) -> bool:
        return self._transport is not None and not self._transport.can_write_eof()

    def _pause_reading(self) -> None:
        if self._transport is not None and self._transport.is_reading():
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if (
            self._transport is not None
            and not self._transport.is_closing()
            and not self._transport.is_reading()
        ):
            self._transport.resume_reading()


_TOO_MANY: Final = Refused(503, "too_many_connections", "no more connections are taken; try again later")
_STOPPING: Final = Refused(503, "stopping", "the service is stopping; nothing of this was taken")
