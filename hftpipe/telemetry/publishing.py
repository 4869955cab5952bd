"""Hands out what a process measures: to Prometheus, and to the log's server for those who look on.

It may fail in any way, and the work goes on.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, Protocol

from hftpipe.errors import HftpipeError
from hftpipe.log.gauge import RedisStats

PERIOD_S: Final = 1.0


class Tended(Protocol):
    """Somebody has to look after it, from one thread."""

    def tend(self) -> None:
        """Called every second; raises nothing."""

    def close(self) -> None:
        """Called once, when it is over."""


@contextmanager
def published(
    exposition: Tended | None,
    stats: RedisStats | None,
    fresh: Callable[[], Mapping[int, Mapping[str, int]]],
) -> Iterator[None]:
    """Tends both during the body, in a thread of its own. fresh: what is to be written for those who look on."""
    over = threading.Event()

    def tend() -> None:
        waiting: dict[int, Mapping[str, int]] = {}
        while True:
            if exposition is not None:
                exposition.tend()
            if stats is not None:
                waiting |= fresh()
                if waiting and _written(stats, waiting):
                    waiting.clear()
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


def _written(stats: RedisStats, values: Mapping[int, Mapping[str, int]]) -> bool:
    try:
        stats.write(values)
    except HftpipeError:  # the workers themselves say when the log is away
        return False
    return True
