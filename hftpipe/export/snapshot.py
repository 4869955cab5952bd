"""One consistent SQLite file of all shards, for other tools."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hftpipe.errors import HftpipeError, Interrupted
from hftpipe.export.decided import Filler, decided
from hftpipe.export.moment import Moment, Shard
from hftpipe.export.relations import DECIMAL_VIEWS, INDEXES, RELATIONS, TRANSACTIONS, Relation, insertion
from hftpipe.export.target import check_target, whole_file
from hftpipe.export.telling import LOOK_STEPS, Telling

if TYPE_CHECKING:
    from sqlite_utils import Database

_SETTINGS: Final = (
    "PRAGMA page_size=16384",
    "PRAGMA journal_mode=OFF",  # it is a draft: whatever goes wrong, it is thrown away
    "PRAGMA synchronous=OFF",  # synced as a whole at the end
    "PRAGMA locking_mode=EXCLUSIVE",
    "PRAGMA temp_store=FILE",
    # Measured: an index over 2 M rows is sorted in half the time with small runs and a second thread.
    "PRAGMA cache_size=-4096",
    "PRAGMA threads=2",
)
_END: Final = ("PRAGMA analysis_limit=1000", "ANALYZE", "COMMIT")


@dataclass(frozen=True, slots=True)
class Taken:
    """What a snapshot holds: transactions are those of its table, 0 without one."""

    shards: int
    accounts: int
    transactions: int
    size_bytes: int


def take_snapshot(
    home: Path, target: Path, telling: Telling, *, force: bool, with_transactions: bool
) -> Taken:
    """Writes the file: whole, or not at all.

    Raises UsageError when nothing may be written there, or the home holds nothing; StoreUnavailable and StoreDamaged
    for a shard that cannot be read; Interrupted; HftpipeError and OSError when the file cannot be written.
    """
    check_target(target, home, force=force)
    relations = RELATIONS if with_transactions else RELATIONS[: RELATIONS.index(TRANSACTIONS)]
    with Moment(home, telling.warn) as moment, whole_file(target, force=force) as draft:
        with _writing(draft, target, telling) as connection:
            taken = _fill(connection, moment.shards, relations, telling)
        return Taken(*taken, draft.stat().st_size)


@contextmanager
def _writing(draft: Path, target: Path, telling: Telling) -> Iterator[sqlite3.Connection]:
    try:
        with closing(sqlite3.connect(draft, isolation_level=None)) as connection:
            for setting in _SETTINGS:
                connection.execute(setting)
            connection.set_progress_handler(telling.stopping, LOOK_STEPS)
            yield connection
    except sqlite3.Error as error:
        if telling.stopping():
            raise Interrupted(f"stopped; {target} was not written") from error
        raise HftpipeError(
            f"{target} cannot be written: {error}. Nothing of it is left; make room, or name another place, "
            "and run the same command again"
        ) from error


def _fill(
    connection: sqlite3.Connection, shards: Sequence[Shard], relations: Sequence[Relation], telling: Telling
) -> tuple[int, int, int]:
    """Numbers of shards, accounts and transactions."""
    from sqlite_utils import Database  # a third of a second: for who needs it

    database = Database(connection)
    connection.execute("BEGIN")
    for relation in relations:
        _create(database, relation)
    telling.begin(sum(shard.transactions for shard in shards) if TRANSACTIONS in relations else 0)
    written = 0
    for relation in relations:
        for shard in shards:
            if relation is TRANSACTIONS:
                written += _write_transactions(connection, shard, telling)
            else:
                _write(connection, shard, relation, telling)
    for relation in relations:
        for columns in INDEXES.get(relation.name, ()):
            database.table(relation.name).create_index(columns)
    for name, query in DECIMAL_VIEWS.items():
        if TRANSACTIONS in relations or not query.endswith(f"FROM {TRANSACTIONS.name}"):
            database.create_view(name, query)
    for statement in _END:
        connection.execute(statement)
    return len(shards), database.table("balances").count, written


def _create(database: "Database", relation: Relation) -> None:
    database.table(relation.name).create(
        dict(relation.columns),
        pk=tuple(relation.key) if len(relation.key) > 1 else (relation.key[0] if relation.key else None),
        not_null=set(relation.columns) - {"tx"} if relation is TRANSACTIONS else set(relation.columns),
        foreign_keys=[(column, *other) for column, other in relation.references.items()],
        strict=True,
    )


def _write(connection: sqlite3.Connection, shard: Shard, relation: Relation, telling: Telling) -> None:
    columns = list(relation.columns)
    statement = insertion(relation, columns, [f"({', '.join('?' * len(columns))})"])
    connection.executemany(statement, shard.rows(relation, columns))
    telling.check()


def _write_transactions(connection: sqlite3.Connection, shard: Shard, telling: Telling) -> int:
    filler, written = Filler(connection, TRANSACTIONS.columns), 0
    for part in decided(shard, TRANSACTIONS.columns):
        filler.write(part)
        written += part.count
        telling.advance(part.count)
        telling.check()
    return written
