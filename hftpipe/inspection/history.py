"""One account's history: its movements in columns, and the balance after each; pure.

What a movement does to its account follows from its kind, its amount and its outcome alone. So nothing is decided
anew: the history is a running sum, forward from a balance that is known, or back from one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hftpipe.core.ledger import Account, DisputeState
from hftpipe.core.transaction import Column, Kind

Letters: TypeAlias = NDArray[np.uint8]
Codes: TypeAlias = NDArray[np.uint8]
Flags: TypeAlias = NDArray[np.bool_]
Columns: TypeAlias = tuple[Column, Column, Letters, Column, Column, Codes]
"""Those of `Movements`, in their order."""

NO_ID: Final = -1
"""Stands for the id of a movement whose source has none."""

_DEPOSIT, _WITHDRAWAL, _DISPUTE, _RESOLVE, _CHARGEBACK = (ord(kind.value) for kind in Kind)
_STATES: Final = {
    Kind.DISPUTE: DisputeState.DISPUTED,
    Kind.RESOLVE: DisputeState.RESOLVED,
    Kind.CHARGEBACK: DisputeState.CHARGED_BACK,
}

_NO_NUMBERS: Final[Column] = np.zeros(0, dtype=np.int64)
_NO_BYTES: Final[Letters] = np.zeros(0, dtype=np.uint8)
_NO_COLUMNS: Final[Columns] = (_NO_NUMBERS, _NO_NUMBERS, _NO_BYTES, _NO_NUMBERS, _NO_NUMBERS, _NO_BYTES)


@dataclass(frozen=True, slots=True, eq=False)
class Movements:
    """Decided transactions of one account in columns of equal length, in the order applied.

    numbers, places: journal record, and index in its batch. letters: of `Kind`. txs: NO_ID where there is
    none. amounts: ten-thousandths, 0 for dispute, resolve and chargeback. codes: 0 for an applied one, else
    the place of its reason in `reasons`, from 1.
    """

    reasons: Sequence[str]
    numbers: Column
    places: Column
    letters: Letters
    txs: Column
    amounts: Column
    codes: Codes

    @classmethod
    def joined(cls, parts: "Iterable[Columns]", reasons: Sequence[str]) -> "Movements":
        """The columns of some parts, in the order of the fields, one behind the other."""
        columns: list[NDArray[Any]] = [
            np.concatenate(column) for column in zip(_NO_COLUMNS, *parts, strict=True)
        ]
        return cls(reasons, *columns)

    def __len__(self) -> int:
        return len(self.numbers)

    def until(self, number: int) -> "Movements":
        """Those up to a journal record, that one included."""
        end = int(np.searchsorted(self.numbers, number, side="right"))
        columns: list[NDArray[Any]] = [
            column[:end]
            for column in (self.numbers, self.places, self.letters, self.txs, self.amounts, self.codes)
        ]
        return Movements(self.reasons, *columns)

    def place_of(self, number: int, place: int) -> int:
        """Which one stands there. Raises KeyError when none does."""
        found = np.flatnonzero((self.numbers == number) & (self.places == place))
        if not len(found):
            raise KeyError((number, place))
        return int(found[0])


@dataclass(frozen=True, slots=True)
class Dispute:
    """A deposit that was disputed, and how it stands.

    amount: ten-thousandths. opened, changed: journal records that disputed it first, and changed it last.
    """

    tx: int
    amount: int
    state: DisputeState
    opened: int
    changed: int


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """Movements one behind the other, and the balance after each, in ten-thousandths. opening: before the first."""

    opening: Account
    movements: Movements
    available: Column
    held: Column
    locked: Flags

    def __len__(self) -> int:
        return len(self.movements)

    def after(self, index: int) -> Account:
        """The account behind that movement; -1 for before the first one."""
        if index < 0:
            return self.opening
        return Account(int(self.available[index]), int(self.held[index]), bool(self.locked[index]))

    @property
    def end(self) -> Account:
        """The account behind the last movement."""
        return self.after(len(self) - 1)

    def until(self, number: int) -> "History":
        """The part up to a journal record, that one included."""
        movements = self.movements.until(number)
        end = len(movements)
        return History(self.opening, movements, self.available[:end], self.held[:end], self.locked[:end])


def fold(movements: Movements, disputed: Mapping[int, int], opening: Account) -> History:
    """The balance after each of some movements that follow each other.

    disputed: transaction id → amount of each deposit of the account that was ever disputed. opening: before the first.
    Raises KeyError when an applied dispute names another one.
    """
    adds_available, adds_held, locks = _effects(movements, disputed)
    return History(
        opening,
        movements,
        opening.available + np.cumsum(adds_available),
        opening.held + np.cumsum(adds_held),
        np.logical_or.accumulate(locks) | opening.locked,
    )


def fold_back(movements: Movements, disputed: Mapping[int, int], end: Account) -> History:
    """The same where the balance after the last movement is known, and not the one before the first."""
    adds_available, adds_held, locks = _effects(movements, disputed)
    opening = Account(
        end.available - int(adds_available.sum()),
        end.held - int(adds_held.sum()),
        end.locked and not bool(locks.any()),
    )
    return fold(movements, disputed, opening)


def disputes_of(parts: Iterable[Movements], disputed: Mapping[int, int]) -> list[Dispute]:
    """Every deposit that was disputed, in the order of their first disputes, as it stands at the end.

    parts: follow each other; nothing but what names no disputed deposit may be missing. disputed: as for `fold`.
    """
    found: dict[int, Dispute] = {}
    for part in parts:
        for index in np.flatnonzero((part.codes == 0) & _is_dispute(part.letters)).tolist():
            tx, number = int(part.txs[index]), int(part.numbers[index])
            opened = found[tx].opened if tx in found else number
            found[tx] = Dispute(tx, disputed[tx], _STATES[Kind(chr(part.letters[index]))], opened, number)
    return list(found.values())


def _is_dispute(letters: Letters) -> Flags:
    flags: Flags = (letters == _DISPUTE) | (letters == _RESOLVE) | (letters == _CHARGEBACK)
    return flags


def _effects(movements: Movements, disputed: Mapping[int, int]) -> tuple[Column, Column, Flags]:
    """What each movement adds to what is available, and to what is held; and which of them lock the account."""
    letters, is_applied = movements.letters, movements.codes == 0
    moved = np.where(is_applied, movements.amounts, 0)
    for index in np.flatnonzero(is_applied & _is_dispute(letters)).tolist():
        moved[index] = disputed[int(movements.txs[index])]
    adds = (letters == _DEPOSIT) | (letters == _RESOLVE)
    takes = (letters == _WITHDRAWAL) | (letters == _DISPUTE)
    frees = (letters == _RESOLVE) | (letters == _CHARGEBACK)
    available = np.where(adds, moved, 0) - np.where(takes, moved, 0)
    held = np.where(letters == _DISPUTE, moved, 0) - np.where(frees, moved, 0)
    return available, held, is_applied & (letters == _CHARGEBACK)
