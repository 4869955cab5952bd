"""The account rules as a pure state machine over batches.

First gather what may wait, then decide without waiting: `needs` says what must be known before some batches can be
decided, the caller asks the store and hands the answer to `learn`, then `apply_all` decides every transaction from
memory. A refusal is a value, never an exception. What it changed is handed out by `take_changes` and belongs in
one commit; when that commit fails, the ledger must be thrown away.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

import numpy as np

from hftpipe.core.rules import Account, Deposit, DisputeState, Refusal, Rules, Verdict
from hftpipe.core.transaction import Batch, Column, Kind

__all__ = [
    "Account",
    "Changes",
    "Deposit",
    "DisputeState",
    "Facts",
    "Ledger",
    "Needs",
    "Outcome",
    "Refusal",
    "Undisputable",
]


class Undisputable(Enum):
    """A transaction id that is taken, but not by a deposit that took effect."""

    TAKEN = "taken"


@dataclass(frozen=True, slots=True)
class Needs:
    """What the store must be asked: accounts, ids that may be taken, ids that disputes name; each ascending."""

    accounts: Column
    txs: Column
    disputed: Column

    @classmethod
    def of(
        cls, accounts: Iterable[int] = (), txs: Iterable[int] = (), disputed: Iterable[int] = ()
    ) -> "Needs":
        """Needs from plain integers, in any order."""
        return cls(
            *(np.unique(np.array(list(values), dtype=np.int64)) for values in (accounts, txs, disputed))
        )


@dataclass(frozen=True, slots=True)
class Facts:
    """The store's answer to `Needs`; what is absent does not exist."""

    accounts: dict[int, Account]
    taken: set[int]
    deposits: dict[int, Deposit | Undisputable]


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What became of one batch.

    refused: indexes of the refused rows by reason, ascending; the reasons in the order of `Refusal`, then those of
    changed rules' own by name.
    taken: indexes of the rows that took their id, ascending.
    """

    refused: Mapping[str, Column]
    taken: Column


@dataclass(frozen=True, slots=True, eq=False)
class Changes:
    """What a commit must write: the balances of all accounts that were named, and disputes.

    balances: a row an account, ascending: account, available, held, locked (0 or 1), and the number of the journal
    record that last named it.
    """

    balances: Column
    disputes: dict[int, Deposit]


class Ledger:
    """The accounts of one shard.

    highest_tx: every id that the store holds is at most this; ids above it cannot be duplicates.
    rules: what becomes of a transaction.
    """

    def __init__(self, highest_tx: int = -1, rules: Rules | None = None) -> None:
        self._rules = rules = rules if rules is not None else Rules()
        self._disputing = {"P": rules.dispute, "R": rules.resolve, "C": rules.charge_back}
        self._accounts: dict[int, Account] = {}
        self._highest_tx = highest_tx
        self._taken: set[int] = set()
        self._deposits: dict[int, Deposit | Undisputable] = {}
        self._watched: set[int] = set()
        self._named_by: dict[int, int] = {}
        self._disputes: dict[int, Deposit] = {}

    @property
    def highest_tx(self) -> int:
        """No id taken so far is above it; -1 when none is taken."""
        return self._highest_tx

    def needs(self, batches: Iterable[Batch]) -> Needs:
        """What must be learnt before these batches, the whole of one commit, are applied."""
        accounts: set[int] = set()
        txs: set[int] = set()
        disputed: set[int] = set()
        highest = self._highest_tx
        for batch in batches:
            accounts.update(batch.accounts.tolist())
            if batch.txs is not None:
                moving = batch.is_moving
                disputed.update(batch.txs[~moving].tolist())
                txs.update(batch.txs[moving & (batch.txs <= highest)].tolist())
        return Needs.of(accounts - self._accounts.keys(), txs, disputed)

    def learn(self, needs: Needs, facts: Facts) -> None:
        """Takes in the answer to `needs`; an account that the store does not know begins at zero."""
        self._meet(needs.accounts, facts.accounts)
        self._taken = set(facts.taken)
        self._deposits = dict(facts.deposits)
        self._watched = set(needs.disputed.tolist())

    def _meet(self, accounts: Column, known: Mapping[int, Account]) -> None:
        self._accounts.update({account: known.get(account) or Account() for account in accounts.tolist()})

    def apply_all(self, batches: Sequence[tuple[int, Batch]]) -> list[Outcome]:
        """Decides the batches that `needs` was asked about, in order; each with the number of its journal record."""
        return [self._apply(batch, number) for number, batch in batches]

    def _apply(self, batch: Batch, number: int) -> Outcome:
        """Decides each transaction in order.

        number: of the journal record that the batch came with.
        """
        ids = batch.accounts.tolist()
        self._named_by.update(dict.fromkeys(ids, number))
        txs: list[int | None] = [None] * len(batch) if batch.txs is None else batch.txs.tolist()
        taken, is_new = self._take(batch.kinds, txs)
        rows = zip(range(len(batch)), batch.kinds, ids, txs, batch.amounts.tolist(), is_new, strict=True)
        return Outcome(_by_reason(self._decide(rows)), np.array(taken, dtype=np.int64))

    def _take(self, kinds: str, txs: Sequence[int | None]) -> tuple[list[int], list[bool]]:
        """Indexes of the rows that take their id, and for each row whether it is the first use of its id."""
        known = self._taken
        taken: list[int] = []
        is_new: list[bool] = []
        for index, (kind, tx) in enumerate(zip(kinds, txs, strict=True)):
            first = kind in "DW" and tx not in known
            is_new.append(first)
            if first and tx is not None:
                known.add(tx)
                taken.append(index)
        return taken, is_new

    def _decide(self, rows: Iterable[tuple[int, str, int, int | None, int, bool]]) -> list[tuple[int, str]]:
        """The refused among some rows: index, kind, account, id, amount, whether the id is new."""
        accounts, watched = self._accounts, self._watched
        refused: list[tuple[int, str]] = []
        for index, kind, account_id, tx, amount, is_new in rows:
            account = accounts[account_id]
            if kind in "DW":
                refusal = self._move(kind, account, account_id, amount, is_new=is_new)
                if is_new and tx in watched:
                    self._watch(kind, account_id, tx, amount, refusal)
            else:
                refusal = self._dispute(kind, account, account_id, tx)
            if refusal is not None:
                refused.append((index, refusal))
        return refused

    def take_changes(self) -> Changes:
        """What all batches applied since the last call changed; the ledger starts anew from there."""
        named_by, self._named_by = self._named_by, {}
        disputes, self._disputes = self._disputes, {}
        self._highest_tx = max(self._highest_tx, max(self._taken, default=-1))
        balances = [
            (account, state.available, state.held, state.locked, number)
            for account, number in sorted(named_by.items())
            for state in [self._accounts[account]]
        ]
        return Changes(np.array(balances, dtype=np.int64).reshape(-1, 5), disputes)

    def _watch(self, kind: str, account_id: int, tx: int | None, amount: int, refusal: Verdict) -> None:
        """Remembers a transaction that a dispute of the same commit names."""
        if tx is not None:
            effective = refusal is None and kind == "D"
            self._deposits[tx] = Deposit(account_id, amount) if effective else Undisputable.TAKEN

    def _move(self, kind: str, account: Account, account_id: int, amount: int, *, is_new: bool) -> Verdict:
        rules = self._rules
        if (refusal := rules.admit(_KINDS[kind], account_id, account)) is not None:
            return refusal
        if not is_new:
            return Refusal.DUPLICATE_TX
        return rules.withdraw(account, amount) if kind == "W" else rules.deposit(account, amount)

    def _dispute(self, kind: str, account: Account, account_id: int, tx: int | None) -> Verdict:
        assert tx is not None, "validation and decoding let no dispute pass without a transaction id"  # noqa: S101
        if (refusal := self._rules.admit(_KINDS[kind], account_id, account)) is not None:
            return refusal
        deposit = self._deposits.get(tx)
        if deposit is None:
            return Refusal.UNKNOWN_TX
        if isinstance(deposit, Undisputable):
            return Refusal.NOT_DISPUTABLE
        if deposit.account != account_id:
            return Refusal.WRONG_ACCOUNT
        refusal = self._disputing[kind](account, deposit)
        if refusal is None:
            self._disputes[tx] = deposit
        return refusal


_KINDS: Final = {kind.value: kind for kind in Kind}


def _by_reason(refused: Sequence[tuple[int, str]]) -> dict[str, Column]:
    indexes: dict[str, list[int]] = {reason: [] for reason in Refusal}
    for reason in sorted({why for _, why in refused} - indexes.keys()):
        indexes[reason] = []
    for index, why in refused:
        indexes[why].append(index)
    return {reason: np.array(found, dtype=np.int64) for reason, found in indexes.items() if found}
