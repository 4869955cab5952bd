"""ASGI middleware for a service without tokens: it answers under its own names, and to no page of another place.

Who looks up a name of his own can lead it to this machine while a browser here shows his page: to the browser the page
and this service are then one place, and nothing else keeps the page from asking and sending all that it likes. The
browser says under which name it came. With tokens none of this is needed: such a page has none.
"""

import re
import socket
from functools import lru_cache
from ipaddress import ip_address
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from hftpipe.reception.http.refused import Refused

_HOST: Final = re.compile(rb"(?:\[([0-9A-Fa-f:.%]+)\]|([A-Za-z0-9._-]+))(?::[0-9]*)?")
_KEPT: Final = 64
"""Answers about the hosts of requests that are remembered; the same few come again and again."""

_MISDIRECTED: Final = Refused(
    421,
    "misdirected",
    "this service has no such name: call it by its address, as in 127.0.0.1:8080. Under names it is served with "
    "--token-file",
)
_FOREIGN: Final = Refused(
    403,
    "foreign_page",
    "a page of another place sends nothing here without a token; start the service with --token-file",
)


class Names:
    """What the service may be called: any address by number, localhost, this machine, and the names added."""

    def __init__(self) -> None:
        self._names = {"localhost", socket.gethostname().lower()}
        self.are_meant = lru_cache(_KEPT)(self._are_meant)

    def add(self, host: str) -> None:
        """One more: what it was told to listen on."""
        self._names.add(host.lower())
        self.are_meant.cache_clear()

    def _are_meant(self, host: bytes) -> bool:
        """Whether the value of a header Host means this service."""
        found = _HOST.fullmatch(host)
        if found is None:
            return False
        number, name = (part.decode("ascii").lower() if part else "" for part in found.groups())
        return name.removesuffix(".") in self._names or _is_address(number, 6) or _is_address(name, 4)


def _is_address(text: str, version: int) -> bool:
    try:
        return ip_address(text).version == version
    except ValueError:
        return False


class Addressed:
    """Refuses what does not mean this service, on every route, before `app` sees it."""

    def __init__(self, app: ASGIApp, names: Names) -> None:
        self._app = app
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        fields: dict[bytes, bytes] = dict(scope["headers"])
        refused = self._refusal(scope["method"], fields.get(b"host"), fields.get(b"origin"))
        if refused is None:
            await self._app(scope, receive, send)
        else:
            await refused.answer(b"expect" in fields)(scope, receive, send)

    def _refusal(self, method: str, host: bytes | None, origin: bytes | None) -> Refused | None:
        if host is not None and not self._names.are_meant(host):  # without one comes HTTP/1.0, and no browser
            return _MISDIRECTED
        if (
            method == "POST"
            and origin is not None
            and origin.partition(b"://")[2].lower() != (host or b"").lower()
        ):
            return _FOREIGN
        return None
