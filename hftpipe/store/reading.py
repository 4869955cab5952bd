"""Looking at the stores of a home without owning them: read-only, beside any worker."""

import heapq
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import orjson

from hftpipe.core.commit import Checkpoint
from hftpipe.core.entry import EntryId
from hftpipe.core.journal import Record
from hftpipe.core.snapshot import Snapshot, Tables
from hftpipe.errors import StoreDamaged, StoreUnavailable
from hftpipe.ports import Ownership
from hftpipe.store.places import COUNT_LOSSES
from hftpipe.store.sqlite import BUSY_TIMEOUT_MS, one_row, read_checkpoint, translated

_BALANCES = "SELECT account, available, held, locked FROM balances ORDER BY account"
_SOME_BALANCES = (
    "SELECT account, available, held, locked FROM balances "
    "WHERE account IN (SELECT value FROM json_each(?)) ORDER BY account"
)
_NAMED_SINCE = "SELECT account, available, held, locked FROM balances WHERE last_entry >= ? ORDER BY account"
_SHARD = "SELECT pipeline, shard, shards, epoch, owner, stopped FROM shard"
_FIRST_RECORD = "SELECT entry FROM entries ORDER BY number LIMIT 1"
_OWNERSHIP = "SELECT epoch, owner, beat FROM shard"
_IDENTITY = "SELECT pipeline, shard, shards, epoch FROM shard"
_REFUSED = (
    "SELECT reason.key, SUM(json_array_length(reason.value)) "
    "FROM entries, json_each(entries.outcomes, '$.refused') AS reason WHERE number > ? GROUP BY reason.key"
)


class Balance(NamedTuple):
    """An account's balance in ten-thousandths."""

    account: int
    available: int
    held: int
    locked: bool


@dataclass(frozen=True, slots=True)
class ShardSummary:
    """What a shard's store says of itself."""

    pipeline: str
    shard: int
    shards: int
    epoch: int
    owner: str
    stopped: str
    checkpoint: Checkpoint
    journal_from: str = ""
    """The entry of its first journal record; empty while there is none."""
    losses: int = 0
    """How often an operator has accepted a loss."""


def store_paths(home: Path) -> list[Path]:
    """The databases of a home, by shard."""
    return sorted(home.glob("shard-[0-9][0-9][0-9][0-9].db"))


def balances(home: Path, accounts: Sequence[int] = ()) -> Iterator[Balance]:
    """The balances of all, or the named, accounts of a home, by account."""
    return heapq.merge(*(_balances(path, accounts) for path in store_paths(home)))


def named_since(path: Path, number: int) -> Iterator[Balance]:
    """The balances of the accounts of a shard that a journal record from that number on has named, by account."""
    with _reading(path) as connection:
        for account, available, held, locked in connection.execute(_NAMED_SINCE, (number,)):
            yield Balance(account, available, held, locked == 1)


def summarise(path: Path) -> ShardSummary:
    """How a shard stands. Raises StoreUnavailable, StoreDamaged."""
    with _reading(path) as connection:
        connection.execute("BEGIN")
        pipeline, shard, shards, epoch, owner, stopped = one_row(connection, _SHARD)
        first = connection.execute(_FIRST_RECORD).fetchone()
        return ShardSummary(
            pipeline,
            shard,
            shards,
            epoch,
            owner,
            stopped,
            checkpoint=read_checkpoint(connection),
            journal_from=first[0] if first is not None else "",
            losses=one_row(connection, COUNT_LOSSES)[0],
        )


def ownership(path: Path) -> Ownership | None:
    """Who owns a shard; None while it has no store, or that cannot be read."""
    if not path.exists():
        return None
    try:
        with _reading(path) as connection:
            return Ownership(*one_row(connection, _OWNERSHIP))
    except (StoreUnavailable, StoreDamaged):
        return None


def refused_since(path: Path, number: int) -> Counter[str]:
    """How many rows were refused behind a journal record, by reason."""
    with _reading(path) as connection:
        return Counter(dict(connection.execute(_REFUSED, (number,))))


def snapshot(path: Path) -> Snapshot:
    """All that a shard's store holds, of one moment; held in memory whole."""
    with _reading(path) as connection:
        connection.execute("BEGIN")
        pipeline, shard, shards, epoch = one_row(connection, _IDENTITY)
        checkpoint = read_checkpoint(connection)
        tables = Tables(
            [
                Record(number, EntryId.parse(entry), *rest)
                for number, entry, *rest in connection.execute("SELECT * FROM entries ORDER BY number")
            ],
            {
                account: (available, held, bool(locked), last_entry)
                for account, available, held, locked, last_entry in connection.execute(
                    "SELECT * FROM balances"
                )
            },
            {
                highest: (lowest, number)
                for highest, lowest, number in connection.execute("SELECT * FROM id_ranges")
            },
            dict(connection.execute("SELECT * FROM late_ids")),
            {
                number: (count, *columns)
                for number, count, *columns in connection.execute("SELECT * FROM taken_ids")
            },
            _mentions(connection),
            {
                tx: (account, amount, state)
                for tx, account, amount, state in connection.execute("SELECT * FROM disputes")
            },
            dict(connection.execute("SELECT * FROM sources")),
            dict(connection.execute("SELECT entry, reason FROM dead")),
        )
    return Snapshot(pipeline, shard, shards, epoch, checkpoint, tables)


def _mentions(connection: sqlite3.Connection) -> dict[int, tuple[int, ...]]:
    rows = connection.execute("SELECT tx, entry FROM mentions ORDER BY tx, entry")
    return {tx: tuple(entry for _, entry in group) for tx, group in groupby(rows, itemgetter(0))}


def _balances(path: Path, accounts: Sequence[int]) -> Iterator[Balance]:
    statement, values = (
        (_SOME_BALANCES, (orjson.dumps(list(accounts)).decode(),)) if accounts else (_BALANCES, ())
    )
    with _reading(path) as connection:
        for account, available, held, locked in connection.execute(statement, values):
            yield Balance(account, available, held, locked == 1)


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    with translated(path), closing(open_reading(path)) as connection:
        yield connection


def reading_uri(path: Path) -> str:
    """What names a database to SQLite for reading: it may write, so that who closes last folds the write-ahead log in.

    See `shard_book`. Where the file may not be written, SQLite reads it all the same.
    """
    return f"{path.absolute().as_uri()}?mode=rw"


def open_reading(path: Path) -> sqlite3.Connection:
    """A connection that changes nothing. Raises sqlite3.Error: see `translated`."""
    connection = sqlite3.connect(
        reading_uri(path), uri=True, timeout=BUSY_TIMEOUT_MS / 1000, isolation_level=None
    )
    try:
        connection.execute("PRAGMA query_only=ON")
        connection.execute("PRAGMA trusted_schema=OFF")
    except BaseException:
        connection.close()
        raise
    return connection
