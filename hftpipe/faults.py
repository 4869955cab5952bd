"""Faults planted on purpose, so that a test kills a process at a chosen step and not by luck.

`HFTPIPE_FAULT=<point>:<n>:<action>[,…]` acts when the point is reached for the n-th time. Points:
`ingest.pre_append`, `ingest.post_append`, `worker.read`, `worker.applied`, `store.in_transaction`,
`worker.committed`, `worker.acknowledged`, `inbox.read`, `inbox.appended`, `inbox.noted`, `inbox.rejected`, and of
`hftpipe dead` and `repair` `dead.checked`, `dead.looked`, `dead.appended`, `dead.decided`, `repair.owned`,
`repair.log_ready`, `repair.committed`, `rebuild.verified`, `rebuild.kept`, `rebuild.swapped`. Actions:
`kill`, `stop` (SIGSTOP), `eio` (a passing fault), `delay` (1 s).
"""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from hftpipe.errors import StoreUnavailable, UsageError

VARIABLE: Final = "HFTPIPE_FAULT"
POINTS: Final = frozenset(
    {
        "ingest.pre_append",
        "ingest.post_append",
        "worker.read",
        "worker.applied",
        "store.in_transaction",
        "worker.committed",
        "worker.acknowledged",
        "inbox.read",
        "inbox.appended",
        "inbox.noted",
        "inbox.rejected",
        "dead.checked",
        "dead.looked",
        "dead.appended",
        "dead.decided",
        "repair.owned",
        "repair.log_ready",
        "repair.committed",
        "rebuild.verified",
        "rebuild.kept",
        "rebuild.swapped",
    }
)


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _stop() -> None:
    # To this thread: sent to the process, another thread takes it, and this one runs on for a while.
    signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)


def _fail() -> None:
    raise StoreUnavailable(f"a fault planted with {VARIABLE}")


def _delay() -> None:
    time.sleep(1)


_ACTIONS: Final = {"kill": _kill, "stop": _stop, "eio": _fail, "delay": _delay}


def nothing_planted(_point: str) -> None:
    """Reaches any point and does nothing."""


def planted(text: str) -> Callable[[str], None]:
    """What is to be called at each point; counts over all threads. Raises UsageError for what it cannot read."""
    if not text:
        return nothing_planted
    actions = dict(_parse(part) for part in text.split(","))
    reached: Counter[str] = Counter()
    lock = threading.Lock()

    def reach(point: str) -> None:
        with lock:
            reached[point] += 1
            action = actions.get((point, reached[point]))
        if action is not None:
            action()

    return reach


def _parse(text: str) -> tuple[tuple[str, int], Callable[[], None]]:
    point, _, rest = text.strip().partition(":")
    count, _, action = rest.partition(":")
    if point not in POINTS or not count.isdecimal() or not int(count) or action not in _ACTIONS:
        raise UsageError(
            f"{VARIABLE}={text!r} is not <point>:<n>:<action>; points: {', '.join(sorted(POINTS))}; "
            f"actions: {', '.join(_ACTIONS)}"
        )
    return (point, int(count)), _ACTIONS[action]


def planted_here() -> Callable[[str], None]:
    """What the environment of this process has planted."""
    return planted(os.environ.get(VARIABLE, ""))
