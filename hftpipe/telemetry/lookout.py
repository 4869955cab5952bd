"""One pair of eyes for all in a process who want to know how the pipeline stands."""

import threading
from typing import Final

from hftpipe.ports import Clock
from hftpipe.telemetry.overview import Observer, Overview

FRESH_MS: Final = 900


class Lookout:
    """Looks when somebody asks and the last look is old; for any number of threads."""

    def __init__(self, observer: Observer, clock: Clock) -> None:
        self._observer = observer
        self._clock = clock
        self._turn = threading.Lock()
        self._seen: Overview | None = None
        self._seen_ms = 0

    def overview(self) -> Overview:
        """How the pipeline stood less than a second ago, or stands now: then this takes as long as a look does."""
        with self._turn:
            if self._seen is None or self._clock.monotonic_ms() - self._seen_ms >= FRESH_MS:
                self._seen = self._observer.look()
                self._seen_ms = (
                    self._clock.monotonic_ms()
                )  # a slow look is one for all who have waited for it
            return self._seen

    def close(self) -> None:
        """Lets go of stores and server."""
        with self._turn:
            self._observer.close()
