"""The TCP server: lets connections in, looks at their deadlines, and stops them in order."""

import asyncio
import socket
import ssl
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from hftpipe.config import ServeLimits
from hftpipe.reception.access.tokens import Gate
from hftpipe.reception.desk import Desk
from hftpipe.reception.metrics import Metrics
from hftpipe.reception.sockets import bound, listeners
from hftpipe.reception.tcp.connection import TRANSPORT, Service, TcpConnection
from hftpipe.reception.tcp.replies import Code, error_reply
from hftpipe.validation import Rounding

_SWEEP_MS_MAX: Final = 1_000
_SWEEP_MS_MIN: Final = 10
_SWEEPS: Final = 4
"""The shortest deadline is looked at so often while it runs."""

_TLS_SHUTDOWN_S: Final = 2.0
_ABORT_S: Final = 1.0

_TOO_MANY: Final = error_reply(
    Code.TOO_MANY_CONNECTIONS,
    1,
    "as many connections are open as may be; try again later, or send over fewer",
)


class TcpServer:
    """Takes transactions as lines; for one event loop.

    Replies to what came before a client's half-close are sent, except over TLS, which has none: such a client reads
    its replies before it closes. connections: the open ones.
    """

    def __init__(
        self,
        desk: Desk,
        gate: Gate,
        metrics: Metrics,
        *,
        limits: ServeLimits,
        rounding: Rounding = Rounding.REJECT,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._metrics = metrics
        self._limits = limits
        self._tls: ssl.SSLContext | None = None
        self.connections: set[TcpConnection] = set()
        self._inside = 0
        self._greetings: set[asyncio.Task[None]] = set()
        self._listeners: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._sweeping: asyncio.TimerHandle | None = None
        self._emptied = asyncio.Event()
        self._service = Service(
            desk,
            gate,
            metrics,
            limits,
            rounding,
            opened=self.connections.add,
            closed=self._forget,
            stopping=self._loop.create_future(),
        )

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None) -> tuple[str, int]:
        """Lets connections in from now on; port 0 takes any free one. Returns the address it has.

        Raises UsageError when the address cannot be had.
        """
        self._tls = tls
        self._listeners = await listeners(TRANSPORT, host, port)
        self._accepting = [self._loop.create_task(self._accept(listener)) for listener in self._listeners]
        self._sweep()
        return bound(self._listeners[0])

    async def stop(self, deadline_s: float) -> None:
        """Lets nobody in, reads nothing, answers the complete lines that were read, and closes; within the time."""
        if not self._service.stopping.done():
            self._service.stopping.set_result(None)
        await _cancel(self._accepting)
        for listener in self._listeners:
            listener.close()
        await asyncio.sleep(0)  # one that was not begun would leave its socket open
        await _cancel(self._greetings)
        for connection in list(self.connections):
            connection.stop()
        if not await self._is_empty_within(deadline_s):
            for connection in list(self.connections):
                connection.give_up()
            await asyncio.sleep(0)
            for connection in list(self.connections):
                connection.abort()
            await self._is_empty_within(_ABORT_S)
        if self._sweeping is not None:
            self._sweeping.cancel()

    # --- letting in --------------------------------------------------------------------------------------------

    async def _accept(self, listener: socket.socket) -> None:
        """Accepts by itself: without descriptors, one of asyncio's tries a hundred times a second and logs each."""
        while True:
            try:
                accepted, _ = await self._loop.sock_accept(listener)
            except ConnectionError:
                continue  # it was gone before it was accepted
            except OSError:
                self._metrics.dropped(TRANSPORT, "no_resources")
                await asyncio.sleep(self._limits.accept_pause_ms / 1000)
                continue
            if self._inside >= self._limits.connections_max:
                self._turn_away(accepted)
                continue
            self._inside += 1
            greeting = self._loop.create_task(self._greet(accepted))
            self._greetings.add(greeting)
            greeting.add_done_callback(self._greetings.discard)

    def _turn_away(self, accepted: socket.socket) -> None:
        self._metrics.dropped(TRANSPORT, Code.TOO_MANY_CONNECTIONS)
        with accepted, suppress(OSError):
            if self._tls is None:
                accepted.send(_TOO_MANY)

    async def _greet(self, accepted: socket.socket) -> None:
        """Makes a connection of it, which for TLS takes some messages to and fro."""
        handshake_s = None if self._tls is None else self._limits.message_ms / 1000
        shutdown_s = None if self._tls is None else _TLS_SHUTDOWN_S
        try:
            await self._loop.connect_accepted_socket(
                lambda: TcpConnection(self._service),
                accepted,
                ssl=self._tls,
                ssl_handshake_timeout=handshake_s,
                ssl_shutdown_timeout=shutdown_s,
            )
        except OSError:
            self._inside -= 1
            self._metrics.dropped(TRANSPORT, "tls_handshake")

    # --- those inside ------------------------------------------------------------------------------------------

    def _forget(self, connection: TcpConnection) -> None:
        self.connections.discard(connection)
        self._inside -= 1
        if not self.connections:
            self._emptied.set()

    def _sweep(self) -> None:
        now = self._loop.time()
        for connection in list(self.connections):
            connection.sweep(now)
        shortest_ms = min(self._limits.message_ms, self._limits.idle_ms) // _SWEEPS
        wait_ms = min(max(shortest_ms, _SWEEP_MS_MIN), _SWEEP_MS_MAX)
        self._sweeping = self._loop.call_later(wait_ms / 1000, self._sweep)

    async def _is_empty_within(self, seconds: float) -> bool:
        """Whether all connections have ended by then."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.connections:
                    self._emptied.clear()
                    await self._emptied.wait()
        return not self.connections


async def _cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    cancelled = list(tasks)
    for task in cancelled:
        task.cancel()
    await asyncio.gather(*cancelled, return_exceptions=True)
