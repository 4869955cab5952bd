"""One request on its way through the routes."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from hftpipe.reception.access.tokens import Grant, Scope
from hftpipe.reception.http.messages import Head, Refused, Response

PARAMETERS_MAX: Final = 8
"""Parts of a query that are looked at."""


@dataclass(slots=True)
class Request:
    """A request that was let in.

    parameter: what stands in the path where the route has a name. options: of the query. pieces: of its body.
    charged: bytes of the budget that it holds.
    """

    head: Head
    route: "Route"
    parameter: str
    options: dict[str, str]
    grant: Grant
    pieces: list[bytes] = field(default_factory=list)
    charged: int = 0

    @property
    def body(self) -> bytes:
        """All of it."""
        return self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces)


Handler: TypeAlias = Callable[[Request], Awaitable[Response]]
"""Answers a request; raises Refused, Unacknowledged, PassingFault or ShardStopped."""


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path.

    path: as in the document, `/v1/accounts/{account}`. scope: that a token must have; None where none is asked for.
    options: the values that each option of the query may have. screen: looks at a head before the body is read.
    """

    method: str
    path: str
    scope: Scope | None
    handler: Handler
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    screen: Callable[[Head], None] | None = None

    @property
    def takes_body(self) -> bool:
        """Whether a body means anything there."""
        return self.method == "POST"


def query_options(query: bytes, allowed: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """The options of a query. Raises Refused for one that the route does not have, or has not with that value."""
    options: dict[str, str] = {}
    if not query:
        return options
    for part in query.decode("ascii", "replace").split("&", PARAMETERS_MAX):
        name, _, value = part.partition("=")
        if name not in allowed or name in options or value not in allowed[name]:
            known = ", ".join(f"{key}={'|'.join(values)}" for key, values in allowed.items()) or "none"
            raise Refused(400, "bad_query", f"the query has an option that is not known here; known: {known}")
        options[name] = value
    return options


def bearer(authorization: bytes | None) -> bytes | None:
    """The secret of `Authorization: Bearer <secret>`; None for anything else."""
    if authorization is None:
        return None
    scheme, _, secret = authorization.partition(b" ")
    return secret.strip(b" \t") or None if scheme.lower() == b"bearer" else None
