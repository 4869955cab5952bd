"""The fast path of the ledger: deposits and withdrawals of a whole commit, applied as columns.

An account is *special* in a commit when anything but ordinary deposits and withdrawals happens to it: another kind, a
lock, an id that a dispute of the same commit names, amounts near the bounds, many uncovered withdrawals. Accounts do
not touch each other, so the special ones are decided row by row as `ledger.py` says, and the others by running sums
over their rows. Whether a row is the first use of its id is found before, for the commit as a whole.
"""

from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hftpipe.core.account_table import AccountTable
from hftpipe.core.ledger import Account, Changes, Ledger, Outcome, Refusal
from hftpipe.core.transaction import Batch, Column

Flags: TypeAlias = NDArray[np.bool_]
Places: TypeAlias = NDArray[np.intp]

PASSES_MAX: Final = 8
"""Each pass finds one more uncovered withdrawal of each account; an account with more of them is special."""

NO_ID: Final = -1
"""Stands for the id of a row whose source has no such column."""

SAFE_SUM: Final = 2**61
"""Sums below it cannot leave 64 bits, whatever their order."""


class ColumnarLedger(Ledger):
    """Decides as `Ledger` does, outcome by outcome, sooner. Its accounts live in columns between commits."""

    def __init__(self, highest_tx: int = -1, accounts_max: int = 1_000_000) -> None:
        """accounts_max: with more of them, all are forgotten between two commits, and asked for again."""
        super().__init__(highest_tx)
        self._accounts_max = accounts_max
        self._table = AccountTable()
        self._named = np.zeros(0, dtype=np.intp)

    def apply_all(self, batches: Sequence[tuple[int, Batch]]) -> list[Outcome]:
        if not batches:
            return []
        rows = _Rows([batch for _, batch in batches])
        lengths = [len(batch) for _, batch in batches]
        owners, places = np.unique(rows.accounts, return_inverse=True)
        self._named = self._table.slots(owners.tolist())
        self._table.named_by[self._named[places]] = np.repeat([number for number, _ in batches], lengths)
        is_new = self._first_uses(rows)
        is_special = self._special(rows, places)
        refused = self._apply_columns(rows, places, is_new, is_special)
        refused += self._apply_plainly(rows, owners, places, is_new, is_special)
        return _outcomes(rows, lengths, is_new, sorted(refused))

    def take_changes(self) -> Changes:
        named, self._named = self._named, np.zeros(0, dtype=np.intp)
        disputes, self._disputes = self._disputes, {}
        return Changes(self._table.rows(named), disputes)

    def _unknown(self, accounts: set[int]) -> set[int]:
        if len(self._table) > self._accounts_max:
            self._table = AccountTable()
        return self._table.unknown(accounts)

    def _add(self, accounts: dict[int, Account]) -> None:
        self._table.add(accounts)

    def _first_uses(self, rows: "_Rows") -> Flags:
        """Which rows are deposits or withdrawals and the first use of their id; without an id, each is."""
        is_new = rows.moving.copy()
        moving = np.flatnonzero(rows.moving & (rows.txs != NO_ID))
        txs = rows.txs[moving]
        first = np.ones(len(txs), dtype=bool)
        if not (txs[1:] > txs[:-1]).all():
            order = np.argsort(txs, kind="stable")
            ordered = txs[order]
            first[order[1:][ordered[1:] == ordered[:-1]]] = False
        if self._taken:
            first &= ~_among(txs, self._taken)
        is_new[moving[~first]] = False
        if first.any():
            self._highest_tx = max(self._highest_tx, int(txs[first].max()))
        return is_new

    def _special(self, rows: "_Rows", places: Places) -> Flags:
        """Which accounts, of those named, need the plain rules."""
        table, named = self._table, self._named
        is_special = table.locked[named]
        is_special[places[~rows.moving]] = True
        if self._watched:
            is_special[places[_among(rows.txs, self._watched)]] = True
        is_special |= (np.abs(table.available[named]) >= SAFE_SUM) | (table.held[named] >= SAFE_SUM)
        if rows.amounts.sum(dtype=np.float64) >= SAFE_SUM:
            is_special[:] = True
        return is_special

    def _apply_columns(
        self, rows: "_Rows", places: Places, is_new: Flags, is_special: Flags
    ) -> list[tuple[int, Refusal]]:
        """Running sums over the rows of ordinary accounts; those that need too many passes turn special."""
        chosen = np.flatnonzero(~is_special[places])
        if not len(chosen):
            return []
        order = chosen[np.argsort(places[chosen], kind="stable")]
        sorted_places = places[order]
        starts = np.flatnonzero(np.diff(sorted_places, prepend=-1))
        segments = sorted_places[starts]
        slots = self._named[segments]
        changes = np.where(is_new[order], rows.signed[order], 0)
        uncovered, ends, is_hopeless = _cover(changes, starts, self._table.available[slots])
        self._table.available[slots[~is_hopeless]] = ends[~is_hopeless]
        is_special[segments[is_hopeless]] = True
        decided = ~is_special[sorted_places]
        duplicates = order[decided & ~is_new[order]]
        return [
            *((index, Refusal.DUPLICATE_TX) for index in duplicates.tolist()),
            *((index, Refusal.INSUFFICIENT_FUNDS) for index in order[uncovered[decided[uncovered]]].tolist()),
        ]

    def _apply_plainly(
        self, rows: "_Rows", owners: Column, places: Places, is_new: Flags, is_special: Flags
    ) -> list[tuple[int, Refusal]]:
        """The plain rules, for special accounts, in the order of their rows."""
        chosen = np.flatnonzero(is_special[places])
        if not len(chosen):
            return []
        ids, slots = owners[is_special].tolist(), self._named[is_special]
        self._accounts = dict(zip(ids, self._table.accounts(slots), strict=True))
        refused = self._decide(rows.plain(chosen, is_new))
        self._table.put(slots, list(self._accounts.values()))
        return refused


class _Rows:
    """The batches of a commit, one behind the other; `signed` is what a row adds to what is available."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self.letters = np.concatenate([batch.letters for batch in batches])
        self.accounts = np.concatenate([batch.accounts for batch in batches])
        self.amounts = np.concatenate([batch.amounts for batch in batches])
        self.txs = np.concatenate(
            [np.full(len(batch), NO_ID) if batch.txs is None else batch.txs for batch in batches]
        )
        deposits = self.letters == ord("D")
        self.moving: Flags = deposits | (self.letters == ord("W"))
        self.signed = np.where(deposits, self.amounts, -self.amounts)

    def plain(self, chosen: Places, is_new: Flags) -> "zip[tuple[int, str, int, int | None, int, bool]]":
        """Some rows as `Ledger` decides them."""
        txs = [None if tx == NO_ID else tx for tx in self.txs[chosen].tolist()]
        return zip(
            chosen.tolist(),
            self.letters[chosen].tobytes().decode("ascii"),
            self.accounts[chosen].tolist(),
            txs,
            self.amounts[chosen].tolist(),
            is_new[chosen].tolist(),
            strict=True,
        )


def _among(values: Column, wanted: set[int]) -> Flags:
    return np.isin(values, np.fromiter(wanted, np.int64, len(wanted)))


def _cover(changes: Column, starts: Places, available: Column) -> tuple[Places, Column, Flags]:
    """Runs each account's changes in order, leaving out withdrawals that are not covered.

    changes: signed amounts, one account's behind the other's. starts: where each begins. available: before the first.
    Returns the places left out, each account's balance at the end, and which accounts need more than PASSES_MAX passes.
    """
    lengths = np.diff(starts, append=len(changes))
    ends = np.zeros(len(starts), dtype=np.int64)
    left_out: list[Places] = []
    active = np.arange(len(starts))
    for _ in range(PASSES_MAX):
        places, firsts = _places_of(starts[active], lengths[active])
        steps = changes[places]
        running = np.cumsum(steps)
        running += np.repeat(available[active] - (running[firsts] - steps[firsts]), lengths[active])
        ends[active] = running[firsts + lengths[active] - 1]
        uncovered = np.flatnonzero((running < 0) & (steps < 0))
        if not len(uncovered):
            active = active[:0]
            break
        failing, first = np.unique(np.searchsorted(firsts, uncovered, side="right"), return_index=True)
        found = places[uncovered[first]]
        left_out.append(found)
        changes[found] = 0
        active = active[failing - 1]
    is_hopeless = np.zeros(len(starts), dtype=bool)
    is_hopeless[active] = True
    return np.concatenate(left_out) if left_out else active[:0], ends, is_hopeless


def _places_of(starts: Places, lengths: Places) -> tuple[Places, Places]:
    """The places of some segments, one behind the other, and where each begins among them."""
    firsts = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) + np.repeat(starts - firsts, lengths), firsts


def _outcomes(
    rows: _Rows, lengths: Sequence[int], is_new: Flags, refused: list[tuple[int, Refusal]]
) -> list[Outcome]:
    """What became of each batch, from what became of all."""
    outcomes: list[Outcome] = []
    start = position = 0
    for length in lengths:
        stop = start + length
        mine: list[tuple[int, Refusal]] = []
        while position < len(refused) and refused[position][0] < stop:
            index, reason = refused[position]
            mine.append((index - start, reason))
            position += 1
        taken = rows.txs[start:stop][is_new[start:stop] & (rows.txs[start:stop] != NO_ID)]
        outcomes.append(Outcome(mine, taken.tolist()))
        start = stop
    return outcomes
