"""The order of the house: who may import whom, what may stand where, and that everything is written down."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

from hftpipe.cli.commands import commands
from hftpipe.cli.main import main

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "hftpipe"
MODULES = sorted(PACKAGE.rglob("*.py"))

LINES_MAX = 400
FUNCTION_LINES_MAX = 60

ALLOWED = {
    "core": {"core", "errors"},
    "validation": {"validation", "core", "config", "errors"},
    "source": {"source", "core", "config", "errors"},
    "log": {"log", "core", "config", "ports", "errors", "embedded"},
    "store": {"store", "core", "ports", "errors"},
    "embedded": {"embedded", "config", "errors"},
    "ports": {"core", "errors"},
    "worker": {"core", "ports", "config", "errors", "event", "backoff", "anchoring", "owning", "retention"},
    "retention": {"retention", "core", "ports", "errors"},
    "owning": {"core", "ports", "config", "errors", "event"},
    "anchoring": {"core", "ports", "errors"},
    "inbox": {"core", "ports", "config", "errors", "event", "backoff", "producer", "source", "validation"},
    "client": {"client", "core", "validation", "config", "errors", "backoff"},
    "producer": {"core", "ports", "config", "errors", "event", "backoff", "source"},
}
"""Data flows one way: what a room may import of the others."""

BUILDERS = {
    "wiring",
    "cli",
    "intake",
    "job",
    "status",
    "invariants",
    "upkeep",
    "bench",
    "sending",
    "audit",
    "export",
    "telemetry",
    "mending",
    "inspection",
}
"""Rooms above the adapters."""

FORBIDDEN_IN_CORE = {"time", "random", "socket", "os", "pathlib", "threading", "sqlite3", "redis", "datetime"}


def room(path: Path) -> str:
    """The folder or module right below the package."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


@cache
def tree(path: Path) -> ast.Module:
    """A module's syntax."""
    return ast.parse(path.read_text())


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, anywhere in it."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def names(path: Path) -> str:
    """A path as it is shown when a test fails."""
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", [path for path in MODULES if room(path) in ALLOWED], ids=names)
def test_imports_follow_the_flow(path: Path) -> None:
    """source → core → log → worker → store; adapters never import each other."""
    ours = {name.split(".")[1] for name in imported(path) if name.startswith("hftpipe.")}
    assert ours - {"__version__"} <= ALLOWED[room(path)]


def test_the_command_line_alone_prints() -> None:
    """stdout is for results: everything else goes through a `report` that was handed in."""
    for path in MODULES:
        if room(path) not in {"cli", "embedded"}:
            assert "click" not in set(imported(path)), path


@pytest.mark.parametrize("path", [path for path in MODULES if room(path) == "core"], ids=names)
def test_the_core_is_pure(path: Path) -> None:
    """No clock, no random, no socket, no file."""
    assert not {name.split(".")[0] for name in imported(path)} & FORBIDDEN_IN_CORE


@pytest.mark.parametrize("path", MODULES, ids=names)
def test_a_module_is_read_at_one_sitting(path: Path) -> None:
    """It says what it is for, and is short; so are its functions."""
    assert ast.get_docstring(tree(path)), "no docstring"
    assert len(path.read_text().splitlines()) <= LINES_MAX
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < FUNCTION_LINES_MAX, node.name


@pytest.mark.parametrize("path", MODULES, ids=names)
def test_what_is_public_is_documented(path: Path) -> None:
    """Public classes and functions of a module have a docstring; methods, unless a protocol documents them."""
    for node in tree(path).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name


@pytest.mark.parametrize("path", MODULES, ids=names)
def test_nothing_dangerous_is_called(path: Path) -> None:
    """No pickle, no eval, no shell, no SQL made of text."""
    text = path.read_text()
    assert not re.search(r"\b(pickle|marshal|yaml)\b|shell=True|\beval\(|\bexec\(", text)
    for call in re.findall(r"execute(?:many)?\(\s*f\"[^\"]*\"", text):
        assert re.search(r"PRAGMA user_version=\{SCHEMA_VERSION:d\}", call), call


def all_options() -> Iterator[tuple[str, click.Option]]:
    """Every option of every command."""
    for command in commands():
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                yield command.name or "", parameter


def test_every_command_and_option_is_in_the_readme() -> None:
    """A setting that is not written down does not exist for a user."""
    readme = (ROOT / "README.md").read_text()
    for command in commands():
        assert f"hftpipe {command.name}" in readme, command.name
    for name, option in all_options():
        assert max(option.opts, key=len) in readme, f"{name} {option.opts}"


def test_every_option_is_a_variable_too() -> None:
    """`--redis-url` is HFTPIPE_REDIS_URL, and so on."""
    for name, option in all_options():
        long = max(option.opts, key=len).removeprefix("--").upper().replace("-", "_")
        assert option.envvar in {f"HFTPIPE_{long}", f"HFTPIPE_{name.upper()}_{long}"}, f"{name} {long}"


@pytest.mark.parametrize("command", [main, *commands()], ids=lambda command: command.name or "hftpipe")
def test_every_help_has_an_example(command: click.Command) -> None:
    """Nobody should have to guess how a command is used."""
    assert "Examples:" in (command.help or "")
