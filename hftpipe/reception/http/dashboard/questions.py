"""What the page asks: GET /v1/overview, /v1/recent, /v1/me, /v1/dead; POST /v1/dead/{shard}/{entry}/retry, /drop."""

import asyncio
import re
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

import orjson
from starlette.requests import Request
from starlette.responses import Response

from hftpipe.errors import MendingRefused, UsageError
from hftpipe.reception.access.tokens import Gate, Grant, Scope
from hftpipe.reception.console import Console
from hftpipe.reception.http.doors import admit
from hftpipe.reception.http.refused import JSON, Refused
from hftpipe.reception.http.shared import Shared
from hftpipe.reception.metrics import Metrics

_LETTERS_MAX: Final = 200
_LOOK_S: Final = 5.0
"""Time between two looks while nobody asks: a page that is opened then shows the last minutes."""
_SHARD: Final = re.compile(r"[0-9]{1,4}", re.ASCII)
_ENTRY: Final = re.compile(r"[0-9]{1,20}-[0-9]{1,20}", re.ASCII)


class Questions:
    """Answers for the page; for one event loop. Whatever waits holds one thread, however many ask."""

    def __init__(self, console: Console, gate: Gate, metrics: Metrics) -> None:
        self._console = console
        self._gate = gate
        self._metrics = metrics
        self._look = Shared(console.overview)
        self._listing = asyncio.Lock()
        self._deciding = asyncio.Lock()

    async def keep_looking(self) -> None:
        """Looks for ever, so that there are recent samples."""
        while True:
            with suppress(Exception):  # told to whoever asks: nothing may end the looking
                await self._look.get()
            await asyncio.sleep(_LOOK_S)

    async def overview(self, _: Request) -> Response:
        """How the pipeline stands, and what came in here."""
        return _answer({**await self._look.get(), "transports": self._metrics.transports()})

    async def recent(self, _: Request) -> Response:
        """How it stood in the last minutes."""
        return _answer(self._console.recent())

    async def me(self, request: Request) -> Response:
        """What the caller's token is good for."""
        grant = admit(self._gate, authorization_of(request), Scope.READ)
        guarded = self._gate.is_guarded
        return _answer({"name": grant.name, "scopes": sorted(grant.scopes), "guarded": guarded})

    async def dead(self, _: Request) -> Response:
        """Dead letters that nobody has decided on."""
        async with self._listing:
            found = await asyncio.to_thread(self._console.dead_letters)
        faults = [{"shard": shard, "why": why} for shard, why in found.faults.items()]
        count = len(found.letters)
        return _answer(
            {
                "dead": found.letters[:_LETTERS_MAX],
                "count": count,
                "has_more": found.has_more,
                "faults": faults,
            }
        )

    async def retry(self, request: Request, who: str) -> Response:
        """Appends one again."""
        shard, entry = _named(request)
        address = await self._decided(partial(self._console.retry, shard, entry, who))
        return _answer({"entry": address})

    async def drop(self, request: Request, who: str) -> Response:
        """Gives one up."""
        shard, entry = _named(request)
        await self._decided(partial(self._console.drop, shard, entry, who))
        return _answer({"dropped": f"{shard}/{entry}"})

    async def _decided(self, decide: Callable[[], object]) -> object:
        try:
            async with self._deciding:
                return await asyncio.to_thread(decide)
        except (MendingRefused, UsageError) as refused:
            raise Refused(409, "refused", str(refused)) from None


def authorization_of(request: Request) -> bytes | None:
    """The header of that name."""
    found: bytes | None = dict(request.scope["headers"]).get(b"authorization")
    return found


def require_decider(request: Request, gate: Gate) -> Grant:
    """The caller's grant; raises Refused unless he has shown a token with the scope admin, and JSON.

    So no form of another site can decide. Without a token file nobody can: whoever reaches the port could.
    """
    if not gate.is_guarded:
        told = "without a token file nobody may decide here; use `hftpipe dead`, or start the service with --token-file"
        raise Refused(403, "forbidden", told)
    grant = admit(gate, authorization_of(request), Scope.ADMIN)
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != JSON:
        raise Refused(415, "unsupported_media_type", f"decisions are sent as {JSON}")
    return grant


def _named(request: Request) -> tuple[int, str]:
    shard, entry = request.path_params["shard"], request.path_params["entry"]
    if not _SHARD.fullmatch(shard) or not _ENTRY.fullmatch(entry):
        raise Refused(404, "not_found", "a dead letter is named by its shard and entry, as in 3/1-1042")
    return int(shard), entry


def _answer(body: object) -> Response:
    return Response(orjson.dumps(body), media_type=JSON)
