"""Waits between attempts double, are bounded, and are not the same for all."""

from hypothesis import given
from hypothesis import strategies as st

from hftpipe.backoff import Backoff


def test_waits_double_up_to_the_longest() -> None:
    """Without jitter: the whole of each."""
    backoff = Backoff(20, 1_000, lambda: 1.0)
    assert [backoff.next_ms() for _ in range(8)] == [20, 40, 80, 160, 320, 640, 1_000, 1_000]


def test_jitter_takes_away_up_to_half() -> None:
    """So that many processes do not come back at one moment, nor any at once."""
    backoff = Backoff(20, 1_000, lambda: 0.0)
    assert [backoff.next_ms() for _ in range(3)] == [10, 20, 40]


def test_a_success_makes_the_next_wait_the_first() -> None:
    """Whatever came before."""
    backoff = Backoff(20, 1_000, lambda: 1.0)
    for _ in range(5):
        backoff.next_ms()
    backoff.reset()
    assert backoff.next_ms() == 20


@given(
    first=st.integers(1, 10_000),
    longest=st.integers(1, 100_000),
    fraction=st.floats(0, 1, exclude_max=True),
    failures=st.integers(0, 100),
)
def test_no_wait_is_longer_than_the_longest(first: int, longest: int, fraction: float, failures: int) -> None:
    """After any number of failures, and none is negative."""
    backoff = Backoff(first, longest, lambda: fraction)
    for _ in range(failures):
        backoff.next_ms()
    assert 0 <= backoff.next_ms() <= longest
