"""Which request goes where, who may send it, and how errors are told."""

import asyncio
import math
from typing import Final

from hftpipe.config import ServeLimits
from hftpipe.errors import PassingFault, ShardStopped
from hftpipe.reception.access.tokens import Gate, Grant, Scope, Unauthorized
from hftpipe.reception.desk import Desk
from hftpipe.reception.http.document import document
from hftpipe.reception.http.lookups import Lookups
from hftpipe.reception.http.messages import Head, Refused, Response
from hftpipe.reception.http.page import page
from hftpipe.reception.http.request import Request, Route, bearer, query_options
from hftpipe.reception.http.submission import Submissions
from hftpipe.reception.metrics import Metrics
from hftpipe.reception.receipts import BacklogFull, Unacknowledged
from hftpipe.validation import Rounding

_METHODS_OF_HEAD: Final = {b"HEAD": b"GET"}


class Application:
    """Answers requests; for one event loop."""

    def __init__(
        self, desk: Desk, gate: Gate, metrics: Metrics, *, limits: ServeLimits, rounding: Rounding
    ) -> None:
        self._desk = desk
        self._gate = gate
        self._metrics = metrics
        self._everybody = Gate.open_to_all().admit(None)
        self._document = Response(200, document(limits))
        self._page = Response(200, page(limits), "text/html; charset=utf-8", _PAGE_HEADERS)
        submissions = Submissions(desk, metrics, limits=limits, rounding=rounding)
        lookups = Lookups(desk)
        waits = {"wait": ("durable", "applied")}
        screen = submissions.screen
        routes = (
            Route("POST", "/v1/transactions", Scope.SUBMIT, submissions.take, waits, screen),
            Route("GET", "/v1/accounts/{account}", Scope.READ, lookups.account),
            Route("GET", "/v1/transactions/{tx}", Scope.READ, lookups.transaction),
            Route("GET", "/metrics", Scope.READ, self._render_metrics),
            Route("GET", "/healthz", None, _live),
            Route("GET", "/readyz", None, self._ready),
            Route("GET", "/openapi.json", None, self._tell_document),
            Route("GET", "/docs", None, self._tell_page),
            Route("GET", "/", None, _redirect),
        )
        self._routes: dict[bytes, dict[bytes, Route]] = {}
        for route in routes:
            path, _, _ = route.path.partition("{")
            self._routes.setdefault(path.encode(), {})[route.method.encode()] = route

    def admit(self, head: Head) -> Request:
        """A request whose body may be read now. Raises Refused: all that its head can be refused for."""
        path, _, query = head.target.partition(b"?")
        route, parameter = self._find(head.method, path)
        grant = self._everybody if route.scope is None else self._grant(head, route.scope)
        options = query_options(query, route.options)
        if route.screen is not None:
            route.screen(head)
        return Request(head, route, parameter, options, grant)

    async def respond(self, request: Request) -> Response:
        """The answer, whatever happens: a bug of ours is told to the loop, and nothing of it to the client."""
        try:
            return await request.route.handler(request)
        except Refused as refused:
            return refused.response()
        except Unacknowledged as unacknowledged:
            return _unacknowledged(unacknowledged).response()
        except (PassingFault, ShardStopped):
            return _STORE_AWAY.response()
        except Exception as bug:
            context = {"message": f"a request to {request.route.path} failed", "exception": bug}
            asyncio.get_running_loop().call_exception_handler(context)
            return _BUG.response()

    def _find(self, method: bytes, path: bytes) -> tuple[Route, str]:
        methods, parameter = self._routes.get(path), b""
        if methods is None:
            cut = path.rfind(b"/") + 1
            folder, parameter = path[:cut], path[cut:]
            methods = self._routes.get(folder) if parameter and folder != b"/" else None
        if methods is None or (path.endswith(b"/") and path != b"/"):
            raise Refused(404, "not_found", "there is nothing under this path; see /docs")
        route = methods.get(method) or methods.get(_METHODS_OF_HEAD.get(method, b""))
        if route is None:
            allowed = ", ".join(name.replace("GET", "GET, HEAD") for name in map(bytes.decode, methods))
            raise Refused(
                405, "bad_method", f"this path takes {allowed} only; see /docs", headers=(("allow", allowed),)
            )
        return route, parameter.decode("ascii", "replace")

    def _grant(self, head: Head, scope: Scope) -> Grant:
        try:
            grant = self._gate.admit(bearer(head.fields.get(b"authorization")))
        except Unauthorized as unauthorized:
            raise Refused(401, "unauthorized", str(unauthorized), headers=_CHALLENGE) from None
        if not grant.allows(scope):
            raise Refused(
                403, "forbidden", f"this token is not good for the scope {scope}, which is needed here"
            )
        if scope is Scope.SUBMIT and (debt_ms := grant.debt_ms()):
            raise Refused(
                429,
                "rate_limited",
                "this token has used up its rate; send again later",
                headers=_retry_after(math.ceil(debt_ms / 1000)),
            )
        return grant

    # --- small routes ------------------------------------------------------------------------------------------

    async def _ready(self, _: Request) -> Response:
        if problem := self._desk.problem():
            raise Refused(503, "not_ready", problem)
        return Response(200, b'{"status":"ready"}')

    async def _render_metrics(self, _: Request) -> Response:
        return Response(200, *self._metrics.render())

    async def _tell_document(self, _: Request) -> Response:
        return self._document

    async def _tell_page(self, _: Request) -> Response:
        return self._page


async def _live(_: Request) -> Response:
    return Response(200, b'{"status":"alive"}')


async def _redirect(_: Request) -> Response:
    return Response(302, b"", "text/plain", (("location", "/docs"),))


def _unacknowledged(unacknowledged: Unacknowledged) -> Refused:
    headers = _retry_after(unacknowledged.retry_after_s)
    if isinstance(unacknowledged, BacklogFull):
        return Refused(429, "backlog_full", str(unacknowledged), headers=headers)
    more = {"in_doubt": unacknowledged.in_doubt}
    return Refused(503, "log_away", str(unacknowledged), more=more, headers=headers)


def _retry_after(seconds: int) -> tuple[tuple[str, str], ...]:
    return (("retry-after", str(max(seconds, 1))),)


_CHALLENGE: Final = (("www-authenticate", 'Bearer realm="hftpipe"'),)
_PAGE_HEADERS: Final = (
    ("content-security-policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
    ("referrer-policy", "no-referrer"),
)

_STORE_AWAY: Final = Refused(
    503, "store_away", "the store cannot be read for now; see: hftpipe status", headers=_retry_after(1)
)
_BUG: Final = Refused(500, "internal", "the service failed at this request; its log says more")
