"""Which entries named a transaction id without taking it: its disputes, resolves and chargebacks, and refused repeats.

With the entry that took an id they are its whole history, found without a look at the rest of the journal. What is
kept depends on the entries alone, and not on how they were grouped into commits.
"""

from collections.abc import Iterable

import numpy as np

from hftpipe.core.transaction import Batch, Column


def named_only(batch: Batch, taken: Column) -> Column:
    """The ids of rows that did not take theirs, in the order of the rows.

    taken: indexes of the rows that took their id.
    """
    if batch.txs is None or len(taken) == len(batch):
        return np.zeros(0, dtype=np.int64)
    named = np.ones(len(batch), dtype=np.bool_)
    named[taken] = False
    return batch.txs[named]


def index_mentions(named: Iterable[tuple[int, Column]]) -> Column:
    """A row for each id and record that named it: id, number of the record; ascending, none twice.

    named: numbers of journal records, and the ids that each named.
    """
    parts = [np.column_stack([txs, np.full(len(txs), number)]) for number, txs in named if len(txs)]
    if not parts:
        return np.zeros((0, 2), dtype=np.int64)
    rows = np.concatenate(parts)
    rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
    is_first = np.ones(len(rows), dtype=np.bool_)
    is_first[1:] = (rows[1:] != rows[:-1]).any(axis=1)
    return rows[is_first]
