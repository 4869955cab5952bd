"""Requests that are answered with an error, in the one shape that errors have."""

from collections.abc import Mapping

import orjson
from starlette.responses import Response

from hftpipe.errors import HftpipeError

JSON = "application/json"


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
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.more = more or {}
        self.headers = headers or {}

    def answer(self, is_expecting: bool) -> Response:
        """The answer to a request; is_expecting: whether its client waits for the word to send its body."""
        # Nobody knows whether he now sends it or not.
        return self.response(connection="close") if is_expecting else self.response()

    def response(self, **headers: str) -> Response:
        """The answer, with further headers."""
        body = orjson.dumps({"error": self.code, "message": str(self), **self.more})
        return Response(body, self.status, {**self.headers, **headers}, JSON)


def malformed(message: str) -> Refused:
    """A request whose end cannot be known for sure: the connection ends with it."""
    return Refused(400, "bad_request", message)


def retry_after(seconds: int) -> dict[str, str]:
    """The header that says when to try again."""
    return {"retry-after": str(max(seconds, 1))}
