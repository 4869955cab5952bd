"""All shards of a home at one moment: their databases, opened for reading before the first row is read.

As long as it is held, what the workers commit goes to their write-ahead logs and stays there: these grow.
"""

import resource
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hftpipe.errors import PipelineMismatch, UsageError
from hftpipe.export.relations import Relation, selection
from hftpipe.store.reading import open_reading, store_paths
from hftpipe.store.sqlite import check_version, one_row, translated

_IDENTITY: Final = "SELECT pipeline, shard, shards, applied + refused FROM {database}.shard"
_FILES_PER_SHARD: Final = 3
_OTHER_FILES: Final = 64


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard's database in a read transaction, on a connection that calls it `database`.

    pipeline: its id, and its number of shards. transactions: decided ones.
    """

    number: int
    path: Path
    connection: sqlite3.Connection
    database: str
    pipeline: tuple[str, int]
    transactions: int

    def rows(self, relation: Relation, columns: Sequence[str]) -> Iterator[tuple[object, ...]]:
        """Some columns of the rows of a relation that is not decoded. Raises StoreUnavailable, StoreDamaged."""
        statement = selection(relation, self.number, self.database, columns)
        with translated(self.path):
            yield from self.connection.execute(statement)


class Moment:
    """Raises UsageError when the home has no stores, StoreUnavailable and StoreDamaged when one cannot be read."""

    def __init__(self, home: Path) -> None:
        paths = stores_of(home)
        make_room(len(paths))
        self._connections: list[sqlite3.Connection] = []
        self.shards: list[Shard] = []
        try:
            for path in paths:
                with translated(path):
                    self._connections.append(open_reading(path))
            opened = list(zip(paths, self._connections, strict=True))
            for path, connection in opened:  # nothing else: the moments of the shards are as close as can be
                with translated(path):
                    connection.execute("BEGIN")
                    check_version(connection, path)
            self.shards = [opened_shard(path, connection, "main") for path, connection in opened]
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
        pipeline, shard, shards, transactions = one_row(connection, _IDENTITY.format(database=database))
    return Shard(shard, path, connection, database, (pipeline, shards), transactions)


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


def make_room(shards: int) -> None:
    """So many databases may be open at a time. Raises UsageError when the system does not let them."""
    wanted = shards * _FILES_PER_SHARD + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise UsageError(
            f"{shards} shards are {wanted} open files, and this process may have {hard}: raise it with ulimit -Hn"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
