"""One moment of a shard's store, for whoever wants to know all about an account, a transaction or an entry.

A record that names an account is found by the packed columns of `taken_ids`, without reading the journal.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson

from hftpipe.core.entry import EntryId
from hftpipe.core.ledger import Account
from hftpipe.core.taken import unpack, unpack_others
from hftpipe.store.shard_book import ShardBook
from hftpipe.store.sqlite import one_row, read_checkpoint, translated
from hftpipe.store.told import entry_id

_RECORDS_AT_ONCE: Final = 256
_ACCOUNT_BYTES: Final = 8

# SQLite finds the bytes of an account sooner than Python fetches the columns. Counts from 1; 0 where they are not.
_NAMING: Final = (
    "SELECT entry, count, length(accounts), instr(accounts, CASE length(accounts) "
    "WHEN count THEN ?1 WHEN 2 * count THEN ?2 WHEN 4 * count THEN ?3 ELSE ?4 END), instr(others, ?4) "
    "FROM taken_ids WHERE instr(accounts, CASE length(accounts) "
    "WHEN count THEN ?1 WHEN 2 * count THEN ?2 WHEN 4 * count THEN ?3 ELSE ?4 END) OR instr(others, ?4) "
    "ORDER BY entry"
)
_NAMED: Final = "SELECT count, accounts, others FROM taken_ids WHERE entry = ?"
_WIDTHS: Final = (1, 2, 4, _ACCOUNT_BYTES)
_BALANCE: Final = "SELECT available, held, locked FROM balances WHERE account = ?"
_DISPUTED: Final = "SELECT tx, amount FROM disputes WHERE account = ?"
_PAYLOADS: Final = (
    "SELECT number, payload, outcomes FROM entries "
    "WHERE number IN (SELECT value FROM json_each(?)) ORDER BY number"
)
_ADDRESSES: Final = (
    "SELECT number, entry, time_ms FROM entries "
    "WHERE number IN (SELECT value FROM json_each(?)) ORDER BY number"
)
_WHOLE: Final = (
    "SELECT number, entry, source, previous, position, time_ms, count, outcomes, digest, hash "
    "FROM entries WHERE number = ?"
)
_WITH_ENTRY: Final = "SELECT number FROM entries WHERE entry = ? ORDER BY number DESC"
_MENTIONS_OF: Final = (
    "SELECT DISTINCT entry FROM mentions WHERE tx IN (SELECT value FROM json_each(?)) ORDER BY entry"
)
_MENTIONS: Final = "SELECT entry FROM mentions WHERE tx = ? ORDER BY entry"
_UNTIL: Final = "SELECT number FROM entries WHERE time_ms <= ? AND count > 0 ORDER BY number DESC LIMIT 1"
_DEAD: Final = "SELECT reason, fields FROM dead WHERE number = ?"


@dataclass(frozen=True, slots=True)
class Head:
    """What a journal record says of its entry, without the rows.

    time_ms: Unix time of the append; 0 when it has none.
    """

    number: int
    entry: EntryId
    source: str
    previous: int
    position: int
    time_ms: int
    count: int
    outcomes: str
    digest: str
    hash: str


class ShardInspector(ShardBook):
    """A shard's store of the moment at which it was opened. Methods raise sqlite3.Error.

    As long as it is open, the owner's write-ahead log cannot be folded in: not for long, therefore.
    """

    def __init__(self, path: Path, shard: int, shards: int) -> None:
        super().__init__(path, shard, shards)
        try:
            self._connection.execute("BEGIN")
            self.checkpoint = read_checkpoint(self._connection)
        except BaseException:
            self._connection.close()
            raise

    def balance(self, account: int) -> Account | None:
        """None when no applied transaction has named it."""
        row = self._connection.execute(_BALANCE, (account,)).fetchone()
        return None if row is None else Account(row[0], row[1], row[2] == 1)

    def disputed(self, account: int) -> dict[int, int]:
        """Transaction id → amount of each deposit of the account that was ever disputed."""
        return dict(self._connection.execute(_DISPUTED, (account,)))

    def records_naming(self, account: int) -> list[int]:
        """Numbers of the journal records that decided a row of the account, ascending."""
        wanted = [
            account.to_bytes(width, "little") if account < 1 << (8 * width) else None for width in _WIDTHS
        ]
        rows = self._connection.execute(_NAMING, wanted).fetchall()
        return [number for number, *found in rows if self._names(account, number, *found)]

    def payloads(self, numbers: Sequence[int]) -> Iterator[tuple[int, str, str]]:
        """Number, payload and outcomes of some records, ascending. Raises sqlite3.DatabaseError when one is missing."""
        yield from self._some(_PAYLOADS, numbers)

    def addresses(self, numbers: Sequence[int]) -> dict[int, tuple[EntryId, int]]:
        """Entry and time of append (Unix ms) of some records, by number."""
        return {
            number: (entry_id(entry), time_ms) for number, entry, time_ms in self._some(_ADDRESSES, numbers)
        }

    def head(self, number: int) -> Head:
        """What a record says of its entry."""
        number, entry, *others = one_row(self._connection, _WHOLE, number)
        return Head(number, entry_id(entry), *others)

    def numbers_with(self, entry: EntryId) -> list[int]:
        """Records of an entry id, the newest first; empty when it is in none."""
        found = [number for number in self.numbers_of(entry) if self.head(number).entry == entry]
        if not found and entry <= self.checkpoint.id:
            rows = self._connection.execute(_WITH_ENTRY, (str(entry),))
            found = [number for (number,) in rows]
        return found

    def naming_tx(self, tx: int) -> tuple[int | None, list[int]]:
        """The record that took an id, None when none has; and those that named it, ascending."""
        takers = self._ids.takers(np.array([tx], dtype=np.int64)) if tx <= self.checkpoint.highest_tx else {}
        return next(iter(takers), None), [number for (number,) in self._connection.execute(_MENTIONS, (tx,))]

    def mentions_of(self, txs: Sequence[int]) -> list[int]:
        """The records that named any of some ids without taking it, ascending, none twice."""
        asked = orjson.dumps(list(txs)).decode()
        return [number for (number,) in self._connection.execute(_MENTIONS_OF, (asked,))]

    def number_until(self, time_ms: int) -> int:
        """The last record whose entry was appended at or before a time; 0 when all came later."""
        row = self._connection.execute(_UNTIL, (time_ms,)).fetchone()
        return 0 if row is None else int(row[0])

    def dead(self, number: int) -> tuple[str, dict[str, str]]:
        """Why the entry of a record is none of ours, and its fields, made legible."""
        reason, fields = one_row(self._connection, _DEAD, number)
        try:
            return reason, orjson.loads(fields)
        except orjson.JSONDecodeError as error:
            raise sqlite3.DatabaseError(f"dead letter {number} cannot be read: {error}") from error

    def _names(
        self, account: int, number: int, count: int, size: int, in_accounts: int | None, in_others: int
    ) -> bool:
        """Whether the account is there: what was found may lie across two others, and the account behind that.

        in_accounts, in_others: where its bytes begin, from 1. size: of the column of accounts.
        """
        width = size // max(count, 1)
        if in_others and (in_others - 1) % _ACCOUNT_BYTES == 0:
            return True
        if in_accounts and width in _WIDTHS and width * count == size and (in_accounts - 1) % width == 0:
            return True
        count, accounts, others = one_row(self._connection, _NAMED, number)
        try:
            is_taker = count > 0 and bool((unpack(accounts, count) == account).any())
            return is_taker or bool((unpack_others(others) == account).any())
        except (TypeError, ValueError) as error:
            raise sqlite3.DatabaseError(f"what record {number} has taken cannot be read: {error}") from error

    def _some(self, statement: str, numbers: Sequence[int]) -> Iterator[Any]:
        for start in range(0, len(numbers), _RECORDS_AT_ONCE):
            wanted = list(numbers[start : start + _RECORDS_AT_ONCE])
            found = 0
            for row in self._connection.execute(statement, (orjson.dumps(wanted).decode(),)):
                yield row
                found += 1
            if found != len(wanted):
                raise sqlite3.DatabaseError(
                    f"one of the journal records {wanted[0]} to {wanted[-1]} is missing"
                )


@contextmanager
def inspecting(path: Path, shard: int, shards: int) -> Iterator[ShardInspector]:
    """A shard's store of this moment. Raises StoreUnavailable, StoreDamaged, also for what is raised in the body."""
    with translated(path), closing(ShardInspector(path, shard, shards)) as inspector:
        yield inspector
