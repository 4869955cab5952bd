"""The dead letters of one shard, and what was decided about them; read and written beside the shard's owner."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Final

from hftpipe.core.commit import Decision
from hftpipe.core.entry import EntryId
from hftpipe.core.transaction import Column
from hftpipe.errors import StoreDamaged
from hftpipe.store.ids import json_of
from hftpipe.store.reading import open_reading
from hftpipe.store.sqlite import BUSY_TIMEOUT_MS, check_version, read_checkpoint, translated

FIELDS_BYTES_MAX: Final = 4_096
"""Longer fields are not read when many letters are."""

RETRIED_SOURCES: Final = "dead:"
"""What the source id of a letter that was appended again begins with."""

DROPPED: Final = "dropped"
RETRIED: Final = "retried"

_COLUMNS: Final = (
    "SELECT dead.number, dead.entry, reason, digest, length(CAST(fields AS BLOB)), json_extract(fields, '$.t'), "
    "CASE WHEN length(CAST(fields AS BLOB)) <= ? THEN fields ELSE '' END, "
    "ifnull(action, ''), ifnull(note, ''), ifnull(latest, 0) FROM dead JOIN entries ON entries.number = dead.number "
    "LEFT JOIN (SELECT record AS about, max(number) AS latest FROM decisions "
    "WHERE action IN ('dropped', 'retried') GROUP BY record) ON about = dead.number "
    "LEFT JOIN decisions ON decisions.number = latest "
)
_ALL: Final = f"{_COLUMNS} ORDER BY dead.number"
_OF: Final = f"{_COLUMNS} WHERE dead.entry = ? ORDER BY dead.number DESC"
_SOURCES: Final = "SELECT source FROM sources WHERE source >= 'dead:' AND source < 'dead;'"
_ADD_ONCE: Final = (
    "INSERT INTO decisions SELECT NULL, ?1, ?2, ?3, ?4, ?5, ?6, epoch FROM shard WHERE NOT EXISTS "
    "(SELECT 1 FROM decisions WHERE action = ?2 AND entry = ?3 AND record = ?4 AND note = ?6)"
)
_ADD_BEHIND: Final = (
    "INSERT INTO decisions SELECT NULL, ?1, ?2, ?3, ?4, ?5, ?6, epoch FROM shard WHERE ?7 = "
    "(SELECT ifnull(max(number), 0) FROM decisions WHERE action IN ('dropped', 'retried') AND record = ?4)"
)
_DECISIONS: Final = "SELECT time_ms, action, entry, record, who, note FROM decisions ORDER BY number"
_POSITION: Final = "SELECT position FROM sources WHERE source = ?"
_APPLIED_AS: Final = (
    "SELECT entry FROM entries WHERE source = ? AND digest = ? AND number > ? ORDER BY number LIMIT 1"
)
_APPLIED_OF: Final = "SELECT entry FROM entries WHERE source = ? ORDER BY number LIMIT 1"
_NAMED: Final = (
    "SELECT balances.account, entries.entry, entries.source FROM json_each(?) "
    "JOIN balances ON balances.account = value JOIN entries ON entries.number = balances.last_entry "
    "WHERE entries.number > ? AND time_ms >= ?"
)
_TIME_BEFORE: Final = (
    "SELECT time_ms FROM entries WHERE number < ? AND payload <> '' ORDER BY number DESC LIMIT 1"
)


@dataclass(frozen=True, slots=True)
class DeadRow:
    """A dead letter as the store keeps it.

    number: of its journal record. time: what its field `t` says; None when it has none. fields: as text, see
    `audit.journal.read_legible`; empty when they were too long to be read. decision, note: the last; empty for none.
    decided: the number of that decision; 0 for none.
    """

    number: int
    entry: EntryId
    reason: str
    digest: str
    size_bytes: int
    time: str | int | None
    fields: str
    decision: str
    note: str
    decided: int


@dataclass(frozen=True, slots=True)
class Named:
    """The last entry that has named an account, and the source of that entry."""

    account: int
    entry: EntryId
    source: str


class DeadBook:
    """One moment of a shard's store. Methods raise StoreUnavailable, StoreDamaged."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with translated(path):
            self._connection = open_reading(path)
            try:
                check_version(self._connection, path)
                self._connection.execute("BEGIN")
                self.checkpoint = read_checkpoint(self._connection)
            except BaseException:
                self._connection.close()
                raise

    def __enter__(self) -> "DeadBook":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def letters(self) -> Iterator[DeadRow]:
        """All of them, in the order of the journal."""
        with translated(self._path):
            for row in self._connection.execute(_ALL, (FIELDS_BYTES_MAX,)):
                yield self._row(*row)

    def letters_of(self, entry: EntryId) -> list[DeadRow]:
        """Those of that entry id, whole, the newest first: a log that was emptied gives its ids again."""
        with translated(self._path):
            rows = self._connection.execute(_OF, (1 << 62, str(entry))).fetchall()
            return [self._row(*row) for row in rows]

    def retried_sources(self) -> set[str]:
        """Sources of letters that were appended again and applied here."""
        with translated(self._path):
            return {source for (source,) in self._connection.execute(_SOURCES)}

    def decisions(self) -> list[Decision]:
        """All that was ever decided, in its order."""
        with translated(self._path):
            return [Decision(*row) for row in self._connection.execute(_DECISIONS)]

    def position(self, source: str) -> int:
        """The last position applied of a source; 0 for none."""
        with translated(self._path):
            row = self._connection.execute(_POSITION, (source,)).fetchone()
            return 0 if row is None else int(row[0])

    def applied_as(self, source: str, digest: str, behind: int) -> EntryId | None:
        """The entry of a source with that digest, in a record behind that number; looks through the journal."""
        return self._entry(_APPLIED_AS, source, digest, behind)

    def applied_of(self, source: str) -> EntryId | None:
        """The first entry of a source; looks through the journal."""
        return self._entry(_APPLIED_OF, source)

    def named_last(self, accounts: Column, behind: int, since_ms: int) -> list[Named]:
        """Those of some accounts whose last entry is in a record behind that number, and not older than that time."""
        with translated(self._path):
            rows = self._connection.execute(_NAMED, (json_of(accounts), behind, since_ms)).fetchall()
            return [Named(account, EntryId.parse(entry), source) for account, entry, source in rows]

    def time_before(self, number: int) -> int:
        """When the last entry of ours before a record was appended, Unix ms; 0 for none."""
        with translated(self._path):
            row = self._connection.execute(_TIME_BEFORE, (number,)).fetchone()
            return 0 if row is None else int(row[0])

    def _entry(self, statement: str, *values: object) -> EntryId | None:
        with translated(self._path):
            row = self._connection.execute(statement, values).fetchone()
            return None if row is None else EntryId.parse(row[0])

    def _row(self, number: int, entry: str, *others: object) -> DeadRow:
        try:
            return DeadRow(number, EntryId.parse(entry), *others)  # type: ignore[arg-type]
        except ValueError as error:
            raise StoreDamaged(f"{self._path}: dead letter {number} cannot be read: {error}") from error


def decide_once(path: Path, decision: Decision) -> bool:
    """Keeps a decision, durably, unless the same was taken before; whether it is new. Raises StoreUnavailable."""
    with translated(path), closing(_open_writing(path)) as connection:
        check_version(connection, path)
        return connection.execute(_ADD_ONCE, astuple(decision)).rowcount == 1


def decide_behind(path: Path, decision: Decision, decided: int) -> bool:
    """Keeps a decision, durably, if the last about its letter is still that one (0: none); whether it did.

    Raises StoreUnavailable.
    """
    with translated(path), closing(_open_writing(path)) as connection:
        check_version(connection, path)
        return connection.execute(_ADD_BEHIND, (*astuple(decision), decided)).rowcount == 1


def _open_writing(path: Path) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode=rw"
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_MS / 1000, isolation_level=None)
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA trusted_schema=OFF")
    return connection
