"""Accounts in columns: under a hundred bytes each, found, read and written for a whole commit at once."""

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hftpipe.core.ledger import Account
from hftpipe.core.transaction import Column

Slots = NDArray[np.int32]
"""Places of accounts in the columns; UNKNOWN for an account that has none."""

UNKNOWN: Final = -1

_FIRST_CAPACITY: Final = 1_024
_COLUMNS: Final = ("ids", "available", "held", "locked", "named_by")


class AccountTable:
    """One slot an account, never given up.

    available, held: ten-thousandths. named_by: number of the journal record that last named the account.
    """

    def __init__(self, seed: int = 0) -> None:
        """seed: 64 bits that nobody who chooses account ids knows; else he could make them meet in one bucket."""
        self._seed = np.uint64(seed)
        self._count = 0
        self.ids = np.zeros(_FIRST_CAPACITY, dtype=np.int64)
        self.available = np.zeros(_FIRST_CAPACITY, dtype=np.int64)
        self.held = np.zeros(_FIRST_CAPACITY, dtype=np.int64)
        self.locked = np.zeros(_FIRST_CAPACITY, dtype=bool)
        self.named_by = np.zeros(_FIRST_CAPACITY, dtype=np.int64)
        self._buckets = _empty(2 * _FIRST_CAPACITY)

    def __len__(self) -> int:
        return self._count

    def find(self, accounts: Column) -> Slots:
        """The slot of each account, or UNKNOWN."""
        found = np.full(len(accounts), UNKNOWN, dtype=np.int32)
        searching = np.arange(len(accounts))
        buckets = self._first_buckets(accounts)
        while len(searching):
            slots = self._buckets[buckets]
            is_hit = (slots != UNKNOWN) & (self.ids[slots] == accounts[searching])
            found[searching[is_hit]] = slots[is_hit]
            goes_on = (slots != UNKNOWN) & ~is_hit
            searching = searching[goes_on]
            buckets = (buckets[goes_on] + 1) & (len(self._buckets) - 1)
        return found

    def add(self, accounts: Column, known: Mapping[int, Account]) -> None:
        """Gives accounts that have none a slot each; those that are not `known` begin at zero."""
        first, self._count = self._count, self._count + len(accounts)
        self._grow(first)
        self.ids[first : self._count] = accounts
        self._enter(np.arange(first, self._count, dtype=np.int32))
        if known:
            self.put(self.find(np.fromiter(known, np.int64, len(known))), list(known.values()))

    def accounts(self, slots: Slots) -> list[Account]:
        """Copies of some accounts."""
        columns = (self.available[slots].tolist(), self.held[slots].tolist(), self.locked[slots].tolist())
        return [Account(*values) for values in zip(*columns, strict=True)]

    def put(self, slots: Slots, accounts: list[Account]) -> None:
        """Writes accounts into their slots."""
        self.available[slots] = [account.available for account in accounts]
        self.held[slots] = [account.held for account in accounts]
        self.locked[slots] = [account.locked for account in accounts]

    def balances(self, slots: Slots) -> Column:
        """Some accounts as a commit writes them, ascending: the rows of `ledger.Changes`."""
        slots = slots[np.argsort(self.ids[slots])]
        return np.column_stack([getattr(self, name)[slots] for name in _COLUMNS])

    # --- open addressing: an account's bucket is the first free one from where its hash points -------------------

    def _first_buckets(self, accounts: Column) -> NDArray[np.int64]:
        # The finaliser of SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
        mixed = accounts.astype(np.uint64) ^ self._seed
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
        return (mixed & np.uint64(len(self._buckets) - 1)).astype(np.int64)

    def _enter(self, slots: Slots) -> None:
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
        for name in _COLUMNS:
            column = getattr(self, name)
            grown = np.zeros(capacity, dtype=column.dtype)
            grown[:used] = column[:used]
            setattr(self, name, grown)
        self._buckets = _empty(2 * capacity)
        self._enter(np.arange(used, dtype=np.int32))


def _empty(count: int) -> Slots:
    return np.full(count, UNKNOWN, dtype=np.int32)
