"""Faults planted on purpose act at the named step, at the given count, once."""

import os
import signal
import subprocess
import sys

import pytest

from hftpipe.errors import StoreUnavailable, UsageError
from hftpipe.faults import POINTS, VARIABLE, nothing_planted, planted, planted_here

ACT = "from hftpipe.faults import planted_here; planted_here()('worker.read')"


def test_nothing_is_planted_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every point can be reached any number of times."""
    monkeypatch.delenv(VARIABLE, raising=False)
    assert planted_here() is nothing_planted
    for point in POINTS:
        nothing_planted(point)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_fault_acts_when_its_point_is_reached_for_the_nth_time(count: int) -> None:
    """Not before, and not again."""
    reach = planted(f"worker.read:{count}:eio")
    for _ in range(count - 1):
        reach("worker.read")
    with pytest.raises(StoreUnavailable, match=f"a fault planted with {VARIABLE}"):
        reach("worker.read")
    reach("worker.read")


def test_each_point_counts_for_itself() -> None:
    """Other steps do not bring a fault nearer."""
    reach = planted("worker.read:2:eio")
    reach("worker.read")
    reach("worker.applied")
    with pytest.raises(StoreUnavailable):
        reach("worker.read")


def test_several_faults_are_planted_with_commas() -> None:
    """At one point, and at several."""
    reach = planted("worker.read:1:eio, worker.read:3:eio,worker.applied:1:eio")
    for point, fails in [
        ("worker.read", True),
        ("worker.read", False),
        ("worker.applied", True),
        ("worker.read", True),
    ]:
        if fails:
            with pytest.raises(StoreUnavailable):
                reach(point)
        else:
            reach(point)


@pytest.mark.parametrize(
    "text",
    [
        "worker.read",
        "worker.read:1",
        "worker.read:1:",
        "worker.read:x:eio",
        "worker.read:-1:eio",
        "worker.read::eio",
        "worker.read:0:eio",
        "worker.read:1:explode",
        "worker.reads:1:eio",
        "worker.read:1:eio,",
        "worker.read:1:eio:2",
    ],
)
def test_what_cannot_be_read_is_refused_by_name(text: str) -> None:
    """A fault that is never planted would let a test pass for nothing."""
    with pytest.raises(
        UsageError, match=r"is not <point>:<n>:<action>; points: .*worker\.read.*; actions: .*eio"
    ):
        planted(text)


def test_a_delay_waits_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """And goes on."""
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    planted("worker.read:1:delay")("worker.read")
    assert waits == [1]


def process(action: str) -> "subprocess.Popen[bytes]":
    """A process that reaches the point of its fault at once."""
    environment = {**os.environ, VARIABLE: f"worker.read:1:{action}"}
    return subprocess.Popen([sys.executable, "-c", ACT], env=environment)


def test_kill_ends_the_process_at_once() -> None:
    """As SIGKILL of anybody else would."""
    with process("kill") as killed:
        assert killed.wait(10) == -signal.SIGKILL


def test_stop_halts_the_process_until_it_is_continued() -> None:
    """As a machine that stalls."""
    with process("stop") as halted:
        _, status = os.waitpid(halted.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        halted.send_signal(signal.SIGCONT)
        assert halted.wait(10) == 0
