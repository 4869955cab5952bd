"""Hands out what a process measures: to Prometheus, and to the log's server for those who look on.

It may fail in any way, and the work goes on.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Final, Protocol

from hftpipe.errors import HftpipeError

PERIOD_S: Final = 1.0


class Tended(Protocol):
    """Somebody has to look after it, from one thread."""

    def tend(self) -> None:
        """Called every second; raises nothing."""

    def close(self) -> None:
        """Called once, when it is over."""


class Stats(Protocol):
    """Takes what is measured, for those who look on."""

    def write(self, stats: Mapping[int, Mapping[str, int]]) -> None:
        """Replaces that of some shards. Raises HftpipeError when it cannot."""


class Measuring(Protocol):
    """Knows what is to be written."""

    def fresh(self) -> Mapping[int, Mapping[str, int]]:
        """Of shards whose news have not been written yet, as they are now."""

    def told(self) -> None:
        """What `fresh` gave last was written."""


@contextmanager
def published(exposition: Tended | None, stats: Stats | None, measures: Measuring | None) -> Iterator[None]:
    """Tends both during the body, in a thread of its own."""
    over = threading.Event()

    def tend() -> None:
        while True:
            if exposition is not None:
                exposition.tend()
            if stats is not None and measures is not None:
                _write(stats, measures)
            if over.wait(PERIOD_S):
                return

    thread = threading.Thread(target=tend, name="telemetry", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(PERIOD_S)  # a log that is away must not keep the process
        if exposition is not None:
            exposition.close()


def _write(stats: Stats, measures: Measuring) -> None:
    if values := measures.fresh():
        with suppress(HftpipeError):  # the workers themselves say when the log is away
            stats.write(values)
            measures.told()
