"""How a pipeline stood in the last minutes, for whoever begins to look on now."""

import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from hftpipe.telemetry.overview import Overview

SPAN_MS: Final = 5 * 60 * 1000
SAMPLES_MAX: Final = 400
"""More than one a second over the span."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Columns, oldest first, of one pipeline.

    time_ms: Unix time. transactions_in, decided: rows ever appended, and ever applied or refused. backlog: entries.
    commit_p50_ms, commit_p99_ms: of the slowest shard. None where it was unknown.
    """

    pipeline: str
    time_ms: tuple[int, ...]
    transactions_in: tuple[int | None, ...]
    decided: tuple[int | None, ...]
    backlog: tuple[int | None, ...]
    commit_p50_ms: tuple[int | None, ...]
    commit_p99_ms: tuple[int | None, ...]


class _Sample(NamedTuple):
    time_ms: int
    transactions_in: int | None
    decided: int | None
    backlog: int | None
    commit_p50_ms: int | None
    commit_p99_ms: int | None


class Recent:
    """Remembers what was seen; for any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pipeline = ""
        self._samples: deque[_Sample] = deque(maxlen=SAMPLES_MAX)

    def see(self, seen: Overview) -> None:
        """Another look, or the same again. One of another pipeline, or from before the last, begins anew."""
        sample = _sample(seen)
        with self._lock:
            last = self._samples[-1] if self._samples else None
            if last is not None and last.time_ms == sample.time_ms:
                return
            if seen.pipeline != self._pipeline or (last is not None and last.time_ms > sample.time_ms):
                self._pipeline = seen.pipeline
                self._samples.clear()
            self._samples.append(sample)
            while self._samples[0].time_ms < sample.time_ms - SPAN_MS:
                self._samples.popleft()

    def samples(self) -> Samples:
        """All that is remembered."""
        with self._lock:
            columns = list(zip(*self._samples, strict=True)) or [()] * len(_Sample._fields)
            return Samples(self._pipeline, *columns)


def _sample(seen: Overview) -> _Sample:
    return _Sample(
        seen.time_ms,
        seen.transactions_in,
        _decided(seen),
        _known(view.backlog for view in seen.shards),
        _slowest(view.commit_p50_ms for view in seen.shards),
        _slowest(view.commit_p99_ms for view in seen.shards),
    )


def _decided(seen: Overview) -> int | None:
    """None while a shard is unknown: what it has decided would look as if it were of that moment."""
    counts = [count for view in seen.shards for count in (view.transactions, view.refused)]
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _known(counts: Iterable[int | None]) -> int | None:
    """The sum of those that are known; None when none is."""
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _slowest(times: Iterable[int | None]) -> int | None:
    return max((time for time in times if time is not None), default=None)
