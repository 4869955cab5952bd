"""SIGINT, SIGTERM and a closed terminal ask the program to finish what it has in hand."""

import os
import signal
import threading

from hftpipe.supervisor import PARENT_PIPE


def stop_on_signals() -> threading.Event:
    """An event that is set by SIGINT, SIGTERM and SIGHUP, and when the supervisor of this process is gone."""
    stop = threading.Event()
    for number in ending_signals():
        signal.signal(number, lambda *_: stop.set())
    if pipe := os.environ.pop(PARENT_PIPE, ""):
        threading.Thread(target=_wait_for_end, args=(int(pipe), stop), daemon=True).start()
    return stop


def ending_signals() -> list[signal.Signals]:
    """What is to end a program in order: SIGHUP too, unless it was started to outlast its terminal (`nohup`)."""
    outlasts = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM, *([] if outlasts else [signal.SIGHUP])]


def _wait_for_end(descriptor: int, stop: threading.Event) -> None:
    os.read(descriptor, 1)
    stop.set()
