"""Which request goes where, who may send it, and how errors are told: the ASGI application."""

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias, cast

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hftpipe.config import ServeLimits
from hftpipe.errors import PassingFault, ShardStopped
from hftpipe.reception.access.tokens import Gate, Scope
from hftpipe.reception.desk import Desk
from hftpipe.reception.http.counting import Counting
from hftpipe.reception.http.dashboard.assets import Assets
from hftpipe.reception.http.dashboard.questions import Questions, require_decider
from hftpipe.reception.http.document import document
from hftpipe.reception.http.doors import admit, query_options
from hftpipe.reception.http.lookups import Lookups
from hftpipe.reception.http.names import Addressed, Names
from hftpipe.reception.http.page import page
from hftpipe.reception.http.refused import JSON, Refused, retry_after
from hftpipe.reception.http.shared import Shared
from hftpipe.reception.http.submission import Submissions
from hftpipe.reception.http.unstored import Unstored
from hftpipe.reception.metrics import Metrics
from hftpipe.reception.receipts import BacklogFull, Unacknowledged
from hftpipe.validation import Rounding

Handler: TypeAlias = Callable[[Request], Awaitable[Response]]
"""Answers a request; raises Refused, Unacknowledged, PassingFault or ShardStopped."""

Decision: TypeAlias = Callable[[Request, str], Awaitable[Response]]
"""The same; it is told who decides, too."""


def application(
    desk: Desk,
    gate: Gate,
    metrics: Metrics,
    questions: Questions,
    names: Names,
    *,
    limits: ServeLimits,
    rounding: Rounding,
) -> Counting:
    """Answers every request; for one event loop. names: what the service may be called where nobody needs a token."""
    lookups, assets = Lookups(desk), Assets()
    rendered = Shared(metrics.render)  # it looks at stores and log

    async def ready(_: Request) -> Response:
        if problem := desk.problem():
            raise Refused(503, "not_ready", problem)
        return Response(b'{"status":"ready"}', media_type=JSON)

    async def render_metrics(_: Request) -> Response:
        body, content_type = await rendered.get()
        return Response(body, media_type=content_type)

    def open_to_all(path: str, handler: Handler) -> Route:
        return Route(path, _endpoint(handler))

    def to_readers(path: str, handler: Handler) -> Route:
        return Route(path, _endpoint(handler, gate))

    def to_administrators(path: str, handler: Decision) -> Route:
        return Route(path, _decision(handler, gate), methods=["POST"])

    submissions = Submissions(desk, gate, metrics, limits=limits, rounding=rounding)
    starlette = Starlette(
        routes=[
            Route("/v1/transactions", submissions, methods=["POST"]),
            to_readers("/v1/accounts/{account}", lookups.account),
            to_readers("/v1/transactions/{tx}", lookups.transaction),
            to_readers("/v1/overview", questions.overview),
            to_readers("/v1/recent", questions.recent),
            to_readers("/v1/me", questions.me),
            to_readers("/v1/dead", questions.dead),
            to_administrators("/v1/dead/{shard}/{entry}/retry", questions.retry),
            to_administrators("/v1/dead/{shard}/{entry}/drop", questions.drop),
            to_readers("/metrics", render_metrics),
            open_to_all("/healthz", _always(Response(b'{"status":"alive"}', media_type=JSON))),
            open_to_all("/readyz", ready),
            open_to_all("/openapi.json", _always(Response(document(limits), media_type=JSON))),
            open_to_all("/docs", _always(Response(page(limits), 200, _PAGE_HEADERS, "text/html"))),
            open_to_all("/", assets.page),
            *(open_to_all(f"/assets/{name}", assets.file) for name in assets.names),
        ],
        exception_handlers=_ANSWERS,
    )
    starlette.router.redirect_slashes = False
    return Counting(Unstored(starlette if gate.is_guarded else Addressed(starlette, names)), metrics)


def _endpoint(handler: Handler, gate: Gate | None = None) -> Handler:
    """A route without options of a query; with a gate, for those who may read."""

    async def endpoint(request: Request) -> Response:
        if gate is not None:
            admit(gate, dict(request.scope["headers"]).get(b"authorization"), Scope.READ)
        query_options(request.scope["query_string"], {})
        return await handler(request)

    return endpoint


def _decision(handler: Decision, gate: Gate) -> Handler:
    """A route that changes something, for administrators."""

    async def endpoint(request: Request) -> Response:
        grant = require_decider(request, gate)
        query_options(request.scope["query_string"], {})
        return await handler(request, f"{grant.name} over HTTP")

    return endpoint


def _always(response: Response) -> Handler:
    async def handler(_: Request) -> Response:
        return response

    return handler


# --- errors -----------------------------------------------------------------------------------------------------


async def _refused(request: Request, error: Exception) -> Response:
    return cast(Refused, error).answer("expect" in request.headers)


async def _unacknowledged(request: Request, error: Exception) -> Response:
    unacknowledged = cast(Unacknowledged, error)
    headers = retry_after(unacknowledged.retry_after_s)
    if isinstance(error, BacklogFull):
        return await _refused(request, Refused(429, "backlog_full", str(error), headers=headers))
    more = {"in_doubt": unacknowledged.in_doubt}
    return await _refused(request, Refused(503, "log_away", str(error), more=more, headers=headers))


async def _store_away(request: Request, _: Exception) -> Response:
    return await _refused(request, _STORE_AWAY)


async def _not_here(request: Request, error: Exception) -> Response:
    """Starlette found no route, or none for this method."""
    allow = (cast(HTTPException, error).headers or {}).get("Allow")
    if allow is None:
        return await _refused(
            request, Refused(404, "not_found", "there is nothing under this path; see /docs")
        )
    allow = ", ".join(sorted(allow.split(", ")))
    told = f"this path takes {allow} only; see /docs"
    return await _refused(request, Refused(405, "bad_method", told, headers={"allow": allow}))


async def _bug(request: Request, _: Exception) -> Response:
    """uvicorn logs it; the client is told nothing of it."""
    return await _refused(request, _BUG)


_PAGE_HEADERS: Final = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
}
_STORE_AWAY: Final = Refused(
    503, "store_away", "the store cannot be read for now; see: hftpipe status", headers=retry_after(1)
)
_BUG: Final = Refused(500, "internal", "the service failed at this request; its log says more")
_ANSWERS: Final[dict[Any, Callable[[Request, Exception], Awaitable[Response]]]] = {
    Refused: _refused,
    Unacknowledged: _unacknowledged,
    PassingFault: _store_away,
    ShardStopped: _store_away,
    HTTPException: _not_here,
    Exception: _bug,
}
