"""What a journal record tells of its rows."""

import sqlite3
from dataclasses import dataclass

import numpy as np
import orjson

from hftpipe.core.entry import EntryId
from hftpipe.core.payload import Unreadable, read_columns
from hftpipe.core.transaction import Batch, Column, Kind
from hftpipe.ports import Movement

APPLIED = "applied"
GAP = "gap"
SKIPPED = "skipped"
REFUSED = "refused"
"""Any refusal, whatever its name."""


def entry_id(text: str) -> EntryId:
    """An entry id as a table has it. Raises sqlite3.DatabaseError when it is none."""
    try:
        return EntryId.parse(text)
    except ValueError as error:
        raise sqlite3.DatabaseError(str(error)) from error


@dataclass(frozen=True, slots=True)
class Line:
    """A journal record as it stands in the table, without what only seals it."""

    number: int
    entry: str
    source: str
    previous: int
    time_ms: int
    count: int
    payload: str
    outcomes: str


class Told:
    """A record of an entry of ours, decoded. Raises sqlite3.DatabaseError when it cannot be."""

    def __init__(self, shard: int, line: Line) -> None:
        self._shard = shard
        self._line = line
        self._entry = entry_id(line.entry)
        try:
            self._batch: Batch = read_columns(line.payload.encode(), line.previous, line.count)
            outcomes = orjson.loads(line.outcomes)
        except (Unreadable, ValueError) as error:
            raise sqlite3.DatabaseError(f"journal record {line.number} cannot be read: {error}") from error
        self._first: int = outcomes.get("skipped", 0)
        self._default = GAP if "gap" in outcomes else APPLIED
        refused = outcomes.get("refused", {})
        self._refused: dict[int, str] = {index: reason for reason in refused for index in refused[reason]}

    def __len__(self) -> int:
        return len(self._batch)

    def taking(self, txs: Column) -> dict[int, Movement]:
        """The rows that took these ids, all taken by this record: of each id the first that can have."""
        batch = self._batch
        found: dict[int, Movement] = {}
        if batch.txs is not None:
            places = np.flatnonzero(np.isin(batch.txs, txs) & batch.is_moving)
            places = places[places >= self._first]
            ids, firsts = np.unique(batch.txs[places], return_index=True)
            found = {
                tx: self.movement(int(places[first])) for tx, first in zip(ids.tolist(), firsts, strict=True)
            }
        if len(found) != len(txs):
            raise sqlite3.DatabaseError(
                f"journal record {self._line.number} does not hold an id that it took"
            )
        return found

    def naming(self, tx: int) -> list[Movement]:
        """All rows decided here that name an id."""
        return [self.movement(place) for place in self.places_naming(tx)]

    def places(self, account: int | None, outcome: str) -> list[int]:
        """Rows that were decided here, of one account unless None, that ended so.

        outcome: `applied`, `refused`, a refusal's name, or empty for all of them.
        """
        if self._default == GAP:
            return []
        is_refused = np.zeros(len(self._batch), dtype=np.bool_)
        is_refused[
            [index for index, why in self._refused.items() if outcome in {"", APPLIED, REFUSED, why}]
        ] = True
        is_wanted = np.ones(len(self._batch), dtype=np.bool_)
        if outcome:
            is_wanted = ~is_refused if outcome == APPLIED else is_refused
        is_wanted[: self._first] = False
        if account is not None:
            is_wanted &= self._batch.accounts == account
        return [int(place) for place in np.flatnonzero(is_wanted)]

    def places_naming(self, tx: int) -> list[int]:
        """Where rows decided here that name an id stand in the record's batch."""
        if self._batch.txs is None:
            return []
        return [place for place in np.flatnonzero(self._batch.txs == tx).tolist() if place >= self._first]

    def standing_at(self, positions: Column) -> dict[int, Movement]:
        """The rows at some positions of the source, ascending; absent where it has none, or it was not decided here."""
        places = np.flatnonzero(np.isin(self._batch.rows, positions))
        movements = [self.movement(place) for place in places.tolist() if place >= self._first]
        return {movement.row: movement for movement in movements}

    def movement(self, index: int) -> Movement:
        """The row at a place of the record's batch, whatever became of it."""
        batch = self._batch
        return Movement(
            self._shard,
            self._entry,
            self._line.source,
            int(batch.rows[index]),
            self._line.time_ms,
            Kind(batch.kinds[index]),
            int(batch.accounts[index]),
            None if batch.txs is None else int(batch.txs[index]),
            int(batch.amounts[index]),
            SKIPPED if index < self._first else self._refused.get(index, self._default),
        )
