"""Accounts in columns: under a hundred bytes each, found, read and written for a whole commit at once."""

from collections.abc import Mapping

import numpy as np

from hftpipe.core.ledger import Account
from hftpipe.core.slot_table import Slots, SlotTable
from hftpipe.core.transaction import Column


class AccountTable(SlotTable):
    """One slot an account, never given up.

    available, held: ten-thousandths. named_by: number of the journal record that last named the account.
    """

    COLUMNS = ("ids", "available", "held", "locked", "named_by")

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.available = np.zeros_like(self.ids)
        self.held = np.zeros_like(self.ids)
        self.locked = np.zeros_like(self.ids, dtype=bool)
        self.named_by = np.zeros_like(self.ids)

    def add(self, accounts: Column, known: Mapping[int, Account]) -> None:
        """Gives accounts that have none a slot each; those that are not `known` begin at zero."""
        self.enter(accounts)
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
        return np.column_stack([getattr(self, name)[slots] for name in self.COLUMNS])
