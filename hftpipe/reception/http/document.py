"""What this service offers over HTTP, as an OpenAPI document; the page for people is made of it."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import orjson

from hftpipe.config import LINE_BYTES_MAX, ServeLimits
from hftpipe.core.ledger import Refusal
from hftpipe.core.transaction import INT64_MAX
from hftpipe.validation import InvalidReason
from hftpipe.validation.fields import FIELDS, LETTER_OF_KIND

Node: TypeAlias = dict[str, Any]
"""A part of a JSON document."""

VERSION: Final = "1"

_KINDS: Final = list(LETTER_OF_KIND)
_IDENTIFIER: Final[Node] = {"type": "integer", "format": "int64", "minimum": 0, "maximum": INT64_MAX}
_MONEY: Final[Node] = {"type": "string", "pattern": r"^-?(0|[1-9]\d*)\.\d{4}$", "examples": ["6.5000"]}
_ENTRY: Final[Node] = {
    "type": "string",
    "pattern": r"^\d+/\d+-\d+$",
    "description": "Where it stands in the log: shard/entry.",
    "examples": ["3/1-1042"],
}
_OUTCOME: Final[Node] = {
    "enum": ["applied", *Refusal, None],
    "description": "`applied`, or why the ledger refused it; null while it is not known.",
}


def document(limits: ServeLimits) -> bytes:
    """The document, as JSON."""
    return orjson.dumps(tree(limits))


def tree(limits: ServeLimits) -> Node:
    """The same as an object."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "hftpipe",
            "version": VERSION,
            "description": (
                "Takes account transactions, and answers when they are durable: on disk in the log, to be applied "
                "exactly once. To send a transaction again, with the same tx, is always safe."
            ),
        },
        "paths": {
            "/v1/transactions": {"post": _submit(limits)},
            "/v1/accounts/{account}": {"get": _read_account()},
            "/v1/transactions/{tx}": {"get": _read_transaction()},
            "/metrics": {"get": _read_metrics()},
            "/healthz": {"get": _probe("Whether the process lives", "alive", ready=False)},
            "/readyz": {"get": _probe("Whether transactions are taken now", "ready", ready=True)},
        },
        "components": {
            "schemas": _schemas(limits),
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A secret that `hftpipe token add` has made; not asked for without a token file.",
                }
            },
        },
    }


# --- operations -------------------------------------------------------------------------------------------------


def _submit(limits: ServeLimits) -> Node:
    one, many = _reference("Transaction"), _reference("Transactions")
    answers = {
        "200": _answer("Durable, or sent before; of several, each has a result.", "Result", "Results"),
        "409": _answer("This tx was used before, with other content; nothing was appended.", "Conflict"),
        "422": _answer("The one transaction that was sent breaks a rule.", "Invalid"),
        "408": _error("The body did not come in time."),
        "413": _error("More bytes or transactions than one request may have."),
        "415": _error("Another form than JSON or JSON Lines in UTF-8."),
        "429": _error(
            "A shard's backlog is full, or the token's rate is used up: Retry-After says when to try."
        ),
        "503": _error(
            "The log is away: Retry-After says when to try. in_doubt: it may be taken all the same."
        ),
    }
    return {
        "operationId": "submit",
        "summary": "Send one transaction, or many",
        "description": (
            "An object, an array of them, or one on each line. Those of a request keep their order. A row that "
            "breaks a rule harms no other. "
            f"At most {limits.body_transactions_max} transactions in {limits.body_bytes_max} bytes, "
            f"{LINE_BYTES_MAX} bytes each."
        ),
        "security": [{"token": []}],
        "parameters": [
            {
                "name": "wait",
                "in": "query",
                "description": (
                    "What to wait for: that all is durable, or that it is applied as well, with outcome and balance."
                ),
                "schema": {"enum": ["durable", "applied"], "default": "durable"},
            }
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"anyOf": [one, many]}, "example": _EXAMPLE},
                "application/x-ndjson": {
                    "schema": {"type": "string", "contentMediaType": "application/x-ndjson"},
                    "example": '{"type":"deposit","account":1,"tx":1,"amount":"10.00"}\n',
                },
            },
        },
        "responses": {**answers, **_refusals("SUBMIT")},
    }


def _read_account() -> Node:
    return {
        "operationId": "account",
        "summary": "An account's balance",
        "security": [{"token": []}],
        "parameters": [_in_path("account")],
        "responses": {
            "200": _answer("As it is after all that was applied up to `entry`.", "Account"),
            "404": _error("No applied transaction has named it."),
            "503": _error("The store cannot be read for now."),
            **_refusals("READ"),
        },
    }


def _read_transaction() -> Node:
    return {
        "operationId": "transaction",
        "summary": "What became of a transaction id",
        "security": [{"token": []}],
        "parameters": [_in_path("tx")],
        "responses": {
            "200": _answer("The transaction that took the id, and what named it since.", "History"),
            "404": _error("No applied transaction has named it."),
            "503": _error("The store cannot be read for now."),
            **_refusals("READ"),
        },
    }


def _read_metrics() -> Node:
    return {
        "operationId": "metrics",
        "summary": "Counts and times, for Prometheus",
        "security": [{"token": []}],
        "responses": {
            "200": {
                "description": "Its text format.",
                "content": {"text/plain": {"schema": {"type": "string"}}},
            },
            **_refusals("READ"),
        },
    }


def _probe(summary: str, word: str, *, ready: bool) -> Node:
    schema = _object({"status": {"const": word}})
    answers = {"200": {"description": "Yes.", "content": {"application/json": {"schema": schema}}}}
    if ready:
        answers["503"] = _error("No; the message says why.")
    answers["400"] = _error("It has no options.")
    return {"operationId": word, "summary": summary, "responses": answers}


def _refusals(scope: str) -> Node:
    return {
        "400": _error("What was sent cannot be read: no JSON, an unknown option, or no HTTP."),
        "401": _error("No token, or none that is known."),
        "403": _error(f"The token has not the scope {scope.lower()}."),
    }


def _answer(description: str, *names: str) -> Node:
    found = [_reference(name) for name in names]
    schema = found[0] if len(found) == 1 else {"anyOf": found}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _error(description: str) -> Node:
    return _answer(description, "Error")


def _in_path(name: str) -> Node:
    return {"name": name, "in": "path", "required": True, "schema": _IDENTIFIER}


# --- schemas ----------------------------------------------------------------------------------------------------

_EXAMPLE: Final[Node] = {"type": "deposit", "account": 1, "tx": 1, "amount": "10.00"}


def _schemas(limits: ServeLimits) -> Node:
    durable = {"status": {"enum": ["durable", "duplicate"]}, "entry": _ENTRY}
    conflict: Node = {"status": {"const": "conflict"}, "entry": _ENTRY}
    invalid: Node = {
        "status": {"const": "invalid"},
        "field": {"type": "string", "examples": [field.name for field in FIELDS]},
        "reason": {"enum": list(InvalidReason)},
    }
    applied: Node = {"outcome": _OUTCOME, "balance": {"anyOf": [_reference("Balance"), {"type": "null"}]}}
    index: Node = {"index": {"type": "integer", "minimum": 0}}
    results = [
        _object({**index, **durable}, applied),
        _object({**index, **conflict}),
        _object({**index, **invalid}),
    ]
    counts = {
        name: {"type": "integer", "minimum": 0} for name in ("durable", "duplicate", "conflict", "invalid")
    }
    movement = _movement()
    nullable = {name: {"anyOf": [schema, {"type": "null"}]} for name, schema in movement.items()}
    history = {"type": "array", "items": _object(movement)}
    return {
        "Transaction": _transaction(),
        "Transactions": {
            "type": "array",
            "items": _reference("Transaction"),
            "maxItems": limits.body_transactions_max,
        },
        "Result": _object(durable, applied),
        "Conflict": _object(conflict),
        "Invalid": _object(invalid),
        "Results": _object(
            {"results": {"type": "array", "items": {"anyOf": results}}, "counts": _object(counts)}
        ),
        "Balance": _object(_balance()),
        "Account": _object({"account": _IDENTIFIER, **_balance(), "entry": _ENTRY}),
        "History": _object(
            {
                "tx": _IDENTIFIER,
                **nullable,
                "history": history,
                "has_more": {
                    "type": "boolean",
                    "description": f"Whether there are more than the first {limits.history_rows_max}.",
                },
            }
        ),
        "Error": _object(
            {"error": {"type": "string"}, "message": {"type": "string"}}, {"in_doubt": {"type": "boolean"}}
        ),
    }


def _transaction() -> Node:
    amount: Node = {
        "anyOf": [
            {"type": "string", "pattern": r"^(0|[1-9][0-9]{0,12})\.[0-9]{0,3}[1-9]$"},
            {"type": "string", "pattern": r"^[1-9][0-9]{0,12}(\.[0-9]{1,4})?$"},
            {"type": "integer", "minimum": 1, "maximum": 10**13},
        ],
        "description": "In units, with four decimals at most; as a string, or an integer.",
        "examples": ["10.00"],
    }
    named = {"account": _IDENTIFIER, "tx": _IDENTIFIER}
    # Amounts belong to those that move money.
    moving = _object({"type": {"enum": ["deposit", "withdrawal"]}, **named, "amount": amount})
    others = _object(
        {"type": {"enum": [kind for kind in _KINDS if kind not in ("deposit", "withdrawal")]}, **named}
    )
    return {
        "anyOf": [moving, others],
        "description": "A dispute, resolve or chargeback names the deposit that it is about.",
    }


def _balance() -> Node:
    return {"available": _MONEY, "held": _MONEY, "total": _MONEY, "locked": {"type": "boolean"}}


def _movement() -> Node:
    return {
        "kind": {"enum": _KINDS},
        "account": _IDENTIFIER,
        "amount": {"anyOf": [_MONEY, {"type": "null"}]},
        "outcome": {"type": "string"},
        "entry": _ENTRY,
        "source": {"type": "string"},
        "row": {"type": "integer", "minimum": 1},
        "time_ms": {"type": "integer", "description": "Unix time of its append."},
    }


def _object(required: Mapping[str, object], optional: Mapping[str, object] | None = None) -> Node:
    names: Sequence[str] = list(required)
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": names,
        "additionalProperties": False,
    }


def _reference(name: str) -> Node:
    return {"$ref": f"#/components/schemas/{name}"}
