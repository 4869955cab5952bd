"""The fast ledger, which walks the few rows that somebody asks about."""

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hftpipe.core.columnar_ledger import ColumnarLedger
from hftpipe.core.ledger import Facts, Needs, Outcome
from hftpipe.core.transaction import Batch, Column
from hftpipe.core.walked_ledger import Decision, Place, WalkedLedger

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Transactions that concern one of some accounts, or name one of some ids."""

    accounts: Set[int] = frozenset()
    txs: Set[int] = frozenset()

    def among(self, batch: Batch) -> Flags:
        """Which rows of a batch are meant."""
        found = _among(batch.accounts, self.accounts)
        if batch.txs is not None:
            found |= _among(batch.txs, self.txs)
        return found


class PickedLedger(ColumnarLedger):
    """Decides all rows in columns, and those that are wanted by the plain rules too.

    `decisions` has one for each of these of the last `apply_all`, in their order.
    """

    def __init__(
        self, wanted: Wanted, ask: Callable[[Needs], Facts], highest_tx: int = -1, seed: int = 0
    ) -> None:
        """ask: what the store knows, before what is applied is committed to it. seed: see `ColumnarLedger`."""
        super().__init__(highest_tx, seed=seed)
        self._wanted = wanted
        self._ask = ask
        self.decisions: list[Decision] = []

    def apply_all(self, batches: Sequence[tuple[int, Batch]]) -> list[Outcome]:
        self.decisions = self._walked(batches)
        return super().apply_all(batches)

    def _walked(self, batches: Sequence[tuple[int, Batch]]) -> list[Decision]:
        """Walks the wanted rows, and with them all rows that decide about them."""
        wanted = [self._wanted.among(batch) for _, batch in batches]
        if not any(flags.any() for flags in wanted):
            return []
        concerned = _concerned([batch for _, batch in batches], wanted)
        picked = [np.flatnonzero(np.isin(batch.accounts, concerned)) for _, batch in batches]
        parts = [
            (number, batch.pick(rows))
            for (number, batch), rows in zip(batches, picked, strict=True)
            if len(rows)
        ]
        ledger = WalkedLedger(self._highest_tx)
        needs = ledger.needs(batch for _, batch in parts)
        ledger.learn(needs, self._ask(needs))
        ledger.apply_all(parts)
        rows_of = {number: rows for (number, _), rows in zip(batches, picked, strict=True)}
        flags_of = {number: flags for (number, _), flags in zip(batches, wanted, strict=True)}

        def whole(place: Place) -> Place:
            return Place(place.number, int(rows_of[place.number][place.index]))

        told = (
            replace(
                decision,
                place=whole(decision.place),
                taken_by=whole(decision.taken_by) if decision.taken_by is not None else None,
            )
            for decision in ledger.decisions
        )
        return [decision for decision in told if flags_of[decision.place.number][decision.place.index]]


def _concerned(batches: Sequence[Batch], wanted: Sequence[Flags]) -> Column:
    """The accounts of the wanted rows, and of all rows whose ids those accounts use in the same call.

    Rows of other accounts decide nothing about them: accounts meet in ids alone.
    """
    accounts = np.concatenate([batch.accounts for batch in batches])
    txs = np.concatenate([np.full(len(batch), -1) if batch.txs is None else batch.txs for batch in batches])
    concerned = np.unique(accounts[np.concatenate(wanted)])
    while True:
        used = txs[np.isin(accounts, concerned)]
        grown = np.unique(np.append(concerned, accounts[np.isin(txs, used[used >= 0])]))
        if len(grown) == len(concerned):
            return concerned
        concerned = grown


def _among(values: Column, wanted: Set[int]) -> Flags:
    return np.isin(values, np.fromiter(wanted, np.int64, len(wanted)))
