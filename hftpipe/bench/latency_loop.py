"""The arithmetic of latency: an open loop, and what its transactions waited, counted from when each was due.

Transaction i is due at i / rate, whatever became of those before it. So a stall is in the latency of every transaction
that was due meanwhile, and none is left out because the sender was late (G. Tene's "coordinated omission").
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Seconds = NDArray[np.float64]
"""One time a transaction."""

Places = NDArray[np.int64]

PERCENTILES: Final = (50.0, 99.0, 99.9)


@dataclass(frozen=True, slots=True)
class Appends:
    """What an open loop did: the transactions before `ends[i]` were durable at `confirmed_s[i]`, on the clock.

    start_s: when the first one was due.
    """

    rate: float
    start_s: float
    ends: Sequence[int]
    confirmed_s: Sequence[float]

    def due_s(self) -> Seconds:
        """When each transaction was due."""
        return self.start_s + np.arange(self.ends[-1]) / self.rate

    def durable_s(self) -> Seconds:
        """When each transaction was known to be durable."""
        return np.repeat(np.asarray(self.confirmed_s), np.diff(self.ends, prepend=0))


def open_loop(
    count: int,
    rate: float,
    append: Callable[[int, int], None],
    *,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> Appends:
    """Appends transactions first..stop-1, all that have become due since the last append, until `count` are durable.

    append: returns when they are. clock, sleep: in seconds.
    """
    start_s = clock()
    ends: list[int] = []
    confirmed_s: list[float] = []
    sent = 0
    while sent < count:
        now_s = clock()
        due = min(int((now_s - start_s) * rate) + 1, count)
        if due <= sent:
            sleep(max(start_s + sent / rate - now_s, 0.0))
            continue
        append(sent, due)
        confirmed_s.append(clock())
        ends.append(due)
        sent = due
    return Appends(rate, start_s, ends, confirmed_s)


@dataclass(frozen=True, slots=True)
class Entries:
    """The entries that hold the transactions, one element each, by shard and id.

    rows: the row of the last transaction in it. Transaction i is row i + 1 of its source.
    """

    shards: Places
    sequences: Places
    rows: Places


@dataclass(frozen=True, slots=True)
class Sightings:
    """How far a shard was seen to be committed: entry `sequences[i]` first at `seen_s[i]`, both rising."""

    sequences: Sequence[int]
    seen_s: Sequence[float]


def committed_s(accounts_shard: Places, entries: Entries, sightings: Sequence[Sightings]) -> Seconds:
    """When each transaction was seen to be committed; not a number where it never was.

    accounts_shard: the shard of each transaction. sightings: of each shard.
    """
    times = np.full(len(accounts_shard), np.nan)
    for shard, seen in enumerate(sightings):
        indexes = np.flatnonzero(accounts_shard == shard)
        own = entries.shards == shard
        entry = np.searchsorted(entries.rows[own], indexes + 1)
        sighting = np.searchsorted(np.asarray(seen.sequences), entries.sequences[own][entry])
        times[indexes] = np.append(np.asarray(seen.seen_s, dtype=float), np.nan)[sighting]
    return times


def percentiles_ms(waits_s: Seconds) -> list[float]:
    """`PERCENTILES` in milliseconds, each a wait that did occur, the next higher one where it falls between two."""
    return [float(wait) * 1e3 for wait in np.percentile(waits_s, PERCENTILES, method="higher")]
