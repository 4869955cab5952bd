"""Parts of which an OpenAPI document is made."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

Node: TypeAlias = dict[str, Any]
"""A part of a JSON document."""


def refusals(scope: str) -> Node:
    """What any request of some scope may be answered with."""
    return {
        "400": error("What was sent cannot be read: no JSON, an unknown option, or no HTTP."),
        "401": error("No token, or none that is known."),
        "403": error(
            f"The token has not the scope {scope.lower()}; or, where none is needed, a page of another place sends."
        ),
        **misdirected(),
    }


def misdirected() -> Node:
    """What any request may be answered with that names another host."""
    told = (
        "No token is needed, and Host is neither an address by number, localhost, nor a name of this machine."
    )
    return {"421": error(told)}


def answer(description: str, *names: str) -> Node:
    """An answer in JSON, of one of these schemas."""
    found = [reference(name) for name in names]
    schema = found[0] if len(found) == 1 else {"anyOf": found}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def error(description: str) -> Node:
    """An answer that says what is wrong."""
    return answer(description, "Error")


def object_of(required: Mapping[str, object], optional: Mapping[str, object] | None = None) -> Node:
    """A closed object."""
    names: Sequence[str] = list(required)
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": names,
        "additionalProperties": False,
    }


def reference(name: str) -> Node:
    """A schema by its name."""
    return {"$ref": f"#/components/schemas/{name}"}
