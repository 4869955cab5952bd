"""The store of one shard in one SQLite file: WAL, `synchronous=FULL`, one writing connection."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson

from hftpipe.core.commit import Checkpoint, Commit, Totals
from hftpipe.core.entry import EntryId, Foreign
from hftpipe.core.id_index import IdIndex, index_ids
from hftpipe.core.ledger import Account, Deposit, DisputeState, Facts, Needs, Undisputable
from hftpipe.core.transaction import Column
from hftpipe.errors import Fenced, StoreDamaged, StoreUnavailable
from hftpipe.ports import Ownership
from hftpipe.store.ids import IdReader, json_of
from hftpipe.store.rows import Rows

SCHEMA_VERSION: Final = 4
"""Kept in SQLite's `user_version`; a file of another version is refused by name. The tables are in `schema.py`."""

BUSY_TIMEOUT_MS: Final = 2_000
WAL_CHECKPOINT_PAGES: Final = 8_192

_PASSING: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_AUTH,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_INTERRUPT,
    }
)

_SETTINGS: Final = (
    "PRAGMA synchronous=FULL",
    f"PRAGMA wal_autocheckpoint={WAL_CHECKPOINT_PAGES}",
    "PRAGMA journal_size_limit=67108864",
    "PRAGMA cache_size=-16384",
    "PRAGMA temp_store=MEMORY",
    "PRAGMA trusted_schema=OFF",
    "PRAGMA cell_size_check=ON",
    "PRAGMA foreign_keys=ON",
)

SCRATCH_SETTINGS: Final = (
    "PRAGMA locking_mode=EXCLUSIVE",
    "PRAGMA journal_mode=OFF",
    "PRAGMA synchronous=OFF",
    "PRAGMA cache_size=-65536",
    "PRAGMA temp_store=MEMORY",
    "PRAGMA trusted_schema=OFF",
)
"""For a store that is made again when it is lost: it outlives no crash, and no failed commit."""

_OWNERSHIP = "SELECT epoch, owner, beat, stopped FROM shard"
_TAKE = (
    "UPDATE shard SET epoch = epoch + 1, owner = ?, beat = beat + 1, stopped = '' "
    "WHERE epoch = ? AND owner = ? AND beat = ?"
)
_BEAT = "UPDATE shard SET beat = beat + 1 WHERE epoch = ?"
_RELEASE = "UPDATE shard SET owner = '', beat = beat + 1, stopped = ? WHERE epoch = ?"
_CHECKPOINT = (
    "SELECT checkpoint, digest, number, hash, highest_tx, incarnation, applied, refused, skipped, gaps, dead "
    "FROM shard"
)
_ACCOUNTS = (
    "SELECT account, available, held, locked FROM json_each(?) JOIN balances ON balances.account = value"
)
_DISPUTES = "SELECT tx, account, amount, state FROM json_each(?) JOIN disputes ON disputes.tx = value"
_POSITION = "SELECT source, position FROM sources WHERE source = ?"
_ANCHORS = "SELECT number, entry, digest FROM entries WHERE number < ? ORDER BY number DESC LIMIT ?"
_ADVANCE = (
    "UPDATE shard SET beat = beat + 1, checkpoint = ?, digest = ?, number = ?, hash = ?, highest_tx = ?, "
    "applied = ?, refused = ?, skipped = ?, gaps = ?, dead = ? "
    "WHERE epoch = ? AND checkpoint = ? AND number = ?"
)
_REWIND = (
    "UPDATE shard SET beat = beat + 1, checkpoint = ?, digest = ?, incarnation = incarnation + 1 "
    "WHERE epoch = ?"
)
_ADD_ENTRY = "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_ADD_TAKEN = "INSERT INTO taken_ids VALUES (?, ?, ?, ?, ?, ?)"
_HIGHEST = "SELECT ifnull(max(highest), -1) FROM id_ranges"
_ADD_RANGE = "INSERT INTO id_ranges VALUES (?, ?, ?)"
_PUT_DISPUTE = (
    "INSERT INTO disputes VALUES (?, ?, ?, ?) ON CONFLICT (tx) DO UPDATE SET state = excluded.state"
)
_PUT_SOURCE = (
    "INSERT INTO sources VALUES (?, ?) ON CONFLICT (source) DO UPDATE SET position = excluded.position"
)
_ADD_DEAD = "INSERT INTO dead VALUES (?, ?, ?, ?)"
_ADD_DECISION = "INSERT INTO decisions SELECT NULL, ?, ?, ?, ?, ?, ?, epoch FROM shard"

_LATE_IDS = Rows("INSERT INTO late_ids VALUES (?, ?)")
_MENTIONS = Rows("INSERT INTO mentions VALUES (?, ?)")
_BALANCES = Rows(
    "INSERT INTO balances VALUES (?, ?, ?, ?, ?) ON CONFLICT (account) DO UPDATE SET "
    "available = excluded.available, held = excluded.held, locked = excluded.locked, "
    "last_entry = excluded.last_entry"
)


def shard_path(home: Path, shard: int) -> Path:
    """The database of a shard."""
    return home / f"shard-{shard:04}.db"


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turns SQLite's errors into ours, where they enter: those that may pass, and those that will not."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code in _PASSING:
            raise StoreUnavailable(f"{path} cannot be used now: {error}") from error
        raise _damaged(path, error) from error
    except UnicodeDecodeError as error:  # of a text, or of a message that quotes one
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> StoreDamaged:
    return StoreDamaged(
        f"{path} is damaged or was not made by this version: {error}. Restore it from a copy, or, if "
        "nothing was trimmed from the log yet, move it away, with its -wal: the shard is then rebuilt from the log"
    )


def one_row(connection: sqlite3.Connection, statement: str, *values: object) -> Any:
    """The row that must be there. Raises sqlite3.DatabaseError, which `translated` makes StoreDamaged."""
    row = connection.execute(statement, values).fetchone()
    if row is None:
        raise sqlite3.DatabaseError("it lacks a row that it must hold")
    return row


def read_checkpoint(connection: sqlite3.Connection) -> Checkpoint:
    """How far the shard in this database has been applied. Raises as `one_row`."""
    text, digest, number, chain, highest_tx, incarnation, *totals = one_row(connection, _CHECKPOINT)
    try:
        entry_id = EntryId.parse(text)
    except (ValueError, TypeError, AttributeError):
        raise sqlite3.DatabaseError(f"its checkpoint {text!r} is no entry id") from None
    return Checkpoint(entry_id, digest, number, chain, highest_tx, incarnation, Totals(*totals))


def check_version(connection: sqlite3.Connection, path: Path, database: str = "main") -> None:
    """Raises StoreDamaged when the file at `path` has another schema. database: what the connection calls it."""
    pragma = f"PRAGMA {database}.user_version"
    (version,) = connection.execute(pragma).fetchone()
    if version != SCHEMA_VERSION:
        raise StoreDamaged(
            f"{path} has schema version {version}; this program reads {SCHEMA_VERSION}. "
            "Use the version of hftpipe that made it"
        )


class SqliteStore:
    """Opens the database of a shard; see `ports.Store` for what it guarantees.

    reach: called with the name of each step that a fault may be planted at. settings: of the connection, one a pragma.
    Raises StoreUnavailable when it cannot be opened now, StoreDamaged when it is not a shard's database.
    """

    def __init__(
        self,
        path: Path,
        reach: Callable[[str], None] = lambda _: None,
        settings: Sequence[str] = _SETTINGS,
    ) -> None:
        self._path = path
        self._reach = reach
        self._opened_as = self._file_id()
        with translated(path):
            self._connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=rw",
                uri=True,
                timeout=BUSY_TIMEOUT_MS / 1000,
                isolation_level=None,
                cached_statements=64,
            )
            try:
                for setting in settings:
                    self._connection.execute(setting)
                check_version(self._connection, path)
                self._ids = IdReader(self._connection)
            except BaseException:
                self._connection.close()
                raise

    def identity(self) -> tuple[str, int, int]:
        """Pipeline id, shard and number of shards that the file was made for."""
        with translated(self._path):
            row: tuple[str, int, int] = self._one("SELECT pipeline, shard, shards FROM shard")
        return row

    def close(self) -> None:
        with suppress(sqlite3.Error):
            self._connection.close()

    def ownership(self) -> Ownership:
        with translated(self._path):
            return Ownership(*self._one(_OWNERSHIP))

    def take(self, owner: str, seen: Ownership) -> int | None:
        with translated(self._path):
            changed = self._connection.execute(_TAKE, (owner, seen.epoch, seen.owner, seen.beat)).rowcount
        if self._file_id() != self._opened_as:  # asked now: who puts another there has held this one locked
            raise StoreUnavailable(f"{self._path}: another file has its name now; opening that")
        return seen.epoch + 1 if changed == 1 else None

    def beat(self, epoch: int) -> None:
        with translated(self._path):
            changed = self._connection.execute(_BEAT, (epoch,)).rowcount
        self._hold_fence(changed, epoch)

    def release(self, epoch: int, stopped: str = "") -> None:
        with translated(self._path):
            self._connection.execute(_RELEASE, (stopped, epoch))

    def checkpoint(self) -> Checkpoint:
        with translated(self._path):
            return read_checkpoint(self._connection)

    def facts(self, needs: Needs) -> Facts:
        with translated(self._path):
            return Facts(
                {
                    account: Account(available, held, bool(locked))
                    for account, available, held, locked in self._all(_ACCOUNTS, needs.accounts)
                },
                self._ids.taken(needs.txs),
                self._deposits(needs.disputed),
            )

    def positions(self, sources: set[str]) -> dict[str, int]:
        with translated(self._path):
            # One by one: json_each would cut a name short at a NUL, and rows of that source take effect twice.
            rows = (self._connection.execute(_POSITION, (source,)).fetchone() for source in sorted(sources))
            return dict(row for row in rows if row is not None)

    def anchors(self, below: int, count: int) -> list[tuple[int, EntryId, str]]:
        with translated(self._path):
            rows = self._connection.execute(_ANCHORS, (below, count)).fetchall()
        return [(number, EntryId.parse(entry), digest) for number, entry, digest in rows]

    def commit(self, epoch: int, commit: Commit) -> None:
        with translated(self._path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                # The fence first: a replaced worker's rows may be there already, and are then no damage.
                self._hold_fence(self._advance(epoch, commit), epoch)
                self._write(commit)
                self._reach("store.in_transaction")
                self._connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
                raise

    def rewind(self, epoch: int, entry_id: EntryId, digest: str) -> None:
        with translated(self._path):
            changed = self._connection.execute(_REWIND, (str(entry_id), digest, epoch)).rowcount
        self._hold_fence(changed, epoch)

    def _file_id(self) -> tuple[int, int] | None:
        """Which file has our name; None when none has."""
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _write(self, commit: Commit) -> None:
        executemany = self._connection.executemany
        executemany(
            _ADD_ENTRY,
            [
                (
                    record.number,
                    str(record.id),
                    record.source,
                    record.previous,
                    record.position,
                    record.time_ms,
                    record.count,
                    record.payload,
                    record.outcomes,
                    record.digest,
                    record.hash,
                )
                for record in commit.records
            ],
        )
        executemany(_ADD_TAKEN, [(taken.number, *taken.packed()) for taken in commit.taken])
        index = index_ids(commit.taken, commit.before.highest_tx)
        self._check_above(index)
        executemany(_ADD_RANGE, index.ranges)
        _LATE_IDS.write(self._connection, index.late)
        _MENTIONS.write(self._connection, commit.mentions)
        _BALANCES.write(self._connection, commit.balances)
        executemany(
            _PUT_DISPUTE,
            [
                (tx, deposit.account, deposit.amount, deposit.state.value)
                for tx, deposit in commit.disputes.items()
            ],
        )
        executemany(_PUT_SOURCE, commit.positions.items())
        executemany(_ADD_DEAD, [_dead_row(number, foreign) for number, foreign in _numbered_dead(commit)])
        executemany(_ADD_DECISION, map(astuple, commit.decisions))

    def _check_above(self, index: IdIndex) -> None:
        """A last line of defence: ids filed as new lie above all that the table holds, whatever the worker believes."""
        (highest,) = self._one(_HIGHEST)
        if index.ranges and index.ranges[0][1] <= highest:
            raise sqlite3.DatabaseError(
                f"id {index.ranges[0][1]} would be filed as new, but ids up to {highest} are taken"
            )

    def _advance(self, epoch: int, commit: Commit) -> int:
        after, before, totals = commit.after, commit.before, commit.after.totals
        return self._connection.execute(
            _ADVANCE,
            (
                str(after.id),
                after.digest,
                after.number,
                after.hash,
                after.highest_tx,
                totals.applied,
                totals.refused,
                totals.skipped,
                totals.gaps,
                totals.dead,
                epoch,
                str(before.id),
                before.number,
            ),
        ).rowcount

    def _hold_fence(self, changed: int, epoch: int) -> None:
        if changed != 1:
            raise Fenced(
                f"{self._path} was taken over while epoch {epoch} was held here: nothing was written. "
                "The new owner goes on; start this worker again to stand by"
            )

    def _deposits(self, txs: Column) -> dict[int, Deposit | Undisputable]:
        disputed: dict[int, Deposit | Undisputable] = {
            tx: Deposit(account, amount, DisputeState(state))
            for tx, account, amount, state in self._all(_DISPUTES, txs)
        }
        others = txs[~np.isin(txs, np.fromiter(disputed, np.int64, len(disputed)))]
        return {**disputed, **self._ids.deposits(others)}

    def _one(self, statement: str, *values: object) -> Any:
        return one_row(self._connection, statement, *values)

    def _all(self, statement: str, values: Column) -> Iterator[Any]:
        """Rows for all values of a column, ascending, with one statement."""
        return self._connection.execute(statement, (json_of(values),)) if len(values) else iter(())


def _numbered_dead(commit: Commit) -> Iterator[tuple[int, Foreign]]:
    """Each dead letter with its record's number. An id may be there twice: the log may have lost its tail between."""
    records = iter(commit.records)
    for foreign in commit.dead:
        wanted = (foreign.id, foreign.digest)
        yield next(record.number for record in records if (record.id, record.digest) == wanted), foreign


def _dead_row(number: int, foreign: Foreign) -> tuple[int, str, str, str]:
    fields = {_legible(name): _legible(value) for name, value in foreign.fields.items()}
    return number, str(foreign.id), foreign.reason, orjson.dumps(fields).decode()


def _legible(octets: bytes) -> str:
    """Text as it is; `\\xff` for bytes that are none, and a backslash doubled, so that it can be read back."""
    return octets.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
