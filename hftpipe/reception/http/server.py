"""Listens, sweeps the deadlines of all connections, and stops."""

import asyncio
from contextlib import suppress
from email.utils import formatdate
from pathlib import Path
from typing import Final

from hftpipe.config import ServeLimits
from hftpipe.reception.access.tls import server_context
from hftpipe.reception.access.tokens import Gate
from hftpipe.reception.desk import Desk
from hftpipe.reception.http.application import Application
from hftpipe.reception.http.connection import Connection
from hftpipe.reception.metrics import Metrics
from hftpipe.validation import Rounding

_TRANSPORT: Final = "http"
_BACKLOG: Final = 1_024
"""Connections that the system holds until they are accepted."""
_SWEEP_S: Final = 1.0
_SWEEPS_PER_MESSAGE: Final = 10
"""A deadline is noticed so much of itself too late, at the most; and a second at the most."""


class HttpServer:
    """One listening address; for the running event loop."""

    def __init__(
        self, desk: Desk, gate: Gate, metrics: Metrics, *, limits: ServeLimits, rounding: Rounding
    ) -> None:
        self.application = Application(desk, gate, metrics, limits=limits, rounding=rounding)
        self.budget = desk.budget
        self.metrics = metrics
        self.limits = limits
        self.date = _date()
        self.is_stopping = False
        self._connections: set[Connection] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int, tls: tuple[Path, Path] | None) -> tuple[str, int]:
        """Listens; the address that it is, with a port of the system's choice for port 0.

        tls: certificate and key. Raises UsageError (the files of TLS), OSError (the address).
        """
        loop = asyncio.get_running_loop()
        handshake_s = self.limits.message_ms / 1000 if tls else None
        self._server = await loop.create_server(
            lambda: Connection(self),
            host,
            port,
            backlog=_BACKLOG,
            ssl=server_context(*tls) if tls else None,
            ssl_handshake_timeout=handshake_s,
            ssl_shutdown_timeout=handshake_s,
        )
        self._sweeper = loop.create_task(self._sweep())
        name = self._server.sockets[0].getsockname()
        return str(name[0]), int(name[1])

    async def stop(self, deadline_s: float) -> None:
        """Accepts nothing any more, answers the requests that were read, and returns when all connections are closed.

        After `deadline_s` the rest is cut off: those are in doubt.
        """
        self.is_stopping = True
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.stop()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._empty.wait(), deadline_s)
        for connection in list(self._connections):
            connection.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()

    # --- what connections call ---------------------------------------------------------------------------------

    def enter(self, connection: Connection) -> bool:
        """A connection began; False when there are too many."""
        self._connections.add(connection)
        self._empty.clear()
        self.metrics.opened(_TRANSPORT)
        if len(self._connections) > self.limits.connections_max or self.is_stopping:
            self.metrics.dropped(_TRANSPORT, "too_many_connections")
            return False
        return True

    def leave(self, connection: Connection) -> None:
        """It ended."""
        self._connections.discard(connection)
        self.metrics.closed(_TRANSPORT)
        if not self._connections:
            self._empty.set()

    async def _sweep(self) -> None:
        """One look at all connections a second costs less than a timer for each message."""
        loop = asyncio.get_running_loop()
        shortest_ms = min(self.limits.message_ms, self.limits.idle_ms)
        pause_s = min(_SWEEP_S, shortest_ms / 1000 / _SWEEPS_PER_MESSAGE)
        while True:
            await asyncio.sleep(pause_s)
            self.date = _date()
            now_s = loop.time()
            for connection in [each for each in self._connections if each.deadline_s <= now_s]:
                connection.expire()


def _date() -> bytes:
    return formatdate(usegmt=True).encode("ascii")
