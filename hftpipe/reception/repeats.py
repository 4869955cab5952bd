"""Ids that were sent before: told to the submitter with the first one's address, instead of appended again.

This is a courtesy: that no id takes effect twice is the ledger's business. It looks in two places: among the latest
transactions accepted here, applied or not, and in the stores, where all that was applied stands. The stores are asked
only for ids that may be there: not above what they held at the start, and what is not remembered any more. Deposits and
withdrawals alone have ids of their own.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hftpipe.core.slot_table import UNKNOWN, SlotTable
from hftpipe.core.transaction import INT64_MAX, Batch, Column
from hftpipe.errors import PassingFault, ShardStopped
from hftpipe.ports import Books, Movement
from hftpipe.reception.receipts import Receipts, Status

SHARDS_ASKED_MAX: Final = 16
"""With more shards than this, only the one of the account is asked whether it knows an id."""

NEW: Final = -1
"""Stands for the row that a row repeats when it repeats none of the group."""


class First(NamedTuple):
    """Where the transaction that used an id first stands, and what it was; one column each."""

    shards: Column
    sequences: Column
    positions: Column
    letters: Column
    accounts: Column
    amounts: Column

    @classmethod
    def of(cls, rows: Sequence[tuple[int, ...]]) -> "First":
        """From the values of each row."""
        return cls(*np.array(rows, dtype=np.int64).T)

    @classmethod
    def none(cls, count: int) -> "First":
        """For so many rows, nothing known yet."""
        return cls(*(np.zeros(count, dtype=np.int64) for _ in cls._fields))

    def put(self, rows: NDArray[np.intp], values: "First") -> None:
        """Writes what is known of some rows."""
        for column, written in zip(self, values, strict=True):
            column[rows] = written

    def same(self, rows: NDArray[np.intp], batch: Batch) -> NDArray[np.bool_]:
        """Whether rows of a batch have the same content as the first."""
        same: NDArray[np.bool_] = (
            (self.letters[rows] == batch.letters[rows])
            & (self.accounts[rows] == batch.accounts[rows])
            & (self.amounts[rows] == batch.amounts[rows])
        )
        return same


_NOTHING: Final = First.none(0)
_NONE: Final = np.zeros(0, dtype=np.int64)

_FEW: Final = 64
_FRESH_SHARE: Final = 128


class _Table(SlotTable):
    """Ids with what is known of them."""

    COLUMNS = ("ids", *First._fields)

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.highest = -1
        for name in First._fields:
            setattr(self, name, np.zeros_like(self.ids))

    def at(self, slots: NDArray[np.int32]) -> First:
        return First(*(getattr(self, name)[slots] for name in First._fields))


class RecentIds:
    """The latest ids: about `count_max` of them at the most, half at the least; each in some 80 bytes.

    Ids are kept in two tables; when the younger one is full, the older one is dropped. A few ids at a time are kept in
    a dictionary first: a table takes as long for one as for some hundreds.
    """

    def __init__(self, count_max: int, seed: int) -> None:
        self._part = max(count_max // 2, 1)
        self._fresh_max = max(self._part // _FRESH_SHARE, 1)
        self._seed = seed
        self.forgotten = -1
        """No id that was dropped is above it."""
        self.clear()

    def clear(self) -> None:
        """Forgets all of them."""
        self._tables = (_Table(self._seed), _Table(self._seed))
        self._fresh: dict[int, tuple[int, ...]] = {}

    def find(self, ids: Column) -> tuple[NDArray[np.intp], First]:
        """Places, in the column, of ids that are known; and what is known of them."""
        if len(ids) > _FEW:
            self._settle()
        places, found = [], []
        if self._fresh:
            hits = [(place, self._fresh[tx]) for place, tx in enumerate(ids.tolist()) if tx in self._fresh]
            if hits:
                places.append(np.array([place for place, _ in hits], dtype=np.intp))
                found.append(First.of([values for _, values in hits]))
        lowest = int(ids.min()) if len(ids) else INT64_MAX
        for table in self._tables:
            if lowest > table.highest:
                continue
            slots = table.find(ids)
            known = np.flatnonzero(slots != UNKNOWN)
            places.append(known)
            found.append(table.at(slots[known]))
        if not places:
            return np.zeros(0, dtype=np.intp), First.none(0)
        return np.concatenate(places), First(*map(np.concatenate, zip(*found, strict=True)))

    def add(self, ids: Column, first: First) -> None:
        """Ids that are not known, each there once."""
        if len(ids) <= _FEW:
            rows = zip(*(column.tolist() for column in first), strict=True)
            self._fresh.update(zip(ids.tolist(), rows, strict=True))
            if len(self._fresh) >= self._fresh_max:
                self._settle()
            return
        self._settle()
        self._add(ids, first)

    def _settle(self) -> None:
        """Puts into a table what is in the dictionary."""
        if self._fresh:
            ids = np.fromiter(self._fresh, np.int64, len(self._fresh))
            first = First.of(list(self._fresh.values()))
            self._fresh = {}
            self._add(ids, first)

    def _add(self, ids: Column, first: First) -> None:
        for start in range(0, len(ids), self._part):
            part = slice(start, start + self._part)
            self._add_part(ids[part], First(*(column[part] for column in first)))

    def _add_part(self, ids: Column, first: First) -> None:
        if len(self._tables[0]) + len(ids) > self._part:
            self.forgotten = max(self.forgotten, self._tables[1].highest)
            self._tables = (_Table(self._seed), self._tables[0])
        table = self._tables[0]
        new = table.enter(ids)
        for name, column in zip(First._fields, first, strict=True):
            getattr(table, name)[new] = column
        table.highest = max(table.highest, int(ids.max()))


@dataclass(frozen=True, slots=True, eq=False)
class Sorted:
    """Which rows of a group repeat an id.

    statuses: of `Status`; what is DURABLE there is to be appended. first: of rows that are not. within: for a row that
    repeats one of the group which is to be appended, that one's index; else NEW. Both are empty when all rows are new.
    """

    statuses: NDArray[np.uint8]
    first: First
    within: Column


class Repeats:
    """Sorts groups of transactions. For one thread; see `RecentIds` for `count_max` and `seed`."""

    def __init__(self, books: Books, shards: int, count_max: int, seed: int) -> None:
        self._books = books
        self._shards = shards
        self._recent = RecentIds(count_max, seed)
        self._applied_max = INT64_MAX
        """No id that others have appended is above it, as far as is known."""
        self.last_of: dict[int, int] = {}
        """Sequence number of the last entry of each shard that had any, when the log was read."""

    def sort(self, batch: Batch) -> Sorted:
        """Tells repeats from new rows; what the stores cannot tell for now, the ledger does later."""
        count = len(batch)
        statuses = np.zeros(count, dtype=np.uint8)
        if batch.txs is None:
            return Sorted(statuses, _NOTHING, _NONE)
        moving = np.flatnonzero(batch.is_moving)
        leaders, followers, led_by = _led(batch.txs[moving], moving)
        known = self._known(batch, batch.txs, leaders)
        if not known and not len(followers):
            return Sorted(statuses, _NOTHING, _NONE)
        sorted_ = Sorted(statuses, First.none(count), np.full(count, NEW))
        for rows, first in known:
            sorted_.first.put(rows, first)
            self._judge(batch, rows, sorted_)
        if len(followers):
            self._follow(batch, followers, led_by, sorted_)
        return sorted_

    def corrected(self, batch: Batch, appended: Receipts) -> Receipts:
        """Receipts of rows that were appended while others did so too: some may repeat what those had appended."""
        sorted_ = self.sort(batch)
        if not len(sorted_.within):
            return appended
        repeats = np.flatnonzero(sorted_.statuses)
        columns = [column.copy() for column in (appended.shards, appended.sequences, appended.positions)]
        for column, known in zip(columns, sorted_.first, strict=False):
            column[repeats] = known[repeats]
        return Receipts(appended.generation, sorted_.statuses, *columns)

    def remember(self, batch: Batch, appended: Receipts) -> None:
        """Rows that were appended: where they stand, and their positions in our source."""
        if batch.txs is None:
            return
        rows = np.flatnonzero(batch.is_moving & (appended.statuses == 0))
        columns = (
            appended.shards,
            appended.sequences,
            appended.positions,
            batch.letters,
            batch.accounts,
            batch.amounts,
        )
        self._recent.add(batch.txs[rows], First(*(column[rows].astype(np.int64) for column in columns)))

    def warm(self, batch: Batch, shard: int, sequence: int) -> None:
        """An entry that is in the log and not applied yet, whoever appended it."""
        if batch.txs is None:
            return
        moving = np.flatnonzero(batch.is_moving)
        leaders, _, _ = _led(batch.txs[moving], moving)
        places, _ = self._recent.find(batch.txs[leaders])
        new = batch.pick(np.delete(leaders, places))
        zeros = np.zeros(len(new), dtype=np.int64)
        statuses = np.zeros(len(new), dtype=np.uint8)
        self.remember(new, Receipts(0, statuses, zeros + shard, zeros + sequence, zeros))

    def trust(self) -> None:
        """All that others have appended so far is warmed or applied: ids above the applied ones are new.

        To be called when the log has been read: what is applied meanwhile is then below.
        """
        with suppress(PassingFault, ShardStopped):
            self._applied_max = max(map(self._books.highest, range(self._shards)))

    def meet_others(self) -> None:
        """Others append too: any id may be in the stores from now on."""
        self._applied_max = INT64_MAX

    def forget(self) -> None:
        """The log lost some of what was appended: what is applied is in the stores, the rest counts as new."""
        self._recent.clear()
        self.meet_others()

    def close(self) -> None:
        """Lets go of the books."""
        self._books.close()

    def _known(
        self, batch: Batch, ids: Column, rows: NDArray[np.intp]
    ) -> list[tuple[NDArray[np.intp], First]]:
        """Those of some rows whose ids were used before, and by what."""
        places, found = self._recent.find(ids[rows])
        if not len(places):
            return self._applied(batch, ids, rows)
        return [(rows[places], found), *self._applied(batch, ids, np.delete(rows, places))]

    def _applied(
        self, batch: Batch, ids: Column, rows: NDArray[np.intp]
    ) -> list[tuple[NDArray[np.intp], First]]:
        rows = rows[ids[rows] <= max(self._applied_max, self._recent.forgotten)]
        if not len(rows):
            return []
        rows = rows[np.argsort(ids[rows])]
        found: dict[int, Movement] = {}
        for shard, asked in self._asked(batch, rows):
            # A shard that is busy or damaged tells nothing; it holds up no other.
            with suppress(PassingFault, ShardStopped):
                for tx, movement in self._books.taken(shard, ids[asked]).items():
                    found.setdefault(tx, movement)
        if not found:
            return []
        known = rows[np.isin(ids[rows], np.array(list(found), dtype=np.int64))]
        return [(known, _first_of([found[tx] for tx in ids[known].tolist()]))]

    def _asked(self, batch: Batch, rows: NDArray[np.intp]) -> list[tuple[int, NDArray[np.intp]]]:
        """Which shards are asked for which rows: that of the account first, so that it has the first word."""
        homes = batch.accounts[rows] % self._shards
        of_home = [(int(shard), rows[homes == shard]) for shard in np.unique(homes)]
        if self._shards == 1 or self._shards > SHARDS_ASKED_MAX:
            return of_home
        others = [(shard, rows[homes != shard]) for shard in range(self._shards)]
        return of_home + [(shard, asked) for shard, asked in others if len(asked)]

    def _judge(self, batch: Batch, rows: NDArray[np.intp], sorted_: Sorted) -> None:
        same = sorted_.first.same(rows, batch)
        sorted_.statuses[rows] = np.where(same, Status.DUPLICATE, Status.CONFLICT)

    def _follow(
        self, batch: Batch, followers: NDArray[np.intp], led_by: NDArray[np.intp], sorted_: Sorted
    ) -> None:
        """Rows whose id stands further up in the group are judged by what that row, or its own first one, says."""
        first, statuses = sorted_.first, sorted_.statuses
        is_new = statuses[led_by] == Status.DURABLE
        new, leading = followers[is_new], led_by[is_new]
        kinds = batch.letters.astype(np.int64)
        zeros = np.zeros(len(new), dtype=np.int64)
        content = (kinds[leading], batch.accounts[leading], batch.amounts[leading])
        first.put(new, First(zeros, zeros, zeros, *content))
        sorted_.within[new] = leading
        old, repeated = followers[~is_new], led_by[~is_new]
        first.put(old, First(*(column[repeated] for column in first)))
        self._judge(batch, followers, sorted_)


def _led(ids: Column, rows: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """The rows that use an id for the first time, those that repeat one of them, and which."""
    if len(ids) < 2 or (ids[1:] > ids[:-1]).all():
        return rows, rows[:0], rows[:0]
    _, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
    leader = first[inverse]
    is_leader = leader == np.arange(len(ids))
    return rows[is_leader], rows[~is_leader], rows[leader[~is_leader]]


def _first_of(movements: Sequence[Movement]) -> First:
    """Transactions that were applied; their positions count in their own sources, and mean nothing here."""
    values = [
        (each.shard, each.entry.sequence, 0, ord(each.kind.value), each.account, each.amount)
        for each in movements
    ]
    return First.of(values)
