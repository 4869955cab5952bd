"""Who may come in, and what a query may ask; by the head of a request alone."""

import math
from collections.abc import Mapping
from typing import Final

from hftpipe.reception.access.tokens import Gate, Grant, Scope, Unauthorized
from hftpipe.reception.http.refused import Refused, retry_after

_CHALLENGE: Final = {"www-authenticate": 'Bearer realm="hftpipe"'}


def admit(gate: Gate, authorization: bytes | None, scope: Scope) -> Grant:
    """What a token is good for. Raises Refused where that is not `scope`, and when it has used up its rate."""
    try:
        grant = gate.admit(_bearer(authorization))
    except Unauthorized as unauthorized:
        raise Refused(401, "unauthorized", str(unauthorized), headers=_CHALLENGE) from None
    if not grant.allows(scope):
        raise Refused(403, "forbidden", f"this token is not good for the scope {scope}, which is needed here")
    if scope is Scope.SUBMIT and (debt_ms := grant.debt_ms()):
        wait = retry_after(math.ceil(debt_ms / 1000))
        raise Refused(429, "rate_limited", "this token has used up its rate; send again later", headers=wait)
    return grant


def query_options(query: bytes, allowed: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """The options of a query. Raises Refused for one that is not allowed, or not with that value, or there twice."""
    options: dict[str, str] = {}
    if not query:
        return options
    for part in query.decode("ascii", "replace").split("&", len(allowed)):
        name, _, value = part.partition("=")
        if name not in allowed or name in options or value not in allowed[name]:
            known = ", ".join(f"{key}={'|'.join(values)}" for key, values in allowed.items()) or "none"
            raise Refused(400, "bad_query", f"the query has an option that is not known here; known: {known}")
        options[name] = value
    return options


def _bearer(authorization: bytes | None) -> bytes | None:
    """The secret of `Authorization: Bearer <secret>`; None for anything else."""
    if authorization is None:
        return None
    scheme, _, secret = authorization.strip(b" \t").partition(b" ")
    return secret.strip(b" \t") or None if scheme.lower() == b"bearer" else None
