"""Numbers found, and given places, for a whole batch at once: open addressing in columns."""

from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from hftpipe.core.transaction import Column

Slots = NDArray[np.int32]
"""Places of numbers in the columns; UNKNOWN for a number that has none."""

UNKNOWN: Final = -1

_FIRST_CAPACITY: Final = 1_024


class SlotTable:
    """One slot a number, never given up; subclasses keep columns beside `ids`, named in COLUMNS.

    ids: the numbers, 0..2^63-1, by slot.
    """

    COLUMNS: ClassVar[tuple[str, ...]] = ("ids",)

    def __init__(self, seed: int = 0) -> None:
        """seed: 64 bits that nobody who chooses the numbers knows; else he could make them meet in one bucket."""
        self._seed = np.uint64(seed)
        self._count = 0
        self.ids = np.zeros(_FIRST_CAPACITY, dtype=np.int64)
        self._buckets = _empty(2 * _FIRST_CAPACITY)

    def __len__(self) -> int:
        return self._count

    def find(self, ids: Column) -> Slots:
        """The slot of each number, or UNKNOWN."""
        found = np.full(len(ids), UNKNOWN, dtype=np.int32)
        searching = np.arange(len(ids))
        buckets = self._first_buckets(ids)
        while len(searching):
            slots = self._buckets[buckets]
            is_hit = (slots != UNKNOWN) & (self.ids[slots] == ids[searching])
            found[searching[is_hit]] = slots[is_hit]
            goes_on = (slots != UNKNOWN) & ~is_hit
            searching = searching[goes_on]
            buckets = (buckets[goes_on] + 1) & (len(self._buckets) - 1)
        return found

    def enter(self, ids: Column) -> slice:
        """Gives numbers that have none, each there once, a slot each; their places in the columns are zero."""
        first, self._count = self._count, self._count + len(ids)
        self._grow(first)
        new = slice(first, self._count)
        self.ids[new] = ids
        self._settle(np.arange(first, self._count, dtype=np.int32))
        return new

    # --- a number's bucket is the first free one from where its hash points --------------------------------------

    def _first_buckets(self, ids: Column) -> NDArray[np.int64]:
        # The finaliser of SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
        mixed = ids.astype(np.uint64) ^ self._seed
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
        return (mixed & np.uint64(len(self._buckets) - 1)).astype(np.int64)

    def _settle(self, slots: Slots) -> None:
        """Puts slots into free buckets; of several that want the same one, one gets it, the others go on."""
        buckets = self._first_buckets(self.ids[slots])
        while len(slots):
            is_free = self._buckets[buckets] == UNKNOWN
            self._buckets[buckets[is_free]] = slots[is_free]
            goes_on = self._buckets[buckets] != slots
            slots = slots[goes_on]
            buckets = (buckets[goes_on] + 1) & (len(self._buckets) - 1)

    def _grow(self, used: int) -> None:
        """Makes room for the count; so many slots are in use."""
        capacity = len(self.ids)
        if self._count <= capacity:
            return
        while capacity < self._count:
            capacity *= 2
        for name in self.COLUMNS:
            column = getattr(self, name)
            grown = np.zeros(capacity, dtype=column.dtype)
            grown[:used] = column[:used]
            setattr(self, name, grown)
        self._buckets = _empty(2 * capacity)
        self._settle(np.arange(used, dtype=np.int32))


def _empty(count: int) -> Slots:
    return np.full(count, UNKNOWN, dtype=np.int32)
