"""Waiting between attempts: exponential, bounded, with jitter."""

from collections.abc import Callable


class Backoff:
    """Waits that double from `first_ms` to `longest_ms`; each is between half and all of that.

    fraction: gives a number in 0..1; the jitter keeps many processes from coming back at one moment.
    """

    def __init__(self, first_ms: int, longest_ms: int, fraction: Callable[[], float]) -> None:
        self._first_ms = first_ms
        self._longest_ms = longest_ms
        self._fraction = fraction
        self._failures = 0

    def next_ms(self) -> int:
        """How long to wait after one more failure."""
        whole = min(self._longest_ms, self._first_ms << min(self._failures, 30))
        self._failures += 1
        return int(whole * (0.5 + self._fraction() / 2))

    def reset(self) -> None:
        """After a success."""
        self._failures = 0
