"""Making a shard's database: whole and durable, or not at all."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from hftpipe.core.entry import origin
from hftpipe.core.journal import GENESIS
from hftpipe.errors import StoreDamaged, StoreUnavailable
from hftpipe.ports import Topology
from hftpipe.store.sqlite import SCHEMA_VERSION, translated

_ADD_SHARD = (
    "INSERT INTO shard VALUES (1, :pipeline, :shard, :shards, 0, '', 0, '', 0, :checkpoint, '', 0, :hash, -1, "
    "0, 0, 0, 0, 0)"
)


def create(path: Path, topology: Topology, shard: int) -> None:
    """Makes a shard's database unless there is one; whole and durable, or not at all, for any number at once.

    Raises StoreUnavailable when it cannot be made now, StoreDamaged when a former one was taken away in part.
    """
    if path.exists():
        return
    _check_nothing_is_left(path)
    draft = path.with_name(f"{path.name}.{os.getpid()}-{os.urandom(4).hex()}.new")
    try:
        with translated(path):
            _fill(draft, topology, shard)
        with suppress(FileExistsError):
            path.hardlink_to(draft)
        _sync(draft.parent)
    except OSError as error:
        raise StoreUnavailable(f"{path} cannot be created: {error}") from error
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def settling(path: Path) -> Iterator[sqlite3.Connection]:
    """A database that was counted into with no care for crashes, for what it lacks still.

    Behind the body it is durable, and open to readers beside a writer, as `create` makes it. Raises StoreUnavailable,
    StoreDamaged.
    """
    try:
        with translated(path), closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            yield connection
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        _sync(path)
        _sync(path.parent)
    except OSError as error:
        raise StoreUnavailable(f"{path} cannot be made durable: {error}") from error


def _fill(path: Path, topology: Topology, shard: int) -> None:
    from sqlite_utils import Database  # for a new file only: others start without it

    from hftpipe.store.schema import migrations

    path.touch(mode=0o600)
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        migrations.apply(Database(connection))
        connection.execute(
            _ADD_SHARD,
            {
                "pipeline": topology.pipeline,
                "shard": shard,
                "shards": topology.shards,
                "checkpoint": str(origin(topology.generation)),
                "hash": GENESIS,
            },
        )
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION:d}")
    finally:
        connection.close()


def _check_nothing_is_left(path: Path) -> None:
    """SQLite would take the write-ahead log of another database for the new one's."""
    log = path.with_name(f"{path.name}-wal")
    # The file is looked for once more, last: another process may have made it, and a log of its own, by now.
    if _size(log) and not path.exists():
        raise StoreDamaged(
            f"{log} is there without {path.name}: it holds the last commits of a database that was taken away. "
            "Put that back, or move this file to where it is"
        )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # what is not there is not in the way; what else is wrong stops the making, too
        return 0


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
