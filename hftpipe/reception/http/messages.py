"""Requests and responses as values; no socket here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from http import HTTPStatus
from typing import Final

import orjson

from hftpipe.errors import HftpipeError

JSON: Final = "application/json"

SINGULAR: Final = frozenset(
    {
        b"host",
        b"content-type",
        b"content-length",
        b"content-encoding",
        b"transfer-encoding",
        b"authorization",
        b"expect",
    }
)
"""Header fields that are looked at; of each, a request has one at most."""


@dataclass(slots=True)
class Head:
    """What a request says before its body.

    target: path and query, as sent. fields: those of `SINGULAR`, by lower-case name.
    length: of the body in bytes; None when it comes in chunks.
    """

    method: bytes = b""
    target: bytes = b""
    fields: dict[bytes, bytes] = field(default_factory=dict)
    length: int | None = 0


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer. headers: beside those that every response has."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()

    def encode(self, date: bytes, *, close: bool, without_body: bool) -> bytes:
        """As it goes over the wire; HEAD is told the length of a body that it does not get."""
        head = _head(self.status, self.content_type, self.headers, close)
        body = b"" if without_body else self.body
        return b"%b%b\r\ncontent-length: %d\r\n\r\n%b" % (head, date, len(self.body), body)


@lru_cache(256)
def _head(status: int, content_type: str, headers: tuple[tuple[str, str], ...], close: bool) -> bytes:
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        f"content-type: {content_type}",
        "x-content-type-options: nosniff",
        "cache-control: no-store",
        *(f"{name}: {value}" for name, value in headers),
        *(["connection: close"] if close else []),
        "date: ",
    ]
    return "\r\n".join(lines).encode("ascii")


class Refused(HftpipeError):
    """A request that is answered with an error; `code` is a word for programs, the message is for people.

    more: further members of the answer. headers: of the response.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        more: Mapping[str, object] | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.more = more or {}
        self.headers = headers

    def response(self) -> Response:
        """The answer."""
        body = orjson.dumps({"error": self.code, "message": str(self), **self.more})
        return Response(self.status, body, headers=self.headers)


def malformed(message: str) -> Refused:
    """A request whose end cannot be known for sure: the connection ends with it."""
    return Refused(400, "bad_request", message)
