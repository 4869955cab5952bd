"""What this service offers over HTTP, as an OpenAPI document; the page for people is made of it."""

from typing import Final

import orjson

from hftpipe.config import LINE_BYTES_MAX, ServeLimits
from hftpipe.core.ledger import Refusal
from hftpipe.core.transaction import INT64_MAX
from hftpipe.reception.http.dashboard.document import console_paths, console_schemas
from hftpipe.reception.http.openapi import Node, answer, error, misdirected, object_of, reference, refusals
from hftpipe.validation import InvalidReason
from hftpipe.validation.fields import FIELDS, LETTER_OF_KIND

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
            **console_paths(),
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
    one, many = reference("Transaction"), reference("Transactions")
    answers = {
        "200": answer("Durable, or sent before; of several, each has a result.", "Result", "Results"),
        "409": answer("This tx was used before, with other content; nothing was appended.", "Conflict"),
        "422": answer("The one transaction that was sent breaks a rule.", "Invalid"),
        "408": error("The body did not come in time."),
        "413": error("More bytes or transactions than one request may have."),
        "415": error("Another form than JSON or JSON Lines in UTF-8."),
        "429": error(
            "A shard's backlog is full, or the token's rate is used up: Retry-After says when to try."
        ),
        "503": error(
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
        "responses": {**answers, **refusals("SUBMIT")},
    }


def _read_account() -> Node:
    return {
        "operationId": "account",
        "summary": "An account's balance",
        "security": [{"token": []}],
        "parameters": [_in_path("account")],
        "responses": {
            "200": answer("As it is after all that was applied up to `entry`.", "Account"),
            "404": error("No applied transaction has named it."),
            "503": error("The store cannot be read for now."),
            **refusals("READ"),
        },
    }


def _read_transaction() -> Node:
    return {
        "operationId": "transaction",
        "summary": "What became of a transaction id",
        "security": [{"token": []}],
        "parameters": [_in_path("tx")],
        "responses": {
            "200": answer("The transaction that took the id, and what named it since.", "History"),
            "404": error("No applied transaction has named it."),
            "503": error("The store cannot be read for now."),
            **refusals("READ"),
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
            **refusals("READ"),
        },
    }


def _probe(summary: str, word: str, *, ready: bool) -> Node:
    schema = object_of({"status": {"const": word}})
    answers = {"200": {"description": "Yes.", "content": {"application/json": {"schema": schema}}}}
    if ready:
        answers["503"] = error("No; the message says why.")
    answers["400"] = error("It has no options.")
    return {"operationId": word, "summary": summary, "responses": {**answers, **misdirected()}}


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
    applied: Node = {"outcome": _OUTCOME, "balance": {"anyOf": [reference("Balance"), {"type": "null"}]}}
    index: Node = {"index": {"type": "integer", "minimum": 0}}
    results = [
        object_of({**index, **durable}, applied),
        object_of({**index, **conflict}),
        object_of({**index, **invalid}),
    ]
    counts = {
        name: {"type": "integer", "minimum": 0} for name in ("durable", "duplicate", "conflict", "invalid")
    }
    movement = _movement()
    nullable = {name: {"anyOf": [schema, {"type": "null"}]} for name, schema in movement.items()}
    history = {"type": "array", "items": object_of(movement)}
    return {
        "Transaction": _transaction(),
        "Transactions": {
            "type": "array",
            "items": reference("Transaction"),
            "maxItems": limits.body_transactions_max,
        },
        "Result": object_of(durable, applied),
        "Conflict": object_of(conflict),
        "Invalid": object_of(invalid),
        "Results": object_of(
            {"results": {"type": "array", "items": {"anyOf": results}}, "counts": object_of(counts)}
        ),
        "Balance": object_of(_balance()),
        "Account": object_of({"account": _IDENTIFIER, **_balance(), "entry": _ENTRY}),
        "History": object_of(
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
        **console_schemas(),
        "Error": object_of(
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
    moving = object_of({"type": {"enum": ["deposit", "withdrawal"]}, **named, "amount": amount})
    others = object_of(
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
