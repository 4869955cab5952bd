"""The source chain: each row takes effect once and in order, however often and in whatever pieces it arrives."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftpipe.core.chain import first_new_row

positions = st.lists(st.integers(1, 60), min_size=1, max_size=20, unique=True).map(sorted)


@pytest.mark.parametrize(
    ("previous", "rows", "applied", "first"),
    [
        (0, [1, 2, 3], 0, 0),
        (3, [4, 5], 3, 0),
        (3, [7, 9], 3, 0),
        (0, [1, 2, 3], 2, 2),
        (0, [1, 2, 3], 3, 3),
        (0, [1, 2, 3], 9, 3),
        (2, [5, 9], 6, 1),
        (4, [5], 3, None),
        (9, [10, 11], 0, None),
        (4, [5, 6], 5, 1),
        (4, [5, 6], 6, 2),
    ],
)
def test_the_first_new_row_is_found(previous: int, rows: list[int], applied: int, first: int | None) -> None:
    """In turn, sent again in part and in whole, and behind rows that are missing."""
    assert first_new_row(previous, np.array(rows), applied) == first


@given(positions, st.integers(0, 61), st.data())
def test_it_says_what_the_plain_words_say(rows: list[int], applied: int, data: st.DataObject) -> None:
    """New is what is above `applied`; if something is new and the batch begins above `applied`, rows are missing."""
    previous = data.draw(st.integers(0, rows[0] - 1))
    new = [row for row in rows if row > applied]
    first = first_new_row(previous, np.array(rows), applied)
    if new and previous > applied:
        assert first is None
    else:
        assert first is not None
        assert rows[first:] == new


@st.composite
def sendings(draw: st.DrawFn) -> tuple[list[int], list[tuple[int, int]]]:
    """A source's rows, and pieces of them as they arrive: again, late, early, in any cuts."""
    rows = draw(positions)
    edges = st.integers(0, len(rows))
    arrivals = draw(st.lists(st.tuples(edges, edges), max_size=30))
    return rows, [(start, stop) for start, stop in arrivals if start < stop]


@given(sendings(), st.sets(st.integers(1, 20)))
def test_each_row_is_applied_once_and_in_order(
    sending: tuple[list[int], list[tuple[int, int]]], cuts: set[int]
) -> None:
    """At any time what was applied is a beginning of the source; sent again from the start, it is the whole."""
    rows, arrivals = sending
    edges = sorted({0, len(rows), *(place for place in cuts if place < len(rows))})
    arrivals = [*arrivals, *pairwise(edges)]
    applied: list[int] = []
    for start, stop in arrivals:
        previous, piece = (rows[start - 1] if start else 0), rows[start:stop]
        first = first_new_row(previous, np.array(piece), applied[-1] if applied else 0)
        if first is not None:
            applied += piece[first:]
        assert applied == rows[: len(applied)]
    assert applied == rows
