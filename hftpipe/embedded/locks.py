"""Advisory locks on files, and waiting with a bound."""

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

PROBE_S: Final = 1.0
"""Longest wait for what should be there at once."""

LOCK_GLANCE_S: Final = 0.2
"""Others hold a lock so long at most when they only look whether it is held."""

_POLL_FIRST_S: Final = 0.002
_POLL_MAX_S: Final = 0.05

_Result = TypeVar("_Result")


class Lock:
    """An advisory lock on a file; freed by `close`, or when the last process that holds it has ended."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor

    @classmethod
    def attempt(cls, path: Path) -> "Lock | None":
        """Take the lock if it is free."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return cls(path, descriptor)

    @classmethod
    def wait(cls, path: Path, wait_s: float) -> "Lock | None":
        """Take the lock, waiting for it at most `wait_s` seconds."""
        return until(lambda: cls.attempt(path), Patience(wait_s))

    def close(self) -> None:
        """Give the lock up; a second call does nothing."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def is_locked(path: Path) -> bool:
    """Whether some process holds the lock (or is just looking, as this does); not, if its folder is gone."""
    try:
        lock = Lock.attempt(path)
    except FileNotFoundError:
        return False
    if lock is None:
        return True
    lock.close()
    return False


class Patience:
    """A deadline that moves on while what is waited for makes progress."""

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s
        self._progress = 0
        self._deadline = time.monotonic() + wait_s

    def see(self, progress: int) -> None:
        """Note how far it has come; a change begins the wait anew."""
        if progress != self._progress:
            self._progress = progress
            self._deadline = time.monotonic() + self._wait_s

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self._deadline


def until(attempt: Callable[[], _Result | None], patience: Patience) -> _Result | None:
    """What `attempt` returns first that is not None, or None when patience is over."""
    pause_s = _POLL_FIRST_S
    while (result := attempt()) is None and not patience.is_over:
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, _POLL_MAX_S)
    return result
