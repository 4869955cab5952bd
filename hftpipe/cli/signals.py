"""SIGINT and SIGTERM ask the program to finish what it has in hand."""

import os
import signal
import threading

from hftpipe.supervisor import PARENT_PIPE


def stop_on_signals() -> threading.Event:
    """An event that is set by SIGINT and SIGTERM, and when the supervisor that started this process is gone."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    if pipe := os.environ.pop(PARENT_PIPE, ""):
        threading.Thread(target=_wait_for_end, args=(int(pipe), stop), daemon=True).start()
    return stop


def _wait_for_end(descriptor: int, stop: threading.Event) -> None:
    os.read(descriptor, 1)
    stop.set()
