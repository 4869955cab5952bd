"""How a shard remembers the transaction ids that it has taken, without a row for each.

Ids mostly rise. Those of an entry that lie above all that were taken before can be found by their range alone: the
ranges of entries never overlap, and the entry itself says which ids between its bounds it has taken. Only an id that
comes late, below one that was taken before, gets a row of its own. What is kept depends on the order of entries, and
not on how they were grouped into commits.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from hftpipe.core.taken import Taken
from hftpipe.core.transaction import Column


@dataclass(frozen=True, slots=True, eq=False)
class IdIndex:
    """What some entries add: rows of the two tables, ascending by their first column.

    ranges: highest and lowest id above all earlier ones, and the number of the entry's journal record.
    late: id, and the number of the entry's journal record.
    """

    ranges: list[tuple[int, int, int]]
    late: Column


def index_ids(taken: Iterable[Taken], highest: int) -> IdIndex:
    """Sorts ids in.

    taken: record by record, in their order; no id twice. highest: of all ids taken before.
    """
    ranges: list[tuple[int, int, int]] = []
    late: list[Column] = []
    for each in taken:
        number, ids = each.number, each.txs
        is_late = ids < highest
        if is_late.any():
            late.append(np.column_stack([ids[is_late], np.full(np.count_nonzero(is_late), number)]))
            ids = ids[~is_late]
        if len(ids):
            top = int(ids.max())
            ranges.append((top, int(ids.min()), number))
            highest = top
    rows = np.concatenate(late) if late else np.zeros((0, 2), dtype=np.int64)
    return IdIndex(ranges, rows[np.argsort(rows[:, 0])])
