"""All commands by name: each stands in a module of its name, and is imported when it is asked for.

To import all of them takes longer than some of them take.
"""

from functools import cache
from importlib import import_module
from typing import Final

import click

NAMES: Final = (
    "run",
    "ingest",
    "serve",
    "send",
    "validate",
    "worker",
    "up",
    "balances",
    "status",
    "top",
    "monitoring",
    "show",
    "tail",
    "replay",
    "verify",
    "snapshot",
    "query",
    "dead",
    "repair",
    "token",
    "generate",
    "bench",
    "redis",
)


@cache
def command(name: str) -> click.Command:
    """One of NAMES."""
    found: click.Command = getattr(import_module(f"hftpipe.cli.{name}"), name)
    return found


def commands() -> tuple[click.Command, ...]:
    """All of them."""
    return tuple(command(name) for name in NAMES)
