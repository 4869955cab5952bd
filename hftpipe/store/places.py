"""Where an entry stands in a journal, without an index of entry ids."""

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import orjson

from hftpipe.core.entry import EntryId

_OF_LOSSES: Final = "FROM entries WHERE substr(outcomes, 1, 8) = '{\"lost\":'"
LOSSES: Final = f"SELECT number, entry, outcomes {_OF_LOSSES} ORDER BY number"
COUNT_LOSSES: Final = f"SELECT count(*) {_OF_LOSSES}"
"""By the index `losses`, which holds no other records."""


class Loss(NamedTuple):
    """The record of entries that were given up; first is the last one where nobody knows how many they were."""

    number: int
    first: EntryId
    last: EntryId

    @property
    def more(self) -> int:
        """Entries beyond one: so many places has a record that stands for several."""
        return self.last.sequence - self.first.sequence


def loss_of(number: int, entry: str, outcomes: str) -> Loss:
    """The loss of a row of LOSSES. Raises sqlite3.DatabaseError when it cannot be read."""
    try:
        span = orjson.loads(outcomes)["lost"]
        last = EntryId.parse(entry)
        return Loss(number, EntryId.parse(span[0]) if span else last, last)
    except (ValueError, KeyError, TypeError) as error:
        raise sqlite3.DatabaseError(f"journal record {number} cannot be read: {error}") from error


@dataclass(frozen=True, slots=True)
class Places:
    """The records of a journal as places, of which a loss has one for each entry that was given up.

    From one place to the next, sequences rise by 1, but where the checkpoint went back they fall. So a step as wide as
    the sequence is off leads past no place of an entry, and each one that does not end there passed such a fall.

    losses: ascending. falls: how often sequences may fall.
    """

    losses: Sequence[Loss]
    falls: int

    def of(self, number: int) -> int:
        """The last place of a record."""
        return number + sum(loss.more for loss in self.losses if loss.number <= number)

    def find(self, entry: EntryId, start: int, entry_at: Callable[[int], EntryId | None]) -> int:
        """The record of an entry that is next to a place which lies before, or behind, all of them; 0 for none.

        entry_at: the entry of a record; None where there is no record.
        """
        place = start
        for _ in range(self.falls + len(self.losses) + 2):
            number, before = self._record_at(place)
            there = entry_at(number)
            if there is None:
                return 0
            there = there.moved(-before)
            if there.sequence == entry.sequence:
                return number if there == entry else 0
            place += entry.sequence - there.sequence
        return 0

    def _record_at(self, place: int) -> tuple[int, int]:
        """The record at a place, and how many places of the same record are behind it."""
        more = 0
        for loss in self.losses:
            if place <= loss.number + more + loss.more:
                if place < loss.number + more:
                    break
                return loss.number, loss.number + more + loss.more - place
            more += loss.more
        return place - more, 0
