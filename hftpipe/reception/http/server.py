"""Listens, sweeps the deadlines of all connections, and stops: uvicorn's protocol within a loop that others share.

uvicorn's own `Server` takes the signals, ends the process where it cannot listen, and has no bound for handshakes.
"""

import asyncio
from contextlib import suppress
from email.utils import formatdate
from pathlib import Path
from typing import Final, cast

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from hftpipe.config import ServeLimits
from hftpipe.reception.access.tls import server_context
from hftpipe.reception.access.tokens import Gate
from hftpipe.reception.console import Console
from hftpipe.reception.desk import Desk
from hftpipe.reception.http.application import application
from hftpipe.reception.http.connection import TRANSPORT, Connection, House
from hftpipe.reception.http.dashboard.questions import Questions
from hftpipe.reception.http.names import Names
from hftpipe.reception.metrics import Metrics
from hftpipe.reception.sockets import BACKLOG, bound, listeners
from hftpipe.validation import Rounding

_SWEEP_S: Final = 1.0
_SWEEPS_PER_MESSAGE: Final = 10
"""A deadline is noticed so much of itself too late, at the most; and a second at the most."""
_ABORT_S: Final = 1.0

_HEADERS: Final = [("x-content-type-options", "nosniff")]
"""Of every answer."""


class HttpServer:
    """One listening address; for the running event loop."""

    def __init__(
        self,
        desk: Desk,
        gate: Gate,
        metrics: Metrics,
        console: Console,
        *,
        limits: ServeLimits,
        rounding: Rounding,
    ) -> None:
        self._questions = Questions(console, gate, metrics)
        self._names = Names()
        config = Config(
            application(desk, gate, metrics, self._questions, self._names, limits=limits, rounding=rounding),
            http=HttpToolsProtocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            headers=_HEADERS,
        )
        config.load()
        self._limits = limits
        self._house = House(config, desk.budget, metrics, limits)
        self._house.emptied.set()
        self._servers: list[asyncio.Server] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, host: str, port: int, tls: tuple[Path, Path] | None) -> tuple[str, int]:
        """Listens; the address that it is, with a port of the system's choice for port 0.

        tls: certificate and key. Raises UsageError (the files of TLS, the address).
        """
        self._names.add(host)
        loop = asyncio.get_running_loop()
        context = server_context(*tls) if tls else None
        patience_s = self._limits.message_ms / 1000 if tls else None
        sockets = await listeners(TRANSPORT, host, port)
        for listener in sockets:
            server = await loop.create_server(
                lambda: Connection(self._house),
                sock=listener,
                backlog=BACKLOG,
                ssl=context,
                ssl_handshake_timeout=patience_s,
                ssl_shutdown_timeout=patience_s,
            )
            self._servers.append(server)
        self._tasks = [loop.create_task(self._sweep()), loop.create_task(self._questions.keep_looking())]
        return bound(sockets[0])

    async def stop(self, deadline_s: float) -> None:
        """Accepts nothing any more, answers the requests that were read, and returns when all connections are closed.

        After `deadline_s` the rest is cut off: those are in doubt.
        """
        self._house.is_stopping = True
        for server in self._servers:
            server.close()
        for connection in self._connections():
            connection.shutdown()
        if not await self._is_empty_within(deadline_s):
            for connection in self._connections():
                connection.transport.abort()
            await self._is_empty_within(_ABORT_S)
        for task in self._tasks:
            task.cancel()

    def _connections(self) -> list[Connection]:
        return cast(list[Connection], list(self._house.state.connections))

    async def _is_empty_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._house.emptied.wait(), seconds)
        return self._house.emptied.is_set()

    async def _sweep(self) -> None:
        """One look at all connections a second costs less than a timer for each message."""
        loop = asyncio.get_running_loop()
        shortest_ms = min(self._limits.message_ms, self._limits.idle_ms)
        pause_s = min(_SWEEP_S, shortest_ms / 1000 / _SWEEPS_PER_MESSAGE)
        house = self._house
        while True:
            date = (b"date", formatdate(usegmt=True).encode("ascii"))
            house.state.default_headers = [date, *house.config.encoded_headers]
            await asyncio.sleep(pause_s)
            now_s = loop.time()
            for connection in self._connections():
                if connection.deadline_s <= now_s:
                    connection.expire()
