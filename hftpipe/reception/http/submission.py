"""`POST /v1/transactions`: a body to lines, lines to transactions, receipts to results."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final, TypeAlias

import numpy as np
import orjson
from numpy.typing import NDArray
from starlette import types

from hftpipe.config import ServeLimits
from hftpipe.core.ledger import Refusal
from hftpipe.core.transaction import MOVING, Batch
from hftpipe.errors import PassingFault, ShardStopped
from hftpipe.ports import Movement
from hftpipe.reception.access.tokens import Gate, Grant, Scope
from hftpipe.reception.desk import Desk
from hftpipe.reception.http.body import (
    BodyForm,
    NotJson,
    TooManyElements,
    array_lines,
    body_form,
    is_lone,
    lone_line,
    ndjson_lines,
)
from hftpipe.reception.http.doors import admit, query_options
from hftpipe.reception.http.refused import Refused
from hftpipe.reception.http.results import (
    Result,
    all_durable_results,
    balance_of,
    invalid_result,
    many_results,
    results_of,
)
from hftpipe.reception.metrics import Metrics
from hftpipe.reception.receipts import Receipts, Status
from hftpipe.validation import (
    ColumnarJsonlValidator,
    Invalid,
    InvalidReason,
    JsonlValidator,
    Rounding,
    Validated,
)

TRANSPORT: Final = "http"

Answer: TypeAlias = tuple[int, bytes]
"""A status, and a body of JSON."""

_OPTIONS: Final = {"wait": ("durable", "applied")}

_COLUMNAR_BYTES_MIN: Final = 3_000
"""Fewer lines than these hold are validated sooner one by one."""


class Submissions:
    """Takes transactions; for one event loop."""

    def __init__(
        self, desk: Desk, gate: Gate, metrics: Metrics, *, limits: ServeLimits, rounding: Rounding
    ) -> None:
        self._desk = desk
        self._gate = gate
        self._metrics = metrics
        self._count_max = limits.body_transactions_max
        self._plain = JsonlValidator(rounding=rounding)
        self._columnar = ColumnarJsonlValidator(self._plain)

    async def __call__(self, scope: types.Scope, receive: types.Receive, send: types.Send) -> None:
        """Serves one request, as an ASGI application: objects of a request and a response cost more than the rest."""
        headers = dict(scope["headers"])
        grant = admit(self._gate, headers.get(b"authorization"), Scope.SUBMIT)
        waits = query_options(scope["query_string"], _OPTIONS).get("wait") == "applied"
        form = _required_form(headers)
        body = await _whole_body(receive)
        if body is None:
            return
        status, answer = await self._take(grant, form, body, waits=waits)
        start = {"type": "http.response.start", "status": status, "headers": _headers(len(answer))}
        await send(start)
        await send({"type": "http.response.body", "body": answer})

    async def _take(self, grant: Grant, form: BodyForm, body: bytes, *, waits: bool) -> Answer:
        """Answers when every valid row is durable; with `wait=applied`, when it is applied."""
        is_json = form is BodyForm.JSON
        try:
            if is_json and is_lone(body):
                return await self._take_lone(grant, lone_line(body), waits=waits)
            cut = array_lines if is_json else ndjson_lines
            lines = cut(body, self._count_max)
        except NotJson as error:
            raise Refused(400, "bad_json", str(error)) from None
        except TooManyElements as error:
            raise Refused(413, "too_many_transactions", str(error)) from None
        return await self._take_many(grant, lines, waits=waits)

    async def _take_lone(self, grant: Grant, line: bytes, *, waits: bool) -> Answer:
        validated = self._plain.validate(line, 1)
        if validated.invalid:
            (invalid,) = validated.invalid
            if invalid.reason == InvalidReason.BAD_JSON and not invalid.field:
                raise NotJson("the body is not one JSON object that can be read")
            self._count_invalid(validated.invalid)
            return 422, orjson.dumps(invalid_result(invalid))
        receipts = await self._submit(grant, validated.batch)
        if not waits and receipts.statuses[0] == Status.DURABLE:
            return 200, b'{"status":"durable","entry":"%b"}' % receipts.address(0).encode()
        (result,) = await self._results(validated.batch, receipts, waits=waits)
        status = 409 if result["status"] == "conflict" else 200
        return status, orjson.dumps(result)

    async def _take_many(self, grant: Grant, lines: bytes, *, waits: bool) -> Answer:
        validated = self._validated(lines)
        self._count_invalid(validated.invalid)
        results: Sequence[Result] = ()
        if len(validated.batch):
            receipts = await self._submit(grant, validated.batch)
            if receipts.all_durable and not waits and not validated.invalid:
                return 200, all_durable_results(validated.batch.rows, receipts)
            results = await self._results(validated.batch, receipts, waits=waits)
        return 200, many_results(validated, results)

    def _validated(self, lines: bytes) -> Validated:
        validator = self._columnar if len(lines) >= _COLUMNAR_BYTES_MIN else self._plain
        return validator.validate(lines, 1) if lines else Validated(_NOTHING, [], 0)

    async def _submit(self, grant: Grant, batch: Batch) -> Receipts:
        grant.charge(len(batch))
        return await self._desk.submit(batch, transport=TRANSPORT, patient=False)

    def _count_invalid(self, invalid: Sequence[Invalid]) -> None:
        for reason, rows in Counter(row.reason for row in invalid).items():
            self._metrics.invalid(TRANSPORT, reason, rows)

    # --- what became of rows -----------------------------------------------------------------------------------

    async def _results(self, batch: Batch, receipts: Receipts, *, waits: bool) -> list[Result]:
        """Results of durable rows. What cannot be told for now is null: it is durable all the same."""
        results = results_of(receipts)
        told = _told(receipts, waits=waits)
        for index in told.tolist():
            results[index].update({"outcome": None, "balance": None} if waits else {"outcome": None})
        if not len(told) or (waits and not await self._desk.applied(receipts)):
            return results
        rows, picked = batch.pick(told), [results[index] for index in told.tolist()]
        with suppress(PassingFault, ShardStopped):
            await self._tell_outcomes(rows, receipts.pick(told), picked)
            if waits:
                await self._tell_balances(rows, picked)
        return results

    async def _tell_outcomes(self, rows: Batch, receipts: Receipts, results: Sequence[Result]) -> None:
        movements = await self._desk.outcomes(rows, receipts)
        for movement, result in zip(movements, results, strict=True):
            if movement is None:
                continue
            result["outcome"] = movement.outcome
            if movement.outcome == Refusal.DUPLICATE_TX and movement.tx is not None:
                await self._tell_repeat(movement, movement.tx, result)

    async def _tell_repeat(self, repeat: Movement, tx: int, result: Result) -> None:
        """A repeat that was appended before the first was known here: answered as if it had been known."""
        history = await self._desk.history(tx)
        uses = (use for use in history if use.shard == repeat.shard and use.kind.value in MOVING)
        first = next(uses, None)
        if first is None:
            return
        same = (first.kind, first.account, first.amount) == (repeat.kind, repeat.account, repeat.amount)
        result["entry"] = f"{first.shard}/{first.entry}"
        result["status"] = "duplicate" if same else "conflict"
        result["outcome"] = first.outcome
        if not same:
            result.pop("outcome")
            result.pop("balance", None)

    async def _tell_balances(self, rows: Batch, results: Sequence[Result]) -> None:
        standings = await self._desk.standings(np.unique(rows.accounts).tolist())
        balances = {account: balance_of(standing.account) for account, standing in standings.items()}
        for account, result in zip(rows.accounts.tolist(), results, strict=True):
            if "balance" in result:
                result["balance"] = balances.get(account)


_NOTHING: Final = Batch.of("", (), (), (), ())


def _required_form(headers: Mapping[bytes, bytes]) -> BodyForm:
    """Raises Refused for a body that is not read: in another form than ours, or compressed."""
    encoding = headers.get(b"content-encoding", b"identity")
    if encoding.strip().lower() != b"identity":
        raise Refused(415, "bad_encoding", "a body is taken as it is: send it without Content-Encoding")
    form = body_form(headers.get(b"content-type", b""))
    if form is None:
        raise Refused(
            415,
            "bad_media_type",
            "the body must be application/json or application/x-ndjson, in UTF-8: say so in Content-Type",
        )
    return form


async def _whole_body(receive: types.Receive) -> bytes | None:
    """All of it; None when the client is gone, or was told meanwhile that too much came, or too late."""
    pieces: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        pieces.append(message["body"])
        if not message["more_body"]:
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _headers(length: int) -> list[tuple[bytes, bytes]]:
    return [(b"content-type", b"application/json"), (b"content-length", b"%d" % length)]


def _told(receipts: Receipts, *, waits: bool) -> NDArray[np.intp]:
    """Rows that have an outcome: all but conflicts when it is waited for, else those that were sent before."""
    statuses = receipts.statuses
    return np.flatnonzero(statuses != Status.CONFLICT if waits else statuses == Status.DUPLICATE)
