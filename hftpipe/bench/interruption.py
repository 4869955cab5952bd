"""Signals end what is measured, in order; never between a process being started and being known."""

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hftpipe.errors import Interrupted


class Interruption:
    """Raises Interrupted once, in the main thread, when one of the signals comes; a second one changes nothing."""

    def __init__(self, numbers: Sequence[signal.Signals] = ()) -> None:
        """numbers: of the signals."""
        self._numbers = numbers
        self._is_held = False
        self._is_due = False

    def watch(self) -> None:
        """From now on."""
        for number in self._numbers:
            signal.signal(number, self._interrupt)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Not during the body, but at its end."""
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False
        if self._is_due:
            self._raise()

    def _interrupt(self, *_: object) -> None:
        for number in self._numbers:
            signal.signal(number, signal.SIG_IGN)
        self._is_due = True
        if not self._is_held:
            self._raise()

    def _raise(self) -> None:
        self._is_due = False
        raise Interrupted("interrupted; servers, processes and folders of the measurement are gone")
