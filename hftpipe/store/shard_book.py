"""One shard's store, read beside its owner on a connection that stays open.

No read outlasts a call: the owner's write-ahead log can be folded into the file at any time. Nothing is written, but
for this: whoever closes a database last folds the log in. A reader that could not would leave it lying after a clean
stop, and a copy of the file alone would then lack what was committed last.
"""

import sqlite3
from pathlib import Path
from typing import Final

import numpy as np

from hftpipe.core.entry import EntryId
from hftpipe.core.ledger import Account
from hftpipe.core.transaction import Column
from hftpipe.errors import StoreDamaged
from hftpipe.ports import Movement, Standing
from hftpipe.store.ids import IdReader
from hftpipe.store.places import LOSSES, Loss, Places, loss_of
from hftpipe.store.sqlite import BUSY_TIMEOUT_MS, check_version, one_row
from hftpipe.store.told import Line, Told, entry_id

LOOK_BACK_RECORDS_MAX: Final = 1_000
"""A row that was applied under an earlier entry of its source is looked for in so many records."""

_SETTINGS: Final = (
    "PRAGMA query_only=ON",
    "PRAGMA trusted_schema=OFF",
    "PRAGMA cache_size=-256",  # KiB, and there may be a thousand shards
)

_IDENTITY: Final = "SELECT shard, shards FROM shard"
_APPLIED: Final = "SELECT checkpoint FROM shard"
_HIGHEST: Final = "SELECT highest_tx FROM shard"
_LAST: Final = "SELECT number, incarnation FROM shard"
_STANDING: Final = "SELECT available, held, locked, checkpoint FROM balances, shard WHERE account = ?"
_MENTIONS: Final = "SELECT entry FROM mentions WHERE tx = ? ORDER BY entry"
_ENTRY_AT: Final = "SELECT entry FROM entries WHERE number = ?"
_LINE: Final = (
    "SELECT number, entry, source, previous, time_ms, count, payload, outcomes FROM entries WHERE number = ?"
)
_BATCHES_OF: Final = (
    "SELECT number, previous, position FROM entries "
    "WHERE number BETWEEN ? AND ? AND source = ? AND position >= ? AND previous < ? ORDER BY number DESC"
)


class ShardBook:
    """What one shard has applied; see `ports.Books`. Methods raise sqlite3.Error.

    Raises StoreDamaged when the file is that of another shard, or of another number of shards.
    """

    def __init__(self, path: Path, shard: int, shards: int) -> None:
        self._shard = shard
        self._connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=BUSY_TIMEOUT_MS / 1000,
            isolation_level=None,
            check_same_thread=False,  # one thread at a time, though not always the same
        )
        try:
            for setting in _SETTINGS:
                self._connection.execute(setting)
            check_version(self._connection, path)
            if (there := one_row(self._connection, _IDENTITY)) != (shard, shards):
                raise StoreDamaged(
                    f"{path} is shard {there[0]} of {there[1]}, and not shard {shard} of {shards}. "
                    "Use the home and the server that belong together"
                )
            self._ids = IdReader(self._connection)
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Lets go of the file."""
        self._connection.close()

    def applied(self) -> EntryId | None:
        """The last entry applied; None when none is."""
        (checkpoint,) = one_row(self._connection, _APPLIED)
        entry = entry_id(checkpoint)
        return entry if entry.sequence >= 0 else None

    def highest(self) -> int:
        """No id taken is above it; -1 when none is taken."""
        (highest,) = one_row(self._connection, _HIGHEST)
        return int(highest)

    def standing(self, account: int) -> Standing | None:
        """An account; None when no applied transaction has named it."""
        row = self._connection.execute(_STANDING, (account,)).fetchone()
        if row is None:
            return None
        available, held, locked, checkpoint = row
        return Standing(Account(available, held, locked == 1), self._shard, entry_id(checkpoint))

    def taken(self, txs: Column) -> dict[int, Movement]:
        """For those of some ids that are taken: the transaction that took each."""
        found: dict[int, Movement] = {}
        if len(asked := txs[txs <= self.highest()]):
            for number, wanted in self._ids.takers(np.unique(asked)).items():
                found |= self.told(number).taking(wanted)
        return found

    def history(self, tx: int, count_max: int) -> list[Movement]:
        """Transactions that named an id: first the one that took it, then the others in the order applied."""
        taker = self.taken(np.array([tx], dtype=np.int64)).get(tx)
        found = [] if taker is None else [taker]
        for (number,) in self._connection.execute(_MENTIONS, (tx,)):
            if len(found) >= count_max:
                break
            found += [movement for movement in self.told(number).naming(tx) if movement != taker]
        return found[:count_max]

    def rows(self, entry: EntryId, source: str, positions: Column) -> list[Movement | None]:
        """What became of rows of a source that stand, or stood first, in an applied entry."""
        found: dict[int, Movement] = {}
        missing = np.unique(positions)
        for number in self.numbers_of(entry):
            if len(missing):
                missing = self._look_back(number, source, missing, found)
        return [found.get(position) for position in positions.tolist()]

    def _look_back(self, number: int, source: str, missing: Column, found: dict[int, Movement]) -> Column:
        """Adds what a record, and those of the same source before it, tell of rows at the missing positions.

        missing: ascending. Returns those that are missing still.
        """
        bounds = (number - LOOK_BACK_RECORDS_MAX, number, source, int(missing[0]), int(missing[-1]))
        for each, previous, position in self._connection.execute(_BATCHES_OF, bounds):
            start, stop = np.searchsorted(missing, (previous, position), side="right")
            if start < stop:
                told = self.told(each).standing_at(missing[start:stop])
                found |= told
                missing = missing[~np.isin(missing, np.fromiter(told, np.int64, len(told)))]
            if not len(missing):
                break
        return missing

    def numbers_of(self, entry: EntryId) -> list[int]:
        """Records to look back from for an entry id, the newest first; empty when it is not in the journal.

        It is there more than once when the log lost its tail and gave the id again: then from its first and its last
        place, or from the journal's end where the log now ends before it.
        """
        last, incarnation = one_row(self._connection, _LAST)
        places = Places(self._losses(), incarnation)
        first = places.find(entry, entry.sequence + 1, self._entry_at)
        if not first or not (incarnation or places.losses):
            return [first] if first else []
        return sorted({first, places.find(entry, places.of(last), self._entry_at) or last}, reverse=True)

    def _losses(self) -> list[Loss]:
        return [loss_of(*row) for row in self._connection.execute(LOSSES)]

    def _entry_at(self, number: int) -> EntryId | None:
        row = self._connection.execute(_ENTRY_AT, (number,)).fetchone()
        return None if row is None else entry_id(row[0])

    def told(self, number: int) -> Told:
        """A record of an entry of ours."""
        return Told(self._shard, Line(*one_row(self._connection, _LINE, number)))
