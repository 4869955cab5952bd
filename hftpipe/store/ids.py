"""Who took a transaction id: by its own row if it came late, else by the range of an entry, and the entry itself."""

import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Set
from typing import Final

import numpy as np
import orjson

from hftpipe.core.ledger import Deposit, Undisputable
from hftpipe.core.taken import NOT_DISPUTABLE, Taken, unpacked
from hftpipe.core.transaction import Column

RANGES_PER_ID_MAX: Final = 4
"""Ranges between the lowest and the highest wanted id are read at one go, unless there are so many more of them."""

_LATE = "SELECT tx, entry FROM json_each(?) JOIN late_ids ON late_ids.tx = value"
_RANGES_BETWEEN = (
    "SELECT highest, lowest, entry FROM id_ranges WHERE highest BETWEEN ?1 AND "
    "ifnull((SELECT min(highest) FROM id_ranges WHERE highest >= ?2), ?2) ORDER BY highest LIMIT ?3"
)
_RANGES_OF = (
    "SELECT DISTINCT highest, lowest, entry FROM json_each(?) JOIN id_ranges "
    "ON highest = (SELECT min(highest) FROM id_ranges WHERE highest >= value) ORDER BY highest"
)
_TAKEN_BY = "SELECT * FROM taken_ids WHERE entry = ?"


def json_of(values: Column) -> str:
    """A column as SQLite's json_each reads it."""
    return orjson.dumps(np.ascontiguousarray(values), option=orjson.OPT_SERIALIZE_NUMPY).decode()


class IdReader:
    """Looks ids up in a shard's database. Methods raise sqlite3.Error."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def taken(self, txs: Column) -> set[int]:
        """Which of some ids, ascending, are taken."""
        found = {tx for tx, _ in self._late(txs)}
        for number, wanted in self._in_ranges(txs).items():
            found.update(wanted[np.isin(wanted, self._taken_by(number).txs)].tolist())
        return found

    def deposits(self, txs: Column) -> dict[int, Deposit | Undisputable]:
        """What those of some ids, ascending, that are taken stand for."""
        found: dict[int, Deposit | Undisputable] = {}
        late = self._late(txs)
        for number, wanted in self._by_record(txs, late):
            taken = self._taken_by(number)
            places = np.flatnonzero(
                wanted[wanted.searchsorted(taken.txs).clip(max=len(wanted) - 1)] == taken.txs
            )
            columns = (column[places].tolist() for column in (taken.txs, taken.accounts, taken.amounts))
            for tx, account, amount in zip(*columns, strict=True):
                found[tx] = Undisputable.TAKEN if amount == NOT_DISPUTABLE else Deposit(account, amount)
        _check_found(late, found.keys())
        return found

    def takers(self, txs: Column) -> dict[int, Column]:
        """Those of some ids, ascending, that are taken, by the number of the journal record that took them."""
        found: dict[int, Column] = {}
        late = self._late(txs)
        for number, wanted in self._by_record(txs, late):
            taken = wanted[np.isin(wanted, self._taken_by(number).txs)]
            if len(taken):
                found[number] = taken
        _check_found(late, {tx for taken in found.values() for tx in taken.tolist()})
        return found

    def _by_record(self, txs: Column, late: list[tuple[int, int]]) -> Iterator[tuple[int, Column]]:
        """Each record, ascending, that took or may have taken some of the ids, and these, ascending."""
        by_record: defaultdict[int, list[int]] = defaultdict(list)
        for tx, number in late:
            by_record[number].append(tx)
        for number, wanted in self._in_ranges(txs).items():
            by_record[number] += wanted.tolist()
        for number in sorted(by_record):
            yield number, np.array(sorted(by_record[number]), dtype=np.int64)

    def _late(self, txs: Column) -> list[tuple[int, int]]:
        return self._connection.execute(_LATE, (json_of(txs),)).fetchall() if len(txs) else []

    def _in_ranges(self, txs: Column) -> dict[int, Column]:
        """The ids that lie within a range, by the number of its record, which may have taken them."""
        if not len(txs):
            return {}
        most = RANGES_PER_ID_MAX * len(txs)
        between = (int(txs[0]), int(txs[-1]), most + 1)
        ranges = self._connection.execute(_RANGES_BETWEEN, between).fetchall()
        if len(ranges) > most:
            ranges = self._connection.execute(_RANGES_OF, (json_of(txs),)).fetchall()
        if not ranges:
            return {}
        highest, lowest, numbers = np.array(ranges, dtype=np.int64).T
        place = np.minimum(np.searchsorted(highest, txs), len(highest) - 1)
        within = np.flatnonzero((lowest[place] <= txs) & (txs <= highest[place]))
        cuts = np.flatnonzero(np.diff(place[within])) + 1
        return {int(numbers[place[part[0]]]): txs[part] for part in np.split(within, cuts) if len(part)}

    def _taken_by(self, number: int) -> Taken:
        row = self._connection.execute(_TAKEN_BY, (number,)).fetchone()
        try:
            return unpacked(*row)
        except (TypeError, ValueError) as error:
            raise sqlite3.DatabaseError(f"what record {number} has taken cannot be read: {error}") from error


def _check_found(late: list[tuple[int, int]], found: Set[int]) -> None:
    if lost := sorted({tx for tx, _ in late} - found):
        raise sqlite3.DatabaseError(f"id {lost[0]} is not among those of the record that took it")
