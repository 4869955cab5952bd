"""`GET /v1/accounts/{account}` and `GET /v1/transactions/{tx}`: what has been applied."""

from typing import Final

import orjson
from starlette.requests import Request
from starlette.responses import Response

from hftpipe.core.amount import render
from hftpipe.core.ledger import Refusal
from hftpipe.core.transaction import MOVING
from hftpipe.ports import Movement
from hftpipe.reception.desk import Desk
from hftpipe.reception.http.refused import JSON, Refused
from hftpipe.reception.http.results import Result, balance_of
from hftpipe.validation.fields import text_identifier


class Lookups:
    """Tells what the stores have; for one event loop."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def account(self, request: Request) -> Response:
        """An account's balance."""
        account = _identifier(request.path_params["account"], "an account")
        standing = await self._desk.standing(account)
        if standing is None:
            raise Refused(404, "unknown_account", "no applied transaction has named this account")
        entry = f"{standing.shard}/{standing.entry}"
        return _answer({"account": account, **balance_of(standing.account), "entry": entry})

    async def transaction(self, request: Request) -> Response:
        """The transaction that took an id, and all others that named it."""
        tx = _identifier(request.path_params["tx"], "a transaction id")
        told_max = self._desk.limits.history_rows_max
        movements = await self._desk.history(tx)
        if not movements:
            raise Refused(404, "unknown_tx", "no applied transaction has named this id")
        taker = next(filter(_takes_its_id, movements), None)
        others = [_told(movement) for movement in movements[:told_max] if movement is not taker]
        told = _NOBODY if taker is None else _told(taker)
        return _answer({"tx": tx, **told, "history": others, "has_more": len(movements) > told_max})


def _answer(body: Result) -> Response:
    return Response(orjson.dumps(body), media_type=JSON)


def _identifier(text: str, what: str) -> int:
    number = text_identifier(text)
    if number is None:
        raise Refused(404, "not_found", f"{what} is a whole number from 0 to 2^63-1, without leading zeros")
    return number


def _takes_its_id(movement: Movement) -> bool:
    return movement.kind.value in MOVING and movement.outcome != Refusal.DUPLICATE_TX


def _told(movement: Movement) -> Result:
    moves = movement.kind.value in MOVING
    return {
        "kind": movement.kind.name.lower(),
        "account": movement.account,
        "amount": render(movement.amount) if moves else None,
        "outcome": movement.outcome,
        "entry": f"{movement.shard}/{movement.entry}",
        "source": movement.source,
        "row": movement.row,
        "time_ms": movement.time_ms,
    }


_NOBODY: Final[Result] = dict.fromkeys(
    ("kind", "account", "amount", "outcome", "entry", "source", "row", "time_ms")
)
"""Where nobody has taken the id: disputes may name any."""
