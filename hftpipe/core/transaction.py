"""The unit that flows from validation to the ledger: a batch of one shard's transactions, in columns."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

INT64_MAX: Final = 2**63 - 1
INT64_MIN: Final = -(2**63)

SCALE: Final = 10_000
"""Amounts are integers of ten-thousandths of a unit."""

AMOUNT_MAX: Final = 10**13 * SCALE
"""The largest amount of one transaction, in ten-thousandths."""


class Kind(Enum):
    """What a transaction does; the value is its letter on the wire."""

    DEPOSIT = "D"
    WITHDRAWAL = "W"
    DISPUTE = "P"
    RESOLVE = "R"
    CHARGEBACK = "C"


KIND_LETTERS: Final = frozenset(kind.value for kind in Kind)

MOVING: Final = frozenset({Kind.DEPOSIT.value, Kind.WITHDRAWAL.value})
"""Letters of the kinds that carry an amount and take a transaction id of their own."""


Column: TypeAlias = NDArray[np.int64]
"""One value a transaction."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Transactions in columns of equal length, in the order in which their source gave them.

    kinds: one letter of `Kind` each.
    accounts: 0..2^63-1.
    txs: 0..2^63-1, or None for the whole batch when the source has no such column.
    amounts: ten-thousandths, 1..AMOUNT_MAX for D and W; 0 for P, R and C.
    rows: positions in the source (line numbers of a file), strictly ascending, from 1.
    """

    kinds: str
    accounts: Column
    txs: Column | None
    amounts: Column
    rows: Column

    @classmethod
    def of(
        cls,
        kinds: str,
        accounts: Sequence[int],
        txs: Sequence[int] | None,
        amounts: Sequence[int],
        rows: Sequence[int],
    ) -> "Batch":
        """A batch from plain integers. Raises OverflowError when one does not fit into 64 bits."""
        taken = None if txs is None else np.array(txs, dtype=np.int64)
        return cls(
            kinds,
            np.array(accounts, dtype=np.int64),
            taken,
            np.array(amounts, dtype=np.int64),
            np.array(rows, dtype=np.int64),
        )

    def __len__(self) -> int:
        return len(self.kinds)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Batch) and self._plain() == other._plain()

    __hash__ = None  # type: ignore[assignment]

    def _plain(self) -> tuple[object, ...]:
        txs = None if self.txs is None else self.txs.tolist()
        return self.kinds, self.accounts.tolist(), txs, self.amounts.tolist(), self.rows.tolist()

    @property
    def letters(self) -> NDArray[np.uint8]:
        """The kinds as a column of ASCII codes."""
        return np.frombuffer(self.kinds.encode("ascii"), dtype=np.uint8)

    @property
    def is_moving(self) -> NDArray[np.bool_]:
        """Which transactions carry an amount and take an id: deposits and withdrawals."""
        letters = self.letters
        moving: NDArray[np.bool_] = (letters == ord("D")) | (letters == ord("W"))
        return moving

    def slice(self, start: int, stop: int) -> "Batch":
        """The transactions start..stop-1 as a batch of their own."""
        return Batch(
            self.kinds[start:stop],
            self.accounts[start:stop],
            None if self.txs is None else self.txs[start:stop],
            self.amounts[start:stop],
            self.rows[start:stop],
        )

    def pick(self, indexes: NDArray[np.intp]) -> "Batch":
        """The transactions at some indexes, in that order."""
        return Batch(
            self.letters[indexes].tobytes().decode("ascii"),
            self.accounts[indexes],
            None if self.txs is None else self.txs[indexes],
            self.amounts[indexes],
            self.rows[indexes],
        )
