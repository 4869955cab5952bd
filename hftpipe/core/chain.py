"""The source chain: what makes appending idempotent.

Every entry says from which position of its source to which it reaches (`previous`, `position`). The store keeps
the last position applied per source, in the same commit as the balances. A producer may therefore send any row
again, cut into any batches, and an append that was given up for lost may land at any later time: each row takes
effect once, and in the order of its source.
"""

from hftpipe.core.transaction import Column


def first_new_row(previous: int, rows: Column, applied: int) -> int | None:
    """Index of the first row that has not been applied; `len(rows)` when all were, None when rows are missing.

    previous: the source's position before this batch.
    rows: positions of the batch's rows, strictly ascending.
    applied: the last position of that source that was applied; 0 when there is none.
    """
    first = int(rows.searchsorted(applied, side="right"))
    if first < len(rows) and previous > applied:
        return None
    return first
