"""All shards of a home at one moment: their databases, opened for reading before the first row is read.

They are begun one after the other. Where none has gone on when the last one is begun, all are as they were then; else
they are begun again. As long as they are held, what the workers commit goes to their write-ahead logs and stays there:
these grow.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hftpipe.descriptors import FILES_PER_STORE, allow
from hftpipe.errors import PipelineMismatch, UsageError
from hftpipe.export.relations import Relation, selection
from hftpipe.store.reading import open_reading, store_paths
from hftpipe.store.sqlite import check_version, one_row, translated

TRIES_MAX: Final = 20

_IDENTITY: Final = (
    "SELECT pipeline, shard, shards, applied + refused, number, incarnation FROM {database}.shard"
)
_POINT: Final = "SELECT number, incarnation FROM shard"
_OTHER_FILES: Final = 64


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard's database in a read transaction, on a connection that calls it `database`.

    pipeline: its id, and its number of shards. transactions: decided ones. point: its last journal record and its
    incarnation, which change with each commit.
    """

    number: int
    path: Path
    connection: sqlite3.Connection
    database: str
    pipeline: tuple[str, int]
    transactions: int
    point: tuple[int, int]

    def rows(self, relation: Relation, columns: Sequence[str]) -> Iterator[tuple[object, ...]]:
        """Some columns of the rows of a relation that is not decoded. Raises StoreUnavailable, StoreDamaged."""
        statement = selection(relation, self.number, self.database, columns)
        with translated(self.path):
            yield from self.connection.execute(statement)


class Moment:
    """Raises UsageError when the home has no stores, StoreUnavailable and StoreDamaged when one cannot be read."""

    def __init__(self, home: Path, warn: Callable[[str], None]) -> None:
        """warn: takes a line where the shards are not of one moment."""
        paths = stores_of(home)
        _make_room(len(paths))
        self._connections: list[sqlite3.Connection] = []
        self.shards: list[Shard] = []
        try:
            for path in paths:
                with translated(path):
                    self._connections.append(open_reading(path))
            opened = list(zip(paths, self._connections, strict=True))
            self.shards = begun_together(lambda: _begun(opened), lambda: _ended(opened), warn)
            check_together(self.shards)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Moment":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the databases."""
        for connection in self._connections:
            connection.close()


def _begun(opened: Sequence[tuple[Path, sqlite3.Connection]]) -> list[Shard]:
    for path, connection in opened:  # nothing else: the moments of the shards are as close as can be
        with translated(path):
            connection.execute("BEGIN")
            check_version(connection, path)
    return [opened_shard(path, connection, "main") for path, connection in opened]


def _ended(opened: Sequence[tuple[Path, sqlite3.Connection]]) -> None:
    for path, connection in opened:
        with translated(path):
            connection.execute("ROLLBACK")


def begun_together(
    begin: Callable[[], list[Shard]], end: Callable[[], None], warn: Callable[[str], None]
) -> list[Shard]:
    """All shards, begun so that they are of one moment; each of its own, with a warning, where that cannot be had.

    begin: begins to read them all. end: lets go of them.
    """
    shards = begin()
    for _ in range(TRIES_MAX - 1):
        if _all_stand(shards):
            return shards
        end()
        shards = begin()
    if not _all_stand(shards):
        warn(
            f"the shards commit so often that {TRIES_MAX} times no common moment of all was found: each is consistent "
            "in itself, but not all are of the same moment. Ask again when less comes in, or stop the workers first"
        )
    return shards


def _all_stand(shards: Sequence[Shard]) -> bool:
    """Whether each shard is still where it is held: then all were there when the last one was begun."""
    for shard in shards:
        with translated(shard.path), closing(open_reading(shard.path)) as connection:
            if one_row(connection, _POINT) != shard.point:
                return False
    return True


def stores_of(home: Path) -> list[Path]:
    """The databases of a home. Raises UsageError when there is none."""
    paths = store_paths(home)
    if not paths:
        raise UsageError(
            f"{home} holds no balances yet. Ingest a file and run `hftpipe worker`, or name --home"
        )
    return paths


def opened_shard(path: Path, connection: sqlite3.Connection, database: str) -> Shard:
    """A shard on a connection that is in a transaction. Raises StoreUnavailable, StoreDamaged."""
    with translated(path):
        pipeline, shard, shards, transactions, *point = one_row(
            connection, _IDENTITY.format(database=database)
        )
    return Shard(shard, path, connection, database, (pipeline, shards), transactions, (point[0], point[1]))


def check_together(shards: Sequence[Shard]) -> None:
    """Raises PipelineMismatch when the databases are not all of one pipeline, each of its own shard."""
    first, seen = shards[0], dict[int, Path]()
    for shard in shards:
        twin = seen.setdefault(shard.number, shard.path)
        if shard.pipeline != first.pipeline or twin != shard.path:
            other = twin if twin != shard.path else first.path
            raise PipelineMismatch(
                f"{other} and {shard.path} are not two shards of one pipeline. Use the home where it is whole"
            )


def _make_room(shards: int) -> None:
    """So many databases may be open at a time. Raises UsageError when the system does not let them."""
    wanted = shards * FILES_PER_STORE + _OTHER_FILES
    if (allowed := allow(wanted)) < wanted:
        raise UsageError(
            f"{shards} shards are {wanted} open files, and this process may have {allowed}: raise it with ulimit -Hn"
        )
