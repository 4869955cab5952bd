"""Durations, counted since the beginning and within the last minute."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftpipe.telemetry.spread import SECONDS, Spread

DURATIONS = st.lists(st.tuples(st.integers(0, 200_000), st.integers(1, 50)), min_size=1, max_size=30)


@given(DURATIONS, st.floats(0.01, 1.0))
def test_a_share_is_told_a_twentieth_too_high_at_the_most(found: list[tuple[int, int]], share: float) -> None:
    """Compared with all of them, laid out one by one."""
    spread = Spread()
    for duration, weight in found:
        spread.add(duration, weight, 0)
    (told,), total = spread.recent((share,), 0)
    each = sorted(duration for duration, weight in found for _ in range(weight))
    exact = next(duration for place, duration in enumerate(each, 1) if place >= share * len(each) - 1e-6)
    assert total == len(each)
    assert exact <= told <= exact * 1.05 + 1


@given(DURATIONS)
def test_prometheus_gets_running_totals(found: list[tuple[int, int]]) -> None:
    """Each bound holds all that are not above it, and the last one all."""
    spread = Spread()
    for duration, weight in found:
        spread.add(duration, weight, 0)
    bounds = spread.buckets()
    for (told, count), second in zip(bounds, SECONDS, strict=False):
        assert float(told) == second
        assert count == sum(weight for duration, weight in found if duration <= second * 1000)
    assert bounds[-1] == ("+Inf", sum(weight for _, weight in found))
    assert spread.sum_ms == sum(duration * weight for duration, weight in found)


@pytest.mark.parametrize(("later_ms", "rows"), [(50_000, 10), (70_000, 0)])
def test_what_is_older_than_a_minute_is_forgotten(later_ms: int, rows: int) -> None:
    """Of a process that has become idle, nothing is told."""
    spread = Spread()
    spread.add(20, 10, 1_000_000)
    assert spread.recent((0.5, 0.99), 1_000_000 + later_ms) == ([20, 20] if rows else [0, 0], rows)


def test_a_place_in_time_is_used_again() -> None:
    """A minute later the old counts are gone from it."""
    spread = Spread()
    spread.add(5, 1, 0)
    spread.add(9, 1, 60_000)
    assert spread.recent((1.0,), 60_000) == ([9], 1)


def test_what_lasts_for_days_is_counted() -> None:
    """As long as the longest that can be told."""
    spread = Spread()
    spread.add(10**12, 1, 0)
    (longest,), total = spread.recent((0.5,), 0)
    assert total == 1
    assert longest >= 86_400_000
