"""Accounts in columns: two to three hundred bytes each, and read or written for a whole commit at once."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hftpipe.core.ledger import Account, Balance

_FIRST_CAPACITY: Final = 1_024


class AccountTable:
    """One slot an account, never given up.

    available, held: ten-thousandths. named_by: number of the journal record that last named the account.
    """

    def __init__(self) -> None:
        self._slots: dict[int, int] = {}
        self._ids = np.zeros(_FIRST_CAPACITY, dtype=np.int64)
        self.available = np.zeros(_FIRST_CAPACITY, dtype=np.int64)
        self.held = np.zeros(_FIRST_CAPACITY, dtype=np.int64)
        self.locked = np.zeros(_FIRST_CAPACITY, dtype=bool)
        self.named_by = np.zeros(_FIRST_CAPACITY, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._slots)

    def unknown(self, accounts: set[int]) -> set[int]:
        """Those that have no slot."""
        return accounts - self._slots.keys()

    def slots(self, accounts: Sequence[int]) -> NDArray[np.intp]:
        """The slot of each account; all are known."""
        return np.fromiter(map(self._slots.__getitem__, accounts), np.intp, len(accounts))

    def add(self, accounts: Mapping[int, Account]) -> None:
        """Gives unknown accounts a slot each."""
        if not accounts:
            return
        first = len(self._slots)
        self._grow(first + len(accounts))
        self._slots.update(zip(accounts, range(first, first + len(accounts)), strict=True))
        slots = np.arange(first, first + len(accounts))
        self._ids[slots] = list(accounts)
        self.put(slots, list(accounts.values()))

    def accounts(self, slots: NDArray[np.intp]) -> list[Account]:
        """Copies of some accounts."""
        return [
            Account(available, held, locked)
            for available, held, locked in zip(
                self.available[slots].tolist(),
                self.held[slots].tolist(),
                self.locked[slots].tolist(),
                strict=True,
            )
        ]

    def put(self, slots: NDArray[np.intp], accounts: Sequence[Account]) -> None:
        """Writes accounts into their slots."""
        self.available[slots] = [account.available for account in accounts]
        self.held[slots] = [account.held for account in accounts]
        self.locked[slots] = [account.locked for account in accounts]

    def rows(self, slots: NDArray[np.intp]) -> list[Balance]:
        """Some accounts as a commit writes them."""
        return list(
            zip(
                self._ids[slots].tolist(),
                self.available[slots].tolist(),
                self.held[slots].tolist(),
                self.locked[slots].tolist(),
                self.named_by[slots].tolist(),
                strict=True,
            )
        )

    def _grow(self, wanted: int) -> None:
        capacity = len(self._ids)
        if wanted > capacity:
            more = max(wanted, 2 * capacity) - capacity
            for name in ("_ids", "available", "held", "locked", "named_by"):
                column = getattr(self, name)
                setattr(self, name, np.concatenate([column, np.zeros(more, dtype=column.dtype)]))
