"""The fast path of the ledger: the rows of a whole commit, applied as columns.

Whether a row is the first use of its id is found for the commit as a whole. Whether a dispute or resolve takes effect
does not depend on a balance, so these few are decided next, one by one; from there on they are changes like any other.
Balances are then running sums over each account's rows.

A locked account refuses everything. An account is *special* in a commit when the rest does not hold for it: it may
become locked, or amounts are near the bounds. Special accounts are decided row by row as `ledger.py` says. Accounts do
not touch each other; where one disputes what another does in the same commit, all accounts with disputes are special.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hftpipe.core.account_table import AccountTable
from hftpipe.core.ledger import Account, Changes, Deposit, Ledger, Needs, Outcome, Refusal, Undisputable
from hftpipe.core.slot_table import UNKNOWN, Slots
from hftpipe.core.transaction import Batch, Column

Flags: TypeAlias = NDArray[np.bool_]
Places: TypeAlias = NDArray[np.intp]
Codes: TypeAlias = NDArray[np.uint8]

NO_ID: Final = -1
"""Stands for the id of a row whose source has no such column."""

ROUND_ACCOUNTS_MIN: Final = 64
"""A round over fewer accounts costs more than their rows one by one."""

SAFE_SUM: Final = 2**61
"""Sums below it cannot leave 64 bits, whatever their order."""

_REASONS: Final = tuple(Refusal)
_CODES: Final[dict[str, int]] = {reason: code for code, reason in enumerate(_REASONS, 1)}
"""Why a row was refused, as a small number; 0 for a row that was not."""


class ColumnarLedger(Ledger):
    """Decides as `Ledger` does by the standard rules, outcome by outcome, sooner. Its accounts live in columns."""

    def __init__(self, highest_tx: int = -1, accounts_max: int = 1_000_000, seed: int = 0) -> None:
        """accounts_max: with more of them, all are forgotten between two commits, and asked for again.

        seed: of the account table.
        """
        super().__init__(highest_tx)
        self._accounts_max = accounts_max
        self._seed = seed
        self._table = AccountTable(seed)
        self._rows = _Rows([])
        self._named = np.zeros(0, dtype=np.int32)

    def needs(self, batches: Iterable[Batch]) -> Needs:
        if len(self._table) > self._accounts_max:
            self._table = AccountTable(self._seed)
        rows = self._rows = _Rows(list(batches))
        rows.slots = self._table.find(rows.accounts)
        is_late = rows.moving & (rows.txs != NO_ID) & (rows.txs <= self._highest_tx)
        return Needs(
            np.unique(rows.accounts[rows.slots == UNKNOWN]),
            np.unique(rows.txs[is_late]),
            np.unique(rows.txs[~rows.moving]),
        )

    def apply_all(self, batches: Sequence[tuple[int, Batch]]) -> list[Outcome]:
        rows = self._rows
        lengths = [len(batch) for _, batch in batches]
        assert sum(lengths) == len(rows.slots), "these are not the batches that `needs` was asked about"  # noqa: S101
        if not len(rows.slots):
            return _outcomes(rows, lengths, rows.moving, np.zeros(0, dtype=np.uint8))
        is_new = self._first_uses(rows)
        groups = _Groups(rows.slots)
        self._named = groups.slots
        numbers = np.repeat([number for number, _ in batches], lengths)
        self._table.named_by[groups.slots] = numbers[groups.order[groups.ends - 1]]
        made = self._made(rows, is_new)
        is_special = self._special(rows, groups, made)
        codes = np.where(rows.moving & ~is_new, np.uint8(_CODES[Refusal.DUPLICATE_TX]), np.uint8(0))
        is_locked = self._table.locked[groups.slots] & ~is_special
        codes[groups.rows_of(is_locked)] = _CODES[Refusal.ACCOUNT_LOCKED]
        is_ordinary = ~(is_special | is_locked)
        added = self._apply_disputes(rows, made, groups.rows_of(is_ordinary), codes)
        self._apply_columns(rows, groups, is_new, added, is_ordinary, codes)
        self._apply_plainly(rows, groups, is_new, is_special, codes)
        return _outcomes(rows, lengths, is_new, codes)

    def take_changes(self) -> Changes:
        named, self._named = self._named, np.zeros(0, dtype=np.int32)
        disputes, self._disputes = self._disputes, {}
        return Changes(self._table.balances(named), disputes)

    def _meet(self, accounts: Column, known: Mapping[int, Account]) -> None:
        self._table.add(accounts, known)
        unknown = np.flatnonzero(self._rows.slots == UNKNOWN)
        self._rows.slots[unknown] = self._table.find(self._rows.accounts[unknown])

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

    def _special(self, rows: "_Rows", groups: "_Groups", made: "Mapping[int, _Made]") -> Flags:
        """Which accounts, of those named, need the plain rules."""
        if rows.amounts.sum(dtype=np.float64) >= SAFE_SUM:
            return np.ones(len(groups.slots), dtype=bool)
        table, slots = self._table, groups.slots
        is_special = (np.abs(table.available[slots]) >= SAFE_SUM) | (table.held[slots] >= SAFE_SUM)
        if rows.moving.all():
            return is_special
        entangled, moved = self._entangled(rows, made)
        if moved >= SAFE_SUM:
            return is_special | groups.any(~rows.moving | _among(rows.txs, self._watched))
        is_special |= groups.any(rows.letters == ord("C"))
        return is_special | _among(table.ids[slots], entangled) if entangled else is_special

    def _entangled(self, rows: "_Rows", made: "Mapping[int, _Made]") -> tuple[set[int], int]:
        """The accounts of which one disputes what the other does in the same commit; and the sum of what is disputed.

        Whether a deposit was refused is to be known before such a dispute is decided.
        """
        disputes = np.flatnonzero(~rows.moving)
        entangled: set[int] = set()
        moved = 0
        for account, tx in zip(rows.accounts[disputes].tolist(), rows.txs[disputes].tolist(), strict=True):
            row, deposit = made.get(tx), self._deposits.get(tx)
            if row is not None:
                if row.account != account:
                    entangled |= {row.account, account}
                moved += row.amount
            elif isinstance(deposit, Deposit):
                moved += deposit.amount
        return entangled, moved

    def _made(self, rows: "_Rows", is_new: Flags) -> "dict[int, _Made]":
        """The rows of this commit that take an id which a dispute of this commit names."""
        if not self._watched:
            return {}
        found = np.flatnonzero(is_new & _among(rows.txs, self._watched))
        columns = (rows.txs[found], found, rows.letters[found], rows.accounts[found], rows.amounts[found])
        picked = zip(*(column.tolist() for column in columns), strict=True)
        return {tx: _Made(*others) for tx, *others in picked}

    def _apply_disputes(
        self, rows: "_Rows", made: "Mapping[int, _Made]", is_ordinary: Flags, codes: Codes
    ) -> Column:
        """Decides the disputes and resolves of ordinary accounts; returns what each row adds to what is available.

        Whether one takes effect does not depend on a balance: its account is not locked, and its sums are safe.
        """
        added = np.zeros(len(rows.letters), dtype=np.int64)
        chosen = np.flatnonzero(~rows.moving & is_ordinary)
        columns = (chosen, rows.letters[chosen], rows.accounts[chosen], rows.txs[chosen])
        for place, letter, account, tx in zip(*(column.tolist() for column in columns), strict=True):
            row = made.get(tx)
            if row is not None and row.place < place and tx not in self._deposits:
                is_deposit = row.letter == ord("D")
                self._deposits[tx] = Deposit(row.account, row.amount) if is_deposit else Undisputable.TAKEN
            moved = Account()
            refusal = self._dispute(chr(letter), moved, account, tx)
            added[place] = moved.available
            if refusal is not None:
                codes[place] = _CODES[refusal]
        np.subtract.at(self._table.held, rows.slots[chosen], added[chosen])
        return added

    def _apply_columns(
        self, rows: "_Rows", groups: "_Groups", is_new: Flags, added: Column, is_ordinary: Flags, codes: Codes
    ) -> None:
        """Running sums over the rows of ordinary accounts; of an account that runs short, row by row."""
        table, order = self._table, groups.order
        changes = (np.where(is_new, rows.signed, 0) + added)[order]
        if not is_ordinary.all():
            changes[np.repeat(~is_ordinary, groups.lengths)] = 0
        available = np.where(is_ordinary, table.available[groups.slots], 0)
        running = np.cumsum(changes)
        running += np.repeat(available - (running[groups.starts] - changes[groups.starts]), groups.lengths)
        ends = running[groups.ends - 1]
        may_be_refused = (changes < 0) & is_new[order]
        runs_short = (running < 0) & may_be_refused
        if runs_short.any():
            short = np.flatnonzero(np.logical_or.reduceat(runs_short, groups.starts))
            uncovered, ends[short] = _cover(
                changes, may_be_refused, groups.starts[short], groups.ends[short], available[short]
            )
            codes[order[uncovered]] = _CODES[Refusal.INSUFFICIENT_FUNDS]
        table.available[groups.slots[is_ordinary]] = ends[is_ordinary]

    def _apply_plainly(
        self, rows: "_Rows", groups: "_Groups", is_new: Flags, is_special: Flags, codes: Codes
    ) -> None:
        """The plain rules, for special accounts, in the order of their rows."""
        if not is_special.any():
            return
        slots = groups.slots[is_special]
        chosen = np.flatnonzero(groups.rows_of(is_special))
        ids = self._table.ids[slots].tolist()
        self._accounts = dict(zip(ids, self._table.accounts(slots), strict=True))
        refused = self._decide(rows.plain(chosen, is_new))
        self._table.put(slots, list(self._accounts.values()))
        codes[chosen] = 0
        if refused:
            codes[[index for index, _ in refused]] = [_CODES[reason] for _, reason in refused]


class _Made(NamedTuple):
    """A row that takes an id, as far as a dispute in the same commit needs to know."""

    place: int
    letter: int
    account: int
    amount: int


class _Rows:
    """The batches of a commit, one behind the other; `signed` is what a row adds to what is available."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self.letters: Codes = np.frombuffer(
            "".join(batch.kinds for batch in batches).encode("ascii"), dtype=np.uint8
        )
        self.accounts = _joined([batch.accounts for batch in batches])
        self.amounts = _joined([batch.amounts for batch in batches])
        self.txs = _joined([_ids(batch) for batch in batches])
        deposits = self.letters == ord("D")
        self.moving: Flags = deposits | (self.letters == ord("W"))
        self.signed = np.where(deposits, self.amounts, -self.amounts)
        self.slots: Slots = np.zeros(0, dtype=np.int32)

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


class _Groups:
    """The rows of a commit by account: `order` lists them, account by account, each account's in their order.

    slots: of the accounts. starts, ends: where each one's rows begin and end in `order`.
    """

    def __init__(self, slots: Slots) -> None:
        # numpy sorts 16 bits by radix: two passes over small numbers are sooner than one over large ones.
        self.order: Places = np.argsort(slots.astype(np.uint16), kind="stable")
        high = (slots >> 16).astype(np.uint16)
        if high.any():
            self.order = self.order[np.argsort(high[self.order], kind="stable")]
        ordered = slots[self.order]
        self.starts: Places = np.flatnonzero(np.diff(ordered, prepend=-1))
        self.ends: Places = np.append(self.starts[1:], len(ordered))
        self.slots: Slots = ordered[self.starts]

    @property
    def lengths(self) -> Places:
        """How many rows each account has: `np.repeat` makes one value a row of one an account with it."""
        return self.ends - self.starts

    def rows_of(self, accounts: Flags) -> Flags:
        """Which rows, as they came, belong to some accounts."""
        flags = np.zeros(len(self.order), dtype=bool)
        flags[self.order] = np.repeat(accounts, self.lengths)
        return flags

    def any(self, flags: Flags) -> Flags:
        """Which accounts have a row with that flag."""
        return np.logical_or.reduceat(flags[self.order], self.starts)


def _joined(columns: Sequence[Column]) -> Column:
    return np.concatenate(columns) if columns else np.zeros(0, dtype=np.int64)


def _ids(batch: Batch) -> Column:
    return np.full(len(batch), NO_ID) if batch.txs is None else batch.txs


def _among(values: Column, wanted: set[int]) -> Flags:
    """Which values are wanted; of many, most are not. `numpy.isin` would sort the values where they lie far apart."""
    if not wanted:
        return np.zeros(len(values), dtype=bool)
    ordered = np.sort(np.fromiter(wanted, np.int64, len(wanted)))
    places = np.searchsorted(ordered, values)
    places[places == len(ordered)] = 0
    found: Flags = ordered[places] == values
    return found


def _cover(
    changes: Column, may_be_refused: Flags, starts: Places, ends: Places, available: Column
) -> tuple[Places, Column]:
    """Runs some accounts' changes row by row, leaving out withdrawals that are not covered.

    The first rows of all accounts go in one round, then the second ones, while that is sooner than one by one.
    changes: signed amounts, one account's behind the other's. starts, ends: of each. available: before the first.
    Returns the places left out, and each account's balance at the end.
    """
    longest_first = np.argsort(starts - ends, kind="stable")
    firsts, lengths = starts[longest_first], (ends - starts)[longest_first]
    balances = available[longest_first]
    left_out: list[Places] = []
    row, active = 0, len(firsts)
    while active >= ROUND_ACCOUNTS_MIN:
        places = firsts[:active] + row
        after = balances[:active] + changes[places]
        is_refused = (after < 0) & may_be_refused[places]
        left_out.append(places[is_refused])
        balances[:active] = np.where(is_refused, balances[:active], after)
        row += 1
        active = int(np.searchsorted(-lengths, -row))
    alone: list[int] = []
    for account in range(active):
        start, end, balance = (
            int(firsts[account]) + row,
            int(ends[longest_first[account]]),
            int(balances[account]),
        )
        steps = zip(changes[start:end].tolist(), may_be_refused[start:end].tolist(), strict=True)
        for place, (change, is_refusable) in enumerate(steps, start):
            after_it = balance + change
            if after_it < 0 and is_refusable:
                alone.append(place)
            else:
                balance = after_it
        balances[account] = balance
    ended = np.empty_like(balances)
    ended[longest_first] = balances
    return np.concatenate([*left_out, np.array(alone, dtype=np.intp)]), ended


def _outcomes(rows: _Rows, lengths: Sequence[int], is_new: Flags, codes: Codes) -> list[Outcome]:
    """What became of each batch, from what became of all."""
    outcomes: list[Outcome] = []
    takes = is_new & (rows.txs != NO_ID)
    start = 0
    for length in lengths:
        stop = start + length
        outcomes.append(Outcome(_by_reason(codes[start:stop]), np.flatnonzero(takes[start:stop])))
        start = stop
    return outcomes


def _by_reason(codes: Codes) -> dict[str, Column]:
    refused = np.flatnonzero(codes)
    if not len(refused):
        return {}
    found = codes[refused]
    return {_REASONS[code - 1]: refused[found == code] for code in sorted(set(found.tolist()))}
