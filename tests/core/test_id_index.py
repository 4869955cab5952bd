"""Ids are remembered by ranges and late rows: the same ones however entries are cut into commits."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftpipe.core.id_index import IdIndex, index_ids
from hftpipe.core.taken import Taken
from hftpipe.core.transaction import INT64_MAX
from tests.core.driver import cut


def taken_of(number: int, ids: list[int]) -> Taken:
    """What a record has taken, as far as it matters here."""
    column = np.array(ids, dtype=np.int64)
    return Taken(number, column, column, column, column[:0])


def indexed(
    records: list[list[int]], commits: set[int]
) -> tuple[list[tuple[int, int, int]], list[list[int]]]:
    """All ranges and all late rows of records that were committed in pieces."""
    ranges: list[tuple[int, int, int]] = []
    late: list[list[int]] = []
    highest = -1
    for piece in cut(len(records), commits):
        index = index_ids([taken_of(number + 1, records[number]) for number in piece], highest)
        assert index.late.dtype == np.int64
        assert [row[0] for row in index.late.tolist()] == sorted(row[0] for row in index.late.tolist())
        ranges += index.ranges
        late += index.late.tolist()
        highest = max(highest, *(tx for number in piece for tx in records[number]))
    return ranges, late


def only(index: IdIndex) -> tuple[list[tuple[int, int, int]], list[list[int]]]:
    return index.ranges, index.late.tolist()


ids = st.integers(0, 60) | st.integers(0, INT64_MAX) | st.sampled_from([0, INT64_MAX, INT64_MAX - 1])


@st.composite
def histories(draw: st.DrawFn) -> list[list[int]]:
    """Records of ids, none twice: rising, falling, or in any order."""
    chosen = draw(st.lists(ids, min_size=1, max_size=60, unique=True))
    order = draw(st.sampled_from(["as they are", "rising", "falling", "nearly rising"]))
    if order != "as they are":
        chosen.sort(reverse=order == "falling")
    if order == "nearly rising":
        for place in draw(st.sets(st.integers(1, max(len(chosen) - 1, 1)), max_size=6)):
            chosen[place - 1 : place + 1] = chosen[place - 1 : place + 1][::-1]
    return [chosen[piece.start : piece.stop] for piece in cut(len(chosen), draw(st.sets(st.integers(1, 59))))]


@settings(deadline=None, max_examples=300)
@given(histories(), st.sets(st.integers(1, 59)))
def test_what_is_kept_does_not_depend_on_the_commits(records: list[list[int]], commits: set[int]) -> None:
    """The same ranges, in the same order, and the same late rows (I8)."""
    ranges, late = indexed(records, commits)
    together, together_late = indexed(records, set())
    apart, apart_late = indexed(records, set(range(len(records))))
    assert ranges == together == apart
    assert sorted(late) == together_late == sorted(apart_late)


@settings(deadline=None, max_examples=300)
@given(histories(), st.sets(st.integers(1, 59)))
def test_each_id_is_found_by_its_range_or_by_a_late_row(records: list[list[int]], commits: set[int]) -> None:
    """By exactly one of both, and each leads to the record that took it; the ranges lie apart and ascend."""
    ranges, late = indexed(records, commits)
    assert all(lowest <= highest for highest, lowest, _ in ranges)
    assert all(before[0] < after[1] and before[2] < after[2] for before, after in pairwise(ranges))
    rows: dict[int, int] = {row[0]: row[1] for row in late}
    assert len(rows) == len(late)
    for number, record in enumerate(records, 1):
        for tx in record:
            by_range = [owner for highest, lowest, owner in ranges if lowest <= tx <= highest]
            assert len(by_range) <= 1
            assert (by_range == [number]) != (rows.get(tx) == number)
        assert len([owner for *_, owner in ranges if owner == number]) <= 1


def test_the_bounds_of_a_range_are_ids_of_its_record() -> None:
    """Whatever the order of its rows."""
    assert only(index_ids([taken_of(1, [7, 3, 9, 5])], -1)) == ([(9, 3, 1)], [])


def test_an_id_between_the_bounds_of_an_earlier_range_is_late() -> None:
    """And so is one below all of them; the next range begins above."""
    records = [taken_of(1, [10, 20]), taken_of(2, [15, 1, 21]), taken_of(3, [19])]
    assert only(index_ids(records, -1)) == ([(20, 10, 1), (21, 21, 2)], [[1, 2], [15, 2], [19, 3]])


def test_the_smallest_and_the_largest_id_have_ranges() -> None:
    """0 is above the -1 of a store that has taken none."""
    assert only(index_ids([taken_of(1, [0])], -1)) == ([(0, 0, 1)], [])
    assert only(index_ids([taken_of(2, [INT64_MAX])], 0)) == ([(INT64_MAX, INT64_MAX, 2)], [])
    assert only(index_ids([taken_of(3, [5, INT64_MAX - 1])], INT64_MAX)) == ([], [[5, 3], [INT64_MAX - 1, 3]])


@pytest.mark.parametrize("highest", [-1, 0, INT64_MAX])
def test_nothing_taken_adds_nothing(highest: int) -> None:
    """The rows of nothing have two columns all the same."""
    index = index_ids([], highest)
    assert (index.ranges, index.late.shape) == ([], (0, 2))


def test_an_entry_of_late_ids_alone_has_no_range() -> None:
    """And leaves the highest id where it was."""
    records = [taken_of(1, [50]), taken_of(2, [3, 2]), taken_of(3, [49, 51])]
    assert only(index_ids(records, -1)) == ([(50, 50, 1), (51, 51, 3)], [[2, 2], [3, 2], [49, 3]])
