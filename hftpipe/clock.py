"""The system's clock, and a wait that ends at once when the process is told to stop."""

import threading
import time


class SystemClock:
    """See `ports.Clock`."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop

    def monotonic_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000

    def unix_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def sleep_ms(self, milliseconds: int) -> None:
        self._stop.wait(milliseconds / 1000)
