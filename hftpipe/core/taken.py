"""The transaction ids that an entry took, and what a dispute of one of them needs to know; kept as packed columns.

With them go the accounts of its other rows: so whoever wants one account finds the entries that name it without
reading any other.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from hftpipe.core.transaction import Batch, Column

_WIDTHS: Final = (1, 2, 4, 8)
"""Bytes of an integer in a packed column; all of a column have the same."""

Packed = tuple[int, bytes, bytes, bytes, bytes]
"""Count of the ids, and the columns accounts, others, ids and amounts, as `pack` makes them; of `others`, 8 bytes each.

What names accounts comes first: SQLite reads a long row from its beginning, and only as far as it is asked.
"""

NOT_DISPUTABLE: Final = 0
"""Stands for the amount of a withdrawal, and of a deposit that was refused."""

_NONE: Final = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """The ids that the entry of one journal record took, in the order of its rows.

    number: of the record. amounts: of deposits that took effect, in ten-thousandths; else NOT_DISPUTABLE. These columns
    are equally long.
    others: accounts of the rows that were decided and took no id, ascending, none twice: disputes, resolves,
    chargebacks, repeats, and rows whose source has no ids.
    """

    number: int
    txs: Column
    accounts: Column
    amounts: Column
    others: Column

    def packed(self) -> Packed:
        """The columns as `unpacked` reads them."""
        others = self.others.astype("<i8").tobytes()
        if not len(self.txs):
            return 0, b"", others, b"", b""
        return len(self.txs), pack(self.accounts), others, pack(self.txs), pack(self.amounts)


def taken_by(number: int, batch: Batch, rows: Column, refused: Column) -> Taken | None:
    """What a record has taken, and whom else it names; None when it has decided nothing.

    rows: of the batch, those that took their id. refused: of the batch.
    """
    if not len(batch):
        return None
    if batch.txs is None or not len(rows):
        return Taken(number, _NONE, _NONE, _NONE, np.unique(batch.accounts))
    is_disputable = batch.letters == ord("D")
    is_disputable[refused] = False
    amounts = np.where(is_disputable, batch.amounts, NOT_DISPUTABLE)
    accounts, others = batch.accounts[rows], _NONE
    if len(rows) < len(batch):
        took_none = np.ones(len(batch), dtype=np.bool_)
        took_none[rows] = False
        others = np.unique(batch.accounts[took_none])
    return Taken(number, batch.txs[rows], accounts, amounts[rows], others)


def unpacked(number: int, count: int, accounts: bytes, others: bytes, txs: bytes, amounts: bytes) -> Taken:
    """What was packed. Raises ValueError when the columns are not of that length."""
    if count == 0 and not accounts and not txs and not amounts:
        return Taken(number, _NONE, _NONE, _NONE, unpack_others(others))
    return Taken(
        number, unpack(txs, count), unpack(accounts, count), unpack(amounts, count), unpack_others(others)
    )


def unpack_others(packed: bytes) -> Column:
    """Accounts from 0 to 2^63-1, 8 bytes each; there may be none. Raises ValueError when it is no such column."""
    if len(packed) % 8:
        raise ValueError(f"{len(packed)} bytes are no column of accounts")
    column = np.frombuffer(packed, dtype="<i8").astype(np.int64)
    if len(column) and column.min() < 0:
        raise ValueError("an account is beyond 2^63-1")
    return column


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
