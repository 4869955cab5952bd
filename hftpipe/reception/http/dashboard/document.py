"""The part of the OpenAPI document that is about the page's questions."""

from typing import Final

from hftpipe.reception.http.openapi import Node, answer, error, object_of, reference, refusals

_COUNT: Final[Node] = {"type": "integer", "minimum": 0}
_MAYBE_COUNT: Final[Node] = {"type": ["integer", "null"], "minimum": 0}
_TEXT: Final[Node] = {"type": "string"}
_COUNTS: Final[Node] = {"type": "object", "additionalProperties": _COUNT}


def console_paths() -> Node:
    """Paths and their operations."""
    return {
        "/v1/overview": {"get": _read("overview", "How the pipeline stands", "Overview")},
        "/v1/recent": {"get": _read("recent", "How the pipeline stood in the last minutes", "Recent")},
        "/v1/me": {"get": _read("me", "What the caller's token is good for", "Caller")},
        "/v1/dead": {"get": _read("dead", "Dead letters that nobody has decided on", "DeadLetters")},
        "/v1/dead/{shard}/{entry}/retry": {"post": _decide("retry", "Append a dead letter again", "Retried")},
        "/v1/dead/{shard}/{entry}/drop": {"post": _decide("drop", "Give a dead letter up", "Dropped")},
    }


def console_schemas() -> Node:
    """What they answer."""
    return {
        **_looks(),
        "Caller": object_of(
            {
                "name": {**_TEXT, "description": "Of the token; empty where none is needed."},
                "scopes": {"type": "array", "items": {"enum": ["admin", "read", "submit"]}},
                "guarded": {"type": "boolean", "description": "Whether a token is needed at all."},
            }
        ),
        "DeadLetter": object_of(
            {
                "shard": _COUNT,
                "entry": _TEXT,
                "reason": _TEXT,
                "time_ms": {"type": ["integer", "null"]},
                "fields": {"type": "object", "additionalProperties": _TEXT},
                "decision": _TEXT,
                "note": _TEXT,
                "size_bytes": _COUNT,
                "record": _COUNT,
            }
        ),
        "DeadLetters": object_of(
            {
                "dead": {"type": "array", "items": reference("DeadLetter")},
                "count": _COUNT,
                "has_more": {"type": "boolean", "description": "Whether there are more than were counted."},
                "faults": {
                    "type": "array",
                    "items": object_of({"shard": _COUNT, "why": _TEXT}),
                    "description": "Shards that cannot be read: what letters they have is not known.",
                },
            }
        ),
        "Retried": object_of({"entry": _TEXT}),
        "Dropped": object_of({"dropped": _TEXT}),
    }


def _looks() -> Node:
    return {
        "Overview": object_of(
            {
                "time_ms": {"type": "integer", "description": "Unix time of the look."},
                "pipeline": _TEXT,
                "shards": {"type": "array", "items": _shard()},
                "transactions_in": {
                    **_MAYBE_COUNT,
                    "description": "Rows ever appended; those that wait are estimated from their entries.",
                },
                "refused_by_reason": _COUNTS,
                "invalid_by_reason": _COUNTS,
                "inbox_waiting": _MAYBE_COUNT,
                "server": {"anyOf": [_server(), {"type": "null"}]},
                "hottest": {
                    "type": "array",
                    "items": {"type": "array", "items": _COUNT, "minItems": 2, "maxItems": 2},
                    "description": "Accounts, and rows of a sample of the newest that named them.",
                },
                "problem": {**_TEXT, "description": "What could not be asked; empty when all could."},
                "transports": {
                    "type": "object",
                    "additionalProperties": reference("Transport"),
                    "description": "What came in by this process, since it began.",
                },
            }
        ),
        "Transport": object_of({"connections": _COUNT, "answered": _COUNTS, "invalid": _COUNTS}),
        "Recent": object_of(
            {
                "pipeline": _TEXT,
                "time_ms": _column({"type": "integer"}),
                "decided": {**_column(_MAYBE_COUNT), "description": "Rows ever applied or refused."},
                **dict.fromkeys(
                    ("transactions_in", "backlog", "commit_p50_ms", "commit_p99_ms"), _column(_MAYBE_COUNT)
                ),
            }
        ),
    }


def _shard() -> Node:
    of_store = ("epoch", "applied", "transactions", "refused", "skipped", "gaps", "dead")
    of_log = ("standbys", "appended", "backlog", "commit_p50_ms", "commit_p99_ms")
    return object_of(
        {
            "shard": _COUNT,
            **dict.fromkeys((*of_store, *of_log), _MAYBE_COUNT),
            "state": _TEXT,
            "owner": _TEXT,
            "backlog_seconds": {"type": ["number", "null"]},
            "reach": {"type": ["string", "null"], "description": "The first entry that the log still holds."},
        }
    )


def _column(item: Node) -> Node:
    return {"type": "array", "items": item}


def _server() -> Node:
    numbers = ("memory_bytes", "aof_bytes", "clients", "uptime_s")
    return object_of({"version": _TEXT, **dict.fromkeys(numbers, _COUNT)})


def _read(name: str, summary: str, schema: str) -> Node:
    return {
        "operationId": name,
        "summary": summary,
        "security": [{"token": []}],
        "responses": {
            "200": answer("As it is now.", schema),
            "503": error("A store cannot be read for now."),
            **refusals("READ"),
        },
    }


def _decide(name: str, summary: str, schema: str) -> Node:
    return {
        "operationId": name,
        "summary": summary,
        "description": "Needs a token with the scope admin, also where all else is open to everybody.",
        "security": [{"token": []}],
        "parameters": [_in_path("shard", r"^[0-9]{1,4}$"), _in_path("entry", r"^[0-9]{1,20}-[0-9]{1,20}$")],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": object_of({})}},
        },
        "responses": {
            "200": answer("Done; to ask again changes nothing.", schema),
            "404": error("That names no entry."),
            "409": error(
                "There is no such dead letter, or what is asked would break something: it says what."
            ),
            "413": error("The body is too long."),
            "415": error("Decisions are sent as JSON."),
            "503": error("Store or log cannot be asked for now."),
            **refusals("ADMIN"),
        },
    }


def _in_path(name: str, pattern: str) -> Node:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "pattern": pattern}}
