"""A statement over all shards of a home at one moment, live.

Up to as many shards as SQLite attaches to one connection are read where they are. What is decoded from the journal,
and everything where there are more shards, is copied into temporary tables first: only the columns that the statement
reads.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hftpipe.errors import HftpipeError, Interrupted, UsageError
from hftpipe.export.decided import Filler, decided, wanted_columns
from hftpipe.export.moment import Moment, Shard, begun_together, check_together, opened_shard, stores_of
from hftpipe.export.relations import (
    DECIMAL_VIEWS,
    RELATIONS,
    TRANSACTIONS,
    Relation,
    attachment,
    insertion,
    selection,
    temporary_table,
    temporary_view,
)
from hftpipe.export.statement import MEET_FUNCTIONS, Statement, authorize
from hftpipe.export.telling import LOOK_STEPS, Telling
from hftpipe.store.reading import reading_uri
from hftpipe.store.sqlite import BUSY_TIMEOUT_MS, check_version, translated

_SETTINGS: Final = (
    "PRAGMA temp_store=FILE",
    "PRAGMA temp.journal_mode=OFF",
    "PRAGMA temp.synchronous=OFF",
    "PRAGMA temp.cache_size=-65536",
    "PRAGMA trusted_schema=OFF",
    MEET_FUNCTIONS,
)
_STATEMENTS_FAULTS: Final = frozenset(
    {
        sqlite3.SQLITE_ERROR,
        sqlite3.SQLITE_AUTH,
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_RANGE,
        sqlite3.SQLITE_TOOBIG,
    }
)


@dataclass(frozen=True, slots=True)
class Result:
    """What a statement gave. columns: their names, each once. rows: as they come, while the query is open."""

    columns: Sequence[str]
    rows: Iterator[tuple[object, ...]]


@contextmanager
def answered(home: Path, statement: Statement, telling: Telling) -> Iterator[Result]:
    """Runs a statement; the rows are read in the body.

    Raises UsageError when the home holds nothing, or the statement fails; Interrupted; StoreUnavailable, StoreDamaged.
    """
    with ExitStack() as stack:
        connection = sqlite3.connect(
            ":memory:", isolation_level=None, timeout=BUSY_TIMEOUT_MS / 1000, uri=True
        )
        stack.callback(connection.close)
        with _translated(home, telling):
            for setting in _SETTINGS:
                connection.execute(setting)
            connection.set_progress_handler(telling.stopping, LOOK_STEPS)
            _prepare(connection, stack, home, statement, telling)
            connection.execute("PRAGMA query_only=ON")
            connection.set_authorizer(authorize(lambda *_: True))
            cursor = connection.execute(statement.text, dict(statement.parameters))
            stack.callback(cursor.close)  # a statement that is not at its end would keep the databases open
            columns = [name for name, *_ in cursor.description or ()]
            yield Result(_each_once(columns), _rows(cursor, home, telling))


def _prepare(
    connection: sqlite3.Connection, stack: ExitStack, home: Path, statement: Statement, telling: Telling
) -> None:
    """All that the statement reads is there afterwards, under its name."""
    used = [
        (relation, statement.used[relation.name]) for relation in RELATIONS if relation.name in statement.used
    ]
    paths = stores_of(home)
    is_attached = len(paths) <= connection.getlimit(sqlite3.SQLITE_LIMIT_ATTACHED)
    shards = (
        _attached(connection, paths, telling)
        if is_attached
        else stack.enter_context(Moment(home, telling.warn)).shards
    )
    for relation, named in used:
        if relation is TRANSACTIONS:
            _fill_transactions(connection, shards, named, telling)
        elif is_attached:
            columns = list(relation.columns)
            parts = (selection(relation, shard.number, shard.database, columns) for shard in shards)
            connection.execute(temporary_view(relation.name, " UNION ALL ".join(parts)))
        else:
            _copy(connection, shards, relation, named, telling)
    for name, query in DECIMAL_VIEWS.items():
        connection.execute(temporary_view(name, query))


def _attached(connection: sqlite3.Connection, paths: Sequence[Path], telling: Telling) -> list[Shard]:
    databases = [(path, path.stem.replace("-", "_")) for path in paths]
    for path, database in databases:
        with translated(path):
            connection.execute(attachment(database), (reading_uri(path),))

    def begin() -> list[Shard]:
        """The first look at each database comes before any other."""
        connection.execute("BEGIN")
        for path, database in databases:
            with translated(path):
                check_version(connection, path, database)
        return [opened_shard(path, connection, database) for path, database in databases]

    def end() -> None:
        connection.execute("ROLLBACK")

    shards = begun_together(begin, end, telling.warn)
    check_together(shards)
    return shards


def _copy(
    connection: sqlite3.Connection,
    shards: Sequence[Shard],
    relation: Relation,
    columns: frozenset[str],
    telling: Telling,
) -> None:
    named = [name for name in relation.columns if name in columns] or ["shard"]
    connection.execute(temporary_table(relation, named))
    statement = insertion(relation, named, [f"({', '.join('?' * len(named))})"])
    for shard in shards:
        connection.executemany(statement, shard.rows(relation, named))
        telling.check()


def _fill_transactions(
    connection: sqlite3.Connection, shards: Sequence[Shard], columns: frozenset[str], telling: Telling
) -> None:
    wanted = {name for names in wanted_columns(columns) for name in names}
    connection.execute(
        temporary_table(TRANSACTIONS, [name for name in TRANSACTIONS.columns if name in wanted])
    )
    filler = Filler(connection, columns)
    telling.begin(sum(shard.transactions for shard in shards))
    for shard in shards:
        for part in decided(shard, columns):
            filler.write(part)
            telling.advance(part.count)
            telling.check()


def _rows(cursor: sqlite3.Cursor, home: Path, telling: Telling) -> Iterator[tuple[object, ...]]:
    with _translated(home, telling):
        for row in cursor:
            yield tuple(value.hex() if isinstance(value, bytes) else value for value in row)


@contextmanager
def _translated(home: Path, telling: Telling) -> Iterator[None]:
    """Tells apart what the statement did wrong, and what happened to the databases or to the temporary tables."""
    try:
        with translated(home):
            try:
                yield
            except sqlite3.Error as error:
                if telling.stopping():
                    raise Interrupted("stopped before all was answered") from error
                code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
                if code in _STATEMENTS_FAULTS:
                    raise UsageError(f"the statement cannot be run: {error}") from error
                raise
    except HftpipeError:
        telling.check()  # told to stop, whatever it led to
        raise


def _each_once(names: Sequence[str]) -> list[str]:
    """`account`, and `account_2` for another column of that name."""
    found: list[str] = []
    for name in names:
        same, other = 1, name
        while other in found:
            same += 1
            other = f"{name}_{same}"
        found.append(other)
    return found
