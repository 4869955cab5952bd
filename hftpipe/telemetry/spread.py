"""How durations are spread: since the process began, for Prometheus, and within the last minute, for people."""

from bisect import bisect_left
from collections.abc import Sequence
from math import ceil
from typing import Final

SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300)
"""Upper bounds of what is told to Prometheus; longer ones are counted without a bound."""
_EDGES_MS: Final = tuple(round(second * 1000) for second in SECONDS)

_STEP: Final = 1.05
_LONGEST_MS: Final = 86_400_000
_SLOT_MS: Final = 5_000
_SLOTS: Final = 12


def _fine_edges() -> tuple[int, ...]:
    """Whole milliseconds, then each a twentieth above the one before."""
    edges = [0]
    while edges[-1] < _LONGEST_MS:
        edges.append(max(edges[-1] + 1, ceil(edges[-1] * _STEP)))
    return tuple(edges)


_FINE_MS: Final = _fine_edges()


class Spread:
    """Durations in milliseconds, each with a weight. One thread adds; others may read meanwhile."""

    def __init__(self) -> None:
        self.sum_ms = 0
        self._counts = [0] * (len(SECONDS) + 1)
        self._slots = [[0] * len(_FINE_MS) for _ in range(_SLOTS)]
        self._slot_of = [-1] * _SLOTS

    def add(self, duration_ms: int, weight: int, now_ms: int) -> None:
        """now_ms: of a clock that never goes back."""
        self.sum_ms += duration_ms * weight
        self._counts[bisect_left(_EDGES_MS, duration_ms)] += weight
        number = now_ms // _SLOT_MS
        place = number % _SLOTS
        if self._slot_of[place] != number:
            self._slots[place] = [0] * len(_FINE_MS)
            self._slot_of[place] = number
        self._slots[place][min(bisect_left(_FINE_MS, duration_ms), len(_FINE_MS) - 1)] += weight

    def buckets(self) -> list[tuple[str, float]]:
        """Prometheus's: upper bound and how many are not above it, the last one all."""
        total, found = 0, []
        for edge, count in zip((*SECONDS, None), list(self._counts), strict=True):
            total += count
            found.append(("+Inf" if edge is None else repr(float(edge)), float(total)))
        return found

    def recent(self, shares: Sequence[float], now_ms: int) -> tuple[list[int], int]:
        """The durations that such shares of those of the last minute do not exceed, a twentieth too high at the most.

        shares: above 0, up to 1. Returns them, and the weight of all; they are 0 when there was none.
        """
        first = now_ms // _SLOT_MS - _SLOTS + 1
        slots = [slot for slot, number in zip(self._slots, self._slot_of, strict=True) if number >= first]
        counts = [sum(column) for column in zip(*slots, strict=True)] or [0]
        total = sum(counts)
        return [_at(counts, ceil(share * total)) for share in shares], total


def _at(counts: Sequence[int], rank: int) -> int:
    """The duration of the one of that rank, which counts from 1; 0 for rank 0."""
    passed = 0
    for edge, count in zip(_FINE_MS, counts, strict=False):
        passed += count
        if passed >= rank:
            return edge
    return 0
