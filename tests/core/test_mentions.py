"""Ids that are named without being taken: which rows count, and in what order they are kept."""

import numpy as np

from hftpipe.core.mentions import index_mentions, named_only
from hftpipe.core.transaction import Batch, Column
from hftpipe.invariants import violations
from hftpipe.store.memory import MemoryStore
from tests.core.driver import TOPOLOGY, Shard, entry_of, foreign_of


def column(*values: int) -> Column:
    return np.array(values, dtype=np.int64)


def test_the_rows_that_took_no_id_name_theirs() -> None:
    """Whatever their kind; in the order of the rows, as often as they do."""
    batch = Batch.of("DPWDP", [1] * 5, [7, 7, 9, 7, 8], [1, 0, 1, 1, 0], range(1, 6))
    assert named_only(batch, column(0, 2)).tolist() == [7, 7, 8]
    assert named_only(batch, column()).tolist() == [7, 7, 9, 7, 8]
    assert named_only(batch, column(0, 1, 2, 3, 4)).tolist() == []


def test_rows_without_ids_name_none() -> None:
    """A source may have no such column."""
    assert named_only(Batch.of("DW", [1, 1], None, [1, 1], [1, 2]), column()).tolist() == []


def test_mentions_ascend_and_none_is_there_twice() -> None:
    """By id, then by record."""
    named = [(3, column(9, 7, 9)), (4, column()), (5, column(7, 2))]
    assert index_mentions(named).tolist() == [[2, 5], [7, 3], [7, 5], [9, 3]]
    assert index_mentions([]).shape == index_mentions([(1, column())]).shape == (0, 2)


def test_disputes_and_refused_repeats_are_mentions_and_nothing_else_is() -> None:
    """Not the row that took the id, refused or not; not skipped rows, gaps or dead letters."""
    shard = Shard()
    shard.commit([entry_of(0, [("D", 1, 1, 5), ("W", 1, 2, 9), ("P", 1, 3, 0)])])
    commit = shard.commit(
        [
            entry_of(
                1, [("W", 1, 2, 9), ("P", 1, 3, 0), ("R", 1, 1, 0), ("D", 2, 2, 1), ("D", 1, 3, 1)], first=2
            ),
            foreign_of(2),
            entry_of(3, [("P", 1, 1, 0)], first=9),
            entry_of(4, [("P", 1, 1, 0), ("P", 1, 1, 0)], first=7),
        ]
    )
    assert commit.mentions.tolist() == [[1, 2], [1, 5], [2, 2]]


def test_mentions_that_the_journal_does_not_tell_are_a_violation() -> None:
    """One too many, and one that is missing."""
    store = MemoryStore(TOPOLOGY, 0)
    Shard(store).commit([entry_of(0, [("D", 1, 1, 5), ("P", 1, 1, 0)])])
    assert not violations(store.snapshot())
    store.mentions[9].append(1)
    assert violations(store.snapshot()) == ["I1: mentions 9 is (1,), the journal says None"]
    store.mentions.clear()
    assert violations(store.snapshot()) == ["I1: mentions 1 is None, the journal says (1,)"]
