"""One SQL statement of a person, judged before it sees any data.

It is compiled against empty tables: that tells which columns of which relations it reads, whether it would change
anything, and where it is wrong.
"""

import re
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Final

from hftpipe.errors import UsageError
from hftpipe.export.relations import DECIMAL_VIEWS, RELATIONS, temporary_table, temporary_view

Parameters = Mapping[str, int | str]

_FIRST_WORDS: Final = frozenset({"select", "with", "values", "explain"})
_HIDDEN: Final = "hidden_"
"""Before the names of the tables that stand behind the relations here."""

_RELATIONS: Final = {relation.name: relation for relation in RELATIONS}
_COLUMNS: Final = {relation.name: tuple(relation.columns) for relation in RELATIONS}
_ROW_IDS: Final = frozenset({"ROWID", "OID", "_ROWID_"})
_JOINS_BY_NAME: Final = re.compile(r"\b(?:using|natural)\b", re.IGNORECASE)
MEET_FUNCTIONS: Final = "SELECT 1 FROM json_each('[]'), json_tree('[]')"
"""Run on a connection before it is kept from doing more than reading: SQLite declares their columns like a table."""

_READABLE: Final = frozenset({"json_each", "json_tree"})
_FORBIDDEN_FUNCTIONS: Final = frozenset({"load_extension", "fts3_tokenizer", "readfile", "writefile", "edit"})
_ASIDE: Final = re.compile(r"'(?:[^']|'')*'|--[^\n]*|/\*.*?(?:\*/|\Z)", re.DOTALL)
"""Texts and comments."""
_TOKEN_AT_FAULT: Final = re.compile(r'(?:near|unrecognized token:) "(.*)"(?:: syntax error)?', re.DOTALL)
_NAME_AT_FAULT: Final = re.compile(
    r"(?:no such (?:column|table|function)|ambiguous column name|wrong number of arguments to function|"
    r"misuse of (?:aggregate|window function)(?: function)?):? (\S+?)(?:\(\))?"
)
_PLACES_MAX: Final = 1_000
_PARAMETER: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_INTEGER: Final = re.compile(r"-?[0-9]{1,19}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement that only reads. used: the columns that it reads, of each relation that it names."""

    text: str
    parameters: Parameters
    used: Mapping[str, frozenset[str]]


def parse_parameters(texts: tuple[str, ...]) -> dict[str, int | str]:
    """Reads `name=value`; a value that looks like an integer of 64 bits is one. Raises UsageError."""
    parameters: dict[str, int | str] = {}
    for text in texts:
        found = _PARAMETER.fullmatch(text)
        if found is None or found[1] in parameters:
            raise UsageError(f"--param {text} is not like name=value, or names it twice")
        value = found[2]
        is_integer = _INTEGER.fullmatch(value) and -(2**63) <= int(value) < 2**63
        parameters[found[1]] = int(value) if is_integer else value
    return parameters


def judge(text: str, parameters: Parameters) -> Statement:
    """Raises UsageError for what is no single statement, does not compile, or would do more than read."""
    bare = _ASIDE.sub(_blank, text)
    first = re.match(r"[\s;]*([A-Za-z]*)", bare)
    if first is None or first[1].lower() not in _FIRST_WORDS:
        raise UsageError("only one statement that reads is taken: SELECT, WITH, VALUES or EXPLAIN")
    for name in parameters:
        if not re.search(rf"[:@$]{name}\b", bare):
            raise UsageError(f"the statement has no parameter :{name}")
    used: dict[str, set[str]] = {}
    with closing(_empty(_COLUMNS)) as connection:
        error = _compiled(connection, text, parameters, used)
        if error is not None:
            raise UsageError(
                _told(text, str(error), lambda part: _compiled(connection, part, parameters, {}))
            )
    # What a join compares by the names of columns alone is not told.
    if _JOINS_BY_NAME.search(bare) or not _is_enough(text, parameters, used):
        used = {name: set(_COLUMNS[name]) for name in used}
    return Statement(text, parameters, {name: frozenset(columns) for name, columns in used.items()})


def authorize(read: Callable[[str, str], bool]) -> Callable[..., int]:
    """What keeps a connection from doing more than reading; `read` says whether a table's column may be."""

    def may(action: int, first: str | None, second: str | None, *_: str | None) -> int:
        if action == sqlite3.SQLITE_READ:
            return sqlite3.SQLITE_OK if read(first or "", second or "") else sqlite3.SQLITE_DENY
        if action == sqlite3.SQLITE_FUNCTION:
            is_safe = (second or "").lower() not in _FORBIDDEN_FUNCTIONS
            return sqlite3.SQLITE_OK if is_safe else sqlite3.SQLITE_DENY
        is_reading = action in {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE}
        return sqlite3.SQLITE_OK if is_reading else sqlite3.SQLITE_DENY

    return may


def _empty(columns: Mapping[str, Collection[str]]) -> sqlite3.Connection:
    """The relations without a row, with these columns; views, as the live ones are."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute(MEET_FUNCTIONS)
    for name, named in columns.items():
        hidden = replace(_RELATIONS[name], name=_HIDDEN + name)
        connection.execute(temporary_table(hidden, list(named) or ["shard"]))
        connection.execute(temporary_view(name, f"SELECT * FROM {hidden.name}"))  # noqa: S608 - a constant
    for name, query in DECIMAL_VIEWS.items():
        connection.execute(temporary_view(name, query))
    return connection


def _is_enough(text: str, parameters: Parameters, used: Mapping[str, Collection[str]]) -> bool:
    """Whether the statement finds all that it needs in these columns."""
    with closing(_empty(used)) as connection:
        return _compiled(connection, text, parameters, {}) is None


def _compiled(
    connection: sqlite3.Connection, text: str, parameters: Parameters, used: dict[str, set[str]]
) -> Exception | None:
    """What is wrong with a statement, if anything; adds what it reads to `used`. It is not run."""

    def note(table: str, column: str) -> bool:
        name = table.removeprefix(_HIDDEN)
        if name not in _COLUMNS:
            # No column: a name of the statement's own, of which it reads none.
            return table in _READABLE or table in DECIMAL_VIEWS or not column
        named = used.setdefault(name, set())
        if name == table and column in _COLUMNS[name]:
            named.add(column)
        return column.upper() not in _ROW_IDS

    connection.set_authorizer(authorize(note))
    connection.set_progress_handler(lambda: True, 1)
    try:
        connection.execute(text, dict(parameters))
    except sqlite3.OperationalError as error:
        return None if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT else error
    except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
        return error
    return None


# --- where it is wrong ------------------------------------------------------------------------------------------


def _told(text: str, message: str, compiled: Callable[[str], Exception | None]) -> str:
    """The message, and the line with a mark below where that is known."""
    place = _place(text, message, compiled)
    if re.search("not authorized|prohibited|cannot modify", message):
        message = f"{message}: a query reads the relations, and changes nothing"
    if place is None:
        return f"the statement cannot be run: {message}"
    before = text[:place]
    line, column = before.count("\n") + 1, place - (before.rfind("\n") + 1) + 1
    shown = text.splitlines()[line - 1] if line <= len(text.splitlines()) else ""
    mark = "".join("\t" if character == "\t" else " " for character in shown[: column - 1])
    return f"the statement cannot be run: {message}, in line {line}, column {column}\n  {shown}\n  {mark}^"


def _place(text: str, message: str, compiled: Callable[[str], Exception | None]) -> int | None:
    if message == "incomplete input":
        return len(text.rstrip())
    if found := _TOKEN_AT_FAULT.fullmatch(message):
        # The parser fails at a token whatever comes behind it: the first one where it does is the one.
        for count, place in enumerate(_occurrences(text, found[1])):
            if count >= _PLACES_MAX:
                break
            if str(compiled(text[: place + len(found[1])])) == message:
                return place
    if found := _NAME_AT_FAULT.fullmatch(message):
        words = r"\W{1,3}".join(map(re.escape, found[1].split(".")))
        named = re.search(rf"(?<![\w.]){words}(?!\w)", _ASIDE.sub(_blank, text), re.IGNORECASE)
        return named.start() if named else None
    return None


def _occurrences(text: str, token: str) -> Iterator[int]:
    place = text.find(token)
    while place >= 0 and token:
        yield place
        place = text.find(token, place + 1)


def _blank(found: re.Match[str]) -> str:
    """As much room, with the same line ends."""
    return re.sub(r"[^\n]", " ", found[0])
