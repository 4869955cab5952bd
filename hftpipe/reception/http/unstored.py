"""ASGI middleware: an answer that does not say who may keep it is kept by nobody."""

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

NO_STORE: Final = {"cache-control": "no-store"}
_FIELD: Final = (b"cache-control", b"no-store")


class Unstored:
    """Says so in what `app` answers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message["headers"]
                if all(name != _FIELD[0] for name, _ in headers):
                    message["headers"] = [*headers, _FIELD]
            await send(message)

        await self._app(scope, receive, told)
