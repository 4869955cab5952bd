"""One shard walked entry by entry, forward and back, each transaction decided by the plain rules.

What lies between is decided in columns. To go back, the scratch store is taken from a copy that was kept on the way,
and decided on from there; the last entries that were told are remembered.
"""

import secrets
import shutil
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hftpipe.audit.explain import Explained, Telling, explain_all
from hftpipe.audit.material import Material
from hftpipe.audit.parallel import Progress, Tell
from hftpipe.audit.recount import recount
from hftpipe.audit.scratch import Scratch
from hftpipe.core.columnar_ledger import ColumnarLedger
from hftpipe.core.entry import Entry, EntryId, Foreign
from hftpipe.core.picked_ledger import Wanted

PLACES_MAX: Final = 8
"""Copies of the store that are kept, besides that of the beginning; when there are more, every other one goes."""

PLACE_TRANSACTIONS: Final = 262_144
"""Transactions between two copies at first."""

REMEMBERED_ROWS_MAX: Final = 20_000
"""Transactions that are remembered as they were told; those of the latest entry in any case."""

_COMMIT_TRANSACTIONS: Final = 65_536
_TOLD_BACK: Final = 4
"""Entries that are told when going back, so that the next steps back find them."""

_PAGE_ENTRIES: Final = 64
"""Entries that are looked through at a time."""


@dataclass(frozen=True, slots=True)
class Told:
    """An entry, its number, and its transactions in their order; none of a dead letter."""

    number: int
    entry: Entry | Foreign
    rows: list[Explained]


class Walk:
    """Tells any entry of a shard.

    material: stays open as long as this is used. folder: for the scratch store and its copies alone.
    tell: how far it is; Interrupted, when it raises that, is raised by `entry` and `find`, which can be called again.
    """

    def __init__(
        self,
        shard: int,
        material: Material,
        folder: Path,
        tell: Tell,
        place_transactions: int = PLACE_TRANSACTIONS,
    ) -> None:
        self.material = material
        self._shard = shard
        self._folder = folder
        self._tell = tell
        self._apart = place_transactions
        self._telling = Telling(shard, material.taker)
        self._remembered: OrderedDict[int, Told] = OrderedDict()
        self._scratch = self._open_scratch()
        self._ledger = ColumnarLedger(seed=secrets.randbits(64))
        self._number = 0
        self._since_place = 0
        self._places: dict[int, Path] = {}
        self._keep_place()

    def close(self) -> None:
        """Lets go of the scratch store."""
        self._scratch.close()

    def entry(self, number: int) -> Told:
        """The entry of a number, 1 to `material.records`."""
        if (told := self._remembered.get(number)) is not None:
            self._remembered.move_to_end(number)
            return told
        first = number
        if number <= self._number:
            first = max(number - _TOLD_BACK + 1, 1)
            self._go_back(first - 1)
        self._fold_to(first - 1)
        for each, entry in enumerate(self.material.entries(first, number), first):
            told = self._decide(each, entry)
        assert told is not None, "the entries end with that number"  # noqa: S101
        return told

    def find(
        self, wanted: Wanted, number: int, index: int, *, is_back: bool = False
    ) -> tuple[int, int] | None:
        """The next wanted row behind a row, or before it: number of its entry, and its index there; None for none.

        number, index: of the row where the search begins, itself left out; index -1 is before the first of its entry.
        """
        for each, entry in self._backward(number) if is_back else self._forward(number):
            rows = _wanted_rows(entry, wanted)
            if each == number:
                rows = rows[rows < index] if is_back else rows[rows > index]
            if len(rows):
                return each, int(rows[-1 if is_back else 0])
        return None

    def number_of(self, entry_id: EntryId) -> int | None:
        """The number of an entry, of the newest with that id where the log had lost its tail; None for none."""
        records, number = self.material.records, entry_id.sequence + 1
        last = self._id_of(records) if records else None
        if last == EntryId(entry_id.generation, records - 1):  # as if no id was given twice, or skipped
            if not 0 < number <= records:
                return None
            if self._id_of(number) == entry_id:
                return number
        return next((each for each, entry in self._backward(records) if entry.id == entry_id), None)

    def _id_of(self, number: int) -> EntryId:
        (entry,) = self.material.entries(number, number)
        return entry.id

    def _forward(self, number: int) -> Iterator[tuple[int, Entry | Foreign]]:
        for first in range(max(number, 1), self.material.records + 1, _PAGE_ENTRIES):
            self._tell(Progress(self._shard, 0, 0, self.material.records))
            last = min(first + _PAGE_ENTRIES - 1, self.material.records)
            yield from enumerate(self.material.entries(first, last), first)

    def _backward(self, number: int) -> Iterator[tuple[int, Entry | Foreign]]:
        for last in range(number, 0, -_PAGE_ENTRIES):
            self._tell(Progress(self._shard, 0, 0, self.material.records))
            first = max(last - _PAGE_ENTRIES + 1, 1)
            yield from reversed(list(enumerate(self.material.entries(first, last), first)))

    # --- the scratch store, which stands behind entry `_number` --------------------------------------------------

    def _decide(self, number: int, entry: Entry | Foreign) -> Told:
        """Decides the next entry and tells it."""
        _, rows = explain_all(self._scratch, [entry], self._telling)
        self._number = number
        self._forget_accounts()
        told = self._remembered[number] = Told(number, entry, rows)
        self._remembered.move_to_end(number)
        while len(self._remembered) > 1 and self._rows_remembered() > REMEMBERED_ROWS_MAX:
            self._remembered.popitem(last=False)
        self._passed(len(rows))
        return told

    def _rows_remembered(self) -> int:
        return sum(len(told.rows) for told in self._remembered.values())

    def _fold_to(self, number: int) -> None:
        """Decides, in columns, what lies before the next entry that is to be told."""
        if number <= self._number:
            return
        entries = self.material.entries(self._number + 1, number)
        for commit in recount(self._scratch, entries, self._ledger, _COMMIT_TRANSACTIONS):
            passed = len(commit.records)
            rows = sum(record.count for record in commit.records)
            self._number += passed
            self._passed(rows)
            self._tell(Progress(self._shard, passed, rows, self.material.records))

    def _forget_accounts(self) -> None:
        """The columns do not know what was decided by the plain rules, or before a copy was taken up."""
        highest = self._scratch.checkpoint().highest_tx
        self._ledger = ColumnarLedger(highest, seed=secrets.randbits(64))

    def _go_back(self, number: int) -> None:
        """To the newest copy that stands at or before a number."""
        self._number = max(place for place in self._places if place <= number)
        self._scratch.close()
        shutil.copyfile(self._places[self._number], self._scratch.path)
        self._scratch = self._open_scratch()
        self._forget_accounts()
        self._since_place = 0

    def _passed(self, rows: int) -> None:
        self._since_place += rows
        if self._since_place >= self._apart and self._number > max(self._places):
            self._keep_place()

    def _keep_place(self) -> None:
        path = self._folder / f"place-{self._number}"
        shutil.copyfile(self._scratch.path, path)
        self._places[self._number] = path
        self._since_place = 0
        if len(self._places) - 1 > PLACES_MAX:
            self._apart *= 2
            for place in sorted(self._places)[1::2]:
                self._places.pop(place).unlink()

    def _open_scratch(self) -> Scratch:
        return Scratch(self._folder, self.material.identity, self.material.generation, journal=False)


def _wanted_rows(entry: Entry | Foreign, wanted: Wanted) -> NDArray[np.intp]:
    return (
        np.flatnonzero(wanted.among(entry.batch)) if isinstance(entry, Entry) else np.zeros(0, dtype=np.intp)
    )
