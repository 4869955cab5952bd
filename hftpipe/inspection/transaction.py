"""All about one transaction id: who took it, who named it since, what became of each, and why."""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from hftpipe.core.entry import EntryId
from hftpipe.core.ledger import Account, Deposit, DisputeState, Undisputable
from hftpipe.core.rules import Refusal
from hftpipe.core.transaction import Kind
from hftpipe.core.why import APPLIED, Grounds, why
from hftpipe.errors import StoreDamaged, StoreUnavailable
from hftpipe.inspection.account import locked_by
from hftpipe.inspection.collecting import Collected, Plan, collect, disputes_until, plan_of
from hftpipe.inspection.home import Fault, Home
from hftpipe.ports import Movement
from hftpipe.store.inspecting import ShardInspector

NAMINGS_MAX: Final = 1_000
"""Transactions that name an id which are told, of each shard; the first ones."""
ACCOUNTS_MAX: Final = 8
"""Accounts whose balances are looked up for them, of each shard."""
RECORDS_MAX: Final = 400
"""Journal records that are read for a balance which did not decide; where it did, all are read."""

_MOVING: Final = frozenset({Kind.DEPOSIT, Kind.WITHDRAWAL})
_STATES: Final = {
    Kind.DISPUTE: DisputeState.DISPUTED,
    Kind.RESOLVE: DisputeState.RESOLVED,
    Kind.CHARGEBACK: DisputeState.CHARGED_BACK,
}


@dataclass(frozen=True, slots=True)
class Naming:
    """A transaction that names the id, and what it was decided on.

    is_taker: the id is its own. before, after: its account; None where that was not looked up.
    why: in words with numbers.
    """

    movement: Movement
    is_taker: bool
    why: str
    before: Account | None
    after: Account | None


@dataclass(frozen=True, slots=True)
class _Named:
    """Where one stands in the journal."""

    number: int
    place: int
    movement: Movement


@dataclass(frozen=True, slots=True)
class Looked:
    """What was found of an id, and how far that reaches.

    namings: shard by shard, each shard's in the order decided. checkpoints: the last entry that each shard had applied
    when its journal was looked at. faults: why the journals of the others could not be.
    """

    namings: list[Naming]
    checkpoints: Mapping[int, EntryId]
    faults: Mapping[int, Fault]


def namings_of(home: Home | None, tx: int) -> Looked:
    """Applied and refused transactions that name an id. A damaged shard hides no other. home: None where none is."""
    found: list[Naming] = []
    checkpoints: dict[int, EntryId] = {}
    faults: dict[int, Fault] = {}
    if home is None:
        return Looked(found, checkpoints, faults)
    for shard in sorted(home.paths):
        try:
            with home.inspecting(shard) as inspector:
                found += list(_namings(inspector, shard, tx))
                checkpoints[shard] = inspector.checkpoint.id
        except (StoreDamaged, StoreUnavailable) as fault:
            faults[shard] = fault
    return Looked(found, checkpoints, faults)


def _namings(inspector: ShardInspector, shard: int, tx: int) -> Iterator[Naming]:
    taker_number, mentions = inspector.naming_tx(tx)
    numbers = sorted({*mentions, *([] if taker_number is None else [taker_number])})
    named = _named(inspector, numbers, tx)
    taker = next((each for each in named if each.number == taker_number and _is_moving(each)), None)
    if taker_number is not None and taker is None and len(named) < NAMINGS_MAX:
        raise sqlite3.DatabaseError(f"journal record {taker_number} does not hold tx {tx}, which it took")
    accounts = _Accounts(inspector, named)
    stands: Deposit | Undisputable | None = None
    for each in named:
        movement, before, after = each.movement, *accounts.around(each)
        grounds = Grounds(
            movement.kind,
            movement.account,
            tx,
            movement.amount,
            before,
            None if _is_moving(each) else _copy(stands),
            _place(taker, movement.outcome, shard),
            accounts.locked_by(each, shard),
        )
        yield Naming(movement, each is taker, why(movement.outcome, grounds), before, after)
        stands = _stands(stands, each, is_taker=each is taker)


def _named(inspector: ShardInspector, numbers: Sequence[int], tx: int) -> list[_Named]:
    found: list[_Named] = []
    for number in numbers:
        told = inspector.told(number)
        found += [_Named(number, place, told.movement(place)) for place in told.places_naming(tx)]
        if len(found) >= NAMINGS_MAX:
            break
    return found[:NAMINGS_MAX]


def _stands(
    stands: Deposit | Undisputable | None, named: _Named, *, is_taker: bool
) -> Deposit | Undisputable | None:
    """What the id stands for behind a transaction that names it."""
    movement = named.movement
    if is_taker:
        is_deposit = movement.kind is Kind.DEPOSIT and movement.outcome == APPLIED
        return Deposit(movement.account, movement.amount) if is_deposit else Undisputable.TAKEN
    if isinstance(stands, Deposit) and movement.outcome == APPLIED and movement.kind in _STATES:
        return replace(stands, state=_STATES[movement.kind])
    return stands


def _place(taker: _Named | None, outcome: str, shard: int) -> str:
    """Who had taken the id, for people, where that decided."""
    if taker is None or outcome not in {Refusal.DUPLICATE_TX, Refusal.NOT_DISPUTABLE}:
        return ""
    return f"{shard}/{taker.movement.entry}, row {taker.movement.row}"


class _Accounts:
    """The accounts of some transactions of one shard, each read once."""

    def __init__(self, inspector: ShardInspector, named: Sequence[_Named]) -> None:
        self._inspector = inspector
        self._plans: dict[int, Plan] = {}
        self._known: dict[int, Collected] = {}
        self._locks: dict[int, str] = {}
        by_account: dict[int, list[_Named]] = {}
        for each in named:
            by_account.setdefault(each.movement.account, []).append(each)
        for account, theirs in list(by_account.items())[:ACCOUNTS_MAX]:
            plan = plan_of(inspector, account, theirs[-1].number, first=theirs[0].number)
            self._plans[account] = plan
            if len(plan.numbers) <= RECORDS_MAX or any(_is_of_balance(each) for each in theirs):
                self._known[account] = collect(inspector, plan)

    def around(self, named: _Named) -> tuple[Account | None, Account | None]:
        """The account before and behind a transaction."""
        collected = self._known.get(named.movement.account)
        if collected is None:
            return None, None
        index = collected.history.movements.place_of(named.number, named.place)
        return collected.history.after(index - 1), collected.history.after(index)

    def locked_by(self, named: _Named, shard: int) -> str:
        """What had locked the account, where that decided."""
        account = named.movement.account
        if account not in self._plans or named.movement.outcome != Refusal.ACCOUNT_LOCKED:
            return ""
        if account not in self._locks:
            disputes = disputes_until(self._inspector, self._plans[account])
            self._locks[account] = locked_by(disputes, self._inspector, shard)
        return self._locks[account]


def _is_of_balance(named: _Named) -> bool:
    """Whether it was refused for what the account held."""
    return named.movement.outcome in {Refusal.INSUFFICIENT_FUNDS, Refusal.OVERFLOW}


def _is_moving(named: _Named) -> bool:
    return named.movement.kind in _MOVING


def _copy(stands: Deposit | Undisputable | None) -> Deposit | Undisputable | None:
    return replace(stands) if isinstance(stands, Deposit) else stands
