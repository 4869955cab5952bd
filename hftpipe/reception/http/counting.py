"""ASGI middleware: every request that reaches the application is counted, by its route and what was answered."""

import asyncio
from contextlib import suppress
from time import perf_counter
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hftpipe.reception.metrics import Metrics

OTHER: Final = "other"
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Named in the metrics; the others are counted as one."""


class Counting:
    """Counts what `app` answers."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        began_s = perf_counter()

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                method = scope["method"] if scope["method"] in _METHODS else OTHER
                route = scope["route"].path if "route" in scope else OTHER
                self._metrics.request(method, route, message["status"], perf_counter() - began_s)
            await send(message)

        # Cancelled when the connection is gone, and with it who would be answered: uvicorn would log that as a bug.
        with suppress(asyncio.CancelledError):
            await self._app(scope, receive, counted)
