"""A shard's tables beside those of a store that was counted anew: schema, rows and columns."""

import sqlite3
from collections.abc import Iterator
from typing import Final

from hftpipe.audit.differing import Row, differing
from hftpipe.audit.findings import Findings

_MASTER = "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_stat%' ORDER BY type, name"
_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
_COLUMNS = "SELECT name, pk FROM pragma_table_info(?) ORDER BY cid"
_INTEGRITY = "PRAGMA integrity_check(100)"

NOT_COUNTED: Final = frozenset({"shard", "entries", "decisions"})
"""Tables that do not follow from the journal: itself, which `JournalCheck` looks at, and two of which what is bound to
the journal, or bounded by it, is looked at cell by cell. The rest of these two nothing can prove: which owner holds a
shard, how often it was owned and has beaten, why it was stopped; who has decided, when, and with which words."""

_NOT_COMPARED: Final = {"_sqlite_migrations": {"applied_at"}}
"""Columns that differ from file to file."""


def check_integrity(live: sqlite3.Connection, findings: Findings) -> None:
    """What SQLite itself finds wrong with the file. Raises sqlite3.Error."""
    for (line,) in live.execute(_INTEGRITY):
        if line != "ok":
            findings.add("database", "integrity", " ".join(str(line).split()), "ok")


def check_schema(live: sqlite3.Connection, fresh: sqlite3.Connection, findings: Findings) -> None:
    """That tables, indexes and views are those of a new file. Raises sqlite3.Error."""
    there, expected = (
        {(kind, name): f"{sql} (on {table})" for kind, name, table, sql in connection.execute(_MASTER)}
        for connection in (live, fresh)
    )
    for kind, name in sorted(there.keys() | expected.keys(), key=str):
        found, wanted = there.get((kind, name), "nothing"), expected.get((kind, name), "nothing")
        if found != wanted:
            findings.add("schema", f"{kind} {name}", found, wanted)


def check_tables(live: sqlite3.Connection, counted: sqlite3.Connection, findings: Findings) -> None:
    """That each row of each table that follows from the journal is what was counted."""
    for (table,) in counted.execute(_TABLES).fetchall():
        if table not in NOT_COUNTED:
            with findings.guard(table, "all rows", "rows that can be read"):
                _check_table(live, counted, table, findings)


def _check_table(
    live: sqlite3.Connection, counted: sqlite3.Connection, table: str, findings: Findings
) -> None:
    columns = counted.execute(_COLUMNS, (table,)).fetchall()
    names = [name for name, _ in columns if name not in _NOT_COMPARED.get(table, ())]
    keys = [name for name, place in columns if place]
    # The names are those of a file that this program has just made.
    statement = " ".join(["SELECT", ", ".join(names), "FROM", table, "ORDER BY", ", ".join(keys)])
    for there, expected in differing(live.execute(statement), counted.execute(statement), len(keys)):
        where = " ".join(
            f"{name} {cell}"
            for name, cell in zip(names, there or expected or (), strict=True)
            if name in keys
        )
        findings.add(table, where, *_told(names[len(keys) :], len(keys), there, expected))


def _told(names: list[str], keys: int, there: Row | None, expected: Row | None) -> Iterator[str]:
    """Both rows, as far as they differ."""
    places = [
        place
        for place in range(keys, keys + len(names))
        if there is None or expected is None or there[place] != expected[place]
    ]
    for row in (there, expected):
        yield "no row" if row is None else _cells(names, keys, places, row)


def _cells(names: list[str], keys: int, places: list[int], row: Row) -> str:
    cells = (row[place].hex() if isinstance(row[place], bytes) else row[place] for place in places)
    return (
        " ".join(f"{names[place - keys]}={cell}" for place, cell in zip(places, cells, strict=True))
        or "a row"
    )
