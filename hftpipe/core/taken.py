"""The transaction ids that an entry took, and what a dispute of one of them needs to know; kept as packed columns."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from hftpipe.core.transaction import Batch, Column

_WIDTHS: Final = (1, 2, 4, 8)
"""Bytes of an integer in a packed column; all of a column have the same."""

Packed = tuple[int, bytes, bytes, bytes]
"""Count of the ids, and the columns ids, accounts and amounts, as `pack` makes them."""

NOT_DISPUTABLE: Final = 0
"""Stands for the amount of a withdrawal, and of a deposit that was refused."""


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """The ids that the entry of one journal record took, in the order of its rows.

    number: of the record. amounts: of deposits that took effect, in ten-thousandths; else NOT_DISPUTABLE. The columns
    are equally long, and not empty.
    """

    number: int
    txs: Column
    accounts: Column
    amounts: Column

    def packed(self) -> Packed:
        """The columns as `unpacked` reads them."""
        return len(self.txs), pack(self.txs), pack(self.accounts), pack(self.amounts)


def taken_by(number: int, batch: Batch, rows: Column, refused: Column) -> Taken | None:
    """What a record has taken; None when that is nothing.

    rows: of the batch, those that took their id. refused: of the batch.
    """
    if batch.txs is None or not len(rows):
        return None
    is_disputable = batch.letters == ord("D")
    is_disputable[refused] = False
    amounts = np.where(is_disputable, batch.amounts, NOT_DISPUTABLE)
    return Taken(number, batch.txs[rows], batch.accounts[rows], amounts[rows])


def unpacked(number: int, count: int, txs: bytes, accounts: bytes, amounts: bytes) -> Taken:
    """What was packed. Raises ValueError when the columns are not of that length."""
    return Taken(number, unpack(txs, count), unpack(accounts, count), unpack(amounts, count))


def pack(column: Column) -> bytes:
    """Integers from 0 to 2^63-1, little endian, each in as many bytes as the largest one needs: 1, 2, 4 or 8."""
    largest = int(column.max())
    width = next(width for width in _WIDTHS if largest < 1 << (8 * width))
    return column.astype(f"<u{width}").tobytes()


def unpack(packed: bytes, count: int) -> Column:
    """A column of so many integers. Raises ValueError when it is none."""
    width = len(packed) // max(count, 1)
    if count < 1 or width not in _WIDTHS or len(packed) != width * count:
        raise ValueError(f"{len(packed)} bytes are no column of {count} integers")
    column = np.frombuffer(packed, dtype=f"<u{width}").astype(np.int64)
    if column.min() < 0:
        raise ValueError("an integer is beyond 2^63-1")
    return column
