"""Which signals end a program in order."""

import os
import signal
from collections.abc import Iterator

import pytest

from hftpipe.cli.signals import ending_signals, stop_on_signals


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """The handlers of this process are as before, afterwards."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_each_of_them_asks_to_stop(number: signal.Signals) -> None:
    """A closed terminal too: what was temporary is then removed."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    stop = stop_on_signals()
    assert not stop.is_set()
    os.kill(os.getpid(), number)
    assert stop.wait(5)


def test_what_was_started_to_outlast_its_terminal_does() -> None:
    """`nohup` has SIGHUP ignored before the program begins."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert signal.SIGHUP not in ending_signals()
