"""Keeping processes running, with processes that are none: each test says how they end."""

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest

from hftpipe.config import SupervisorLimits
from hftpipe.errors import HftpipeError
from hftpipe.log.memory import MemoryLog
from hftpipe.ports import Ownership, Topology
from hftpipe.supervisor import StallWatch, State, Supervisor, grouped, reception, worker
from hftpipe.upkeep import GivenUp, Upkeep, given_up
from tests.shell.memory_pipeline import StillClock

LIMITS = SupervisorLimits()
SERVE_STOP_MS = 15_000
SERVE = ()
"""The shards of a reception service."""


class FakeChild:
    """A process that runs until it is told how it ended. obeys: it ends when asked to."""

    def __init__(self, pid: int, words: Sequence[str], *, obeys: bool) -> None:
        self.pid = pid
        self.words = list(words)
        self.shards = tuple(int(word) for word in words if word.isdecimal())
        self.code: int | None = None
        self.signals: list[int] = []
        self._obeys = obeys

    def poll(self) -> int | None:
        return self.code

    def send_signal(self, number: int) -> None:
        self.signals.append(number)
        if self._obeys:
            self.code = 0

    def kill(self) -> None:
        self.signals.append(signal.SIGKILL)
        self.code = -signal.SIGKILL


class Office:
    """A supervisor and the processes that it has started. `stalled` are process ids that stand still.

    serve: there is a reception service too. obey: workers, and the service, end when asked to.
    """

    def __init__(
        self, *groups: tuple[int, ...], serve: bool = False, obey: tuple[bool, bool] = (True, True)
    ) -> None:
        self.clock = StillClock()
        self.children: list[FakeChild] = []
        self.stalled: set[int] = set()
        self.lines: list[str] = []
        self.is_short_of_processes = False
        self._obey = obey
        members = [
            worker(shards, spawn=self._spawn, is_stalled=self._is_stalled, stop_ms=LIMITS.stop_ms)
            for shards in groups
        ]
        if serve:
            members.append(reception(spawn=self._spawn, stop_ms=SERVE_STOP_MS))
        self.supervisor = Supervisor(
            members, clock=self.clock, fraction=lambda: 1.0, report=self.lines.append, limits=LIMITS
        )

    def _is_stalled(self, pid: int, shards: tuple[int, ...]) -> bool:
        return pid in self.stalled

    def _spawn(self, words: Sequence[str]) -> FakeChild:
        if self.is_short_of_processes:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        obeys = self._obey[words[0] == "serve"]
        self.children.append(FakeChild(len(self.children) + 1, words, obeys=obeys))
        return self.children[-1]

    def tick(self, milliseconds: int = 0) -> None:
        """So much later."""
        self.clock.sleep_ms(milliseconds)
        self.supervisor.tick()

    @property
    def running(self) -> list[tuple[int, ...]]:
        """Shards of the processes that run."""
        return sorted(child.shards for child in self.children if child.code is None)

    def end(self, shards: tuple[int, ...], code: int = 1) -> None:
        """The process of these shards ends, which is seen; it may be started again at the next look."""
        (child,) = (child for child in self.children if child.shards == shards and child.code is None)
        child.code = code
        self.supervisor.tick()

    def fail(self, shards: tuple[int, ...], times: int) -> None:
        """The process of these shards ends again and again, each time at once."""
        for _ in range(times):
            self.tick(LIMITS.retry_max_ms)
            self.end(shards)

    def waited_ms(self) -> int:
        """Until another process is started."""
        before = len(self.children)
        since_ms = self.clock.now_ms
        while len(self.children) == before:
            self.tick(10)
        return self.clock.now_ms - since_ms


def test_each_group_gets_a_process() -> None:
    """A worker of its shards."""
    office = Office((0, 2), (1, 3))
    office.tick()
    assert office.running == [(0, 2), (1, 3)]
    assert office.children[0].words == ["worker", "--shard", "0", "--shard", "2"]
    office.tick()
    assert len(office.children) == 2


@pytest.mark.parametrize(
    ("code", "how"),
    [(1, "ended with exit code 1"), (0, "ended with exit code 0"), (-9, "was killed by SIGKILL")],
)
def test_a_process_that_has_ended_is_started_again_at_once(code: int, how: str) -> None:
    """However it ended; that is said."""
    office = Office((0,), (1,))
    office.tick()
    office.end((0,), code)
    assert office.running == [(1,)]
    office.tick()
    assert office.running == [(0,), (1,)]
    assert office.lines == [f"shard 0: worker {how}; starting it again in 0 ms"]


def test_a_process_that_ends_again_is_started_later_and_later() -> None:
    """The first time at once, then with waits that double."""
    office = Office((0,))
    office.tick()
    waits = []
    for _ in range(LIMITS.failures_max - 1):
        office.end((0,))
        waits.append(office.waited_ms())
    assert waits == [10, 100, 200, 400]


def test_processes_that_fail_again_and_again_are_tried_one_by_one() -> None:
    """So that the shard at fault is found."""
    office = Office((0, 2), (1, 3))
    office.tick()
    office.fail((0, 2), LIMITS.failures_max)
    office.tick()
    assert office.running == [(0,), (1, 3), (2,)]
    assert "shards 0, 2: worker keeps failing (ended with exit code 1); trying each alone" in office.lines


def test_a_lone_shard_that_keeps_failing_is_left_alone_while_the_others_go_on() -> None:
    """It is marked, with why; nobody starts it again."""
    office = Office((0, 2))
    office.tick()
    office.fail((0, 2), LIMITS.failures_max)
    office.fail((2,), LIMITS.failures_max)
    office.tick(LIMITS.window_ms)
    assert office.running == [(0,)]
    assert office.supervisor.failed == {2: "ended with exit code 1"}
    assert office.lines[-1] == (
        "shard 2: failed, 5 times in 120 s (ended with exit code 1). Left alone; the others go on"
    )
    office.end((0,))
    office.tick()
    assert office.running == [(0,)]


def test_failures_that_are_long_ago_do_not_count() -> None:
    """A process may end once a day for years."""
    office = Office((0,))
    office.tick()
    for _ in range(4 * LIMITS.failures_max):
        office.end((0,))
        office.tick(LIMITS.window_ms // 2)
        office.tick(LIMITS.window_ms // 2)
    assert office.running == [(0,)]
    assert not office.supervisor.failed


def test_a_process_that_stands_still_is_killed_and_started_again() -> None:
    """Stopped inside a transaction it would block its shard for every other worker."""
    office = Office((0,), (1,))
    office.tick()
    office.stalled.add(1)
    office.tick()
    office.tick()
    assert office.children[0].signals == [signal.SIGKILL]
    assert office.running == [(0,), (1,)]
    assert office.lines == ["shard 0: worker 1 does not move; killed"]


def test_standing_still_is_no_failure_of_the_shard() -> None:
    """A machine that sleeps every night would lose its shards one by one."""
    office = Office((0,))
    for pid in range(1, 3 * LIMITS.failures_max):
        office.tick()
        office.stalled.add(pid)
        office.tick()
    office.tick()
    assert office.running == [(0,)]
    assert office.supervisor.slots[0].state is State.RUNNING


def test_stopping_asks_all_processes_at_once_and_waits_for_none_that_has_ended() -> None:
    """They end side by side."""
    office = Office((0,), (1,))
    office.tick()
    office.supervisor.stop()
    assert [child.signals for child in office.children] == [[signal.SIGTERM]] * 2
    assert office.clock.now_ms == 0
    assert not office.lines


def test_a_process_that_does_not_end_when_asked_is_killed_after_the_deadline() -> None:
    """One deadline for all of them."""
    office = Office((0,), (1,), obey=(False, True))
    office.tick()
    office.supervisor.stop()
    assert [child.signals for child in office.children] == [[signal.SIGTERM, signal.SIGKILL]] * 2
    assert LIMITS.stop_ms <= office.clock.now_ms < LIMITS.stop_ms + LIMITS.tick_ms
    assert office.lines == [f"shard {shard}: did not end in time; killed" for shard in (0, 1)]


def test_stopping_before_anything_was_started_does_nothing() -> None:
    """There is nobody to ask."""
    office = Office((0,))
    office.supervisor.stop()
    assert not office.children


def test_a_process_that_could_not_be_started_is_started_later() -> None:
    """The system may have room for it again."""
    office = Office((0,))
    office.is_short_of_processes = True
    office.tick()
    office.is_short_of_processes = False
    office.tick()
    assert office.running == [(0,)]
    (line,) = office.lines
    assert (
        "could not be started: [Errno 11] Resource temporarily unavailable; starting it again in 0 ms" in line
    )


# --- a reception service beside the workers -----------------------------------------------------------------------


def test_a_service_runs_beside_the_workers() -> None:
    """One process, started again however it ended."""
    office = Office((0,), serve=True)
    office.tick()
    assert [child.words for child in office.children] == [["worker", "--shard", "0"], ["serve"]]
    office.end(SERVE, -9)
    assert office.running == [(0,)]
    office.tick()
    assert office.running == [SERVE, (0,)]
    assert office.lines == ["serve: service was killed by SIGKILL; starting it again in 0 ms"]


def test_a_service_that_keeps_failing_is_given_up_while_the_workers_go_on() -> None:
    """It is no shard: it has a name, and why."""
    office = Office((0,), serve=True)
    office.tick()
    office.fail(SERVE, LIMITS.failures_max)
    office.tick(LIMITS.window_ms)
    assert office.running == [(0,)]
    assert office.supervisor.failed == {}
    assert office.supervisor.failed_services == {"serve": "ended with exit code 1"}
    assert office.lines[-1] == (
        "serve: failed, 5 times in 120 s (ended with exit code 1). Left alone; the others go on"
    )


def test_shards_that_are_given_up_are_no_services() -> None:
    """Each is told in its own place."""
    office = Office((0,), serve=True)
    office.tick()
    office.fail((0,), LIMITS.failures_max)
    assert office.supervisor.failed == {0: "ended with exit code 1"}
    assert office.supervisor.failed_services == {}
    assert office.running == [SERVE]


def test_the_service_ends_before_the_workers_are_asked_to() -> None:
    """It answers what it has taken, and who asked to wait until that is applied needs the workers."""
    office = Office((0,), (1,), serve=True, obey=(True, False))
    office.tick()
    seen: list[list[int]] = []
    service = office.children[-1]

    def poll() -> int | None:
        seen.append([child.pid for child in office.children if signal.SIGTERM in child.signals])
        if len(seen) == 3:
            service.code = 0
        return service.code

    service.poll = poll  # it takes a while to end
    office.supervisor.stop()
    assert seen[0] == [service.pid]
    assert all(asked == [service.pid] for asked in seen)
    assert [child.signals for child in office.children] == [[signal.SIGTERM]] * 3
    assert not office.lines


def test_a_service_that_does_not_end_when_asked_is_killed_after_its_own_deadline() -> None:
    """Then the workers have theirs."""
    office = Office((0,), serve=True, obey=(False, False))
    office.tick()
    office.supervisor.stop()
    assert [child.signals for child in office.children] == [[signal.SIGTERM, signal.SIGKILL]] * 2
    assert SERVE_STOP_MS + LIMITS.stop_ms <= office.clock.now_ms
    assert office.clock.now_ms < SERVE_STOP_MS + LIMITS.stop_ms + 2 * LIMITS.tick_ms
    assert office.lines == ["serve: did not end in time; killed", "shard 0: did not end in time; killed"]


# --- what `hftpipe status` is told ----------------------------------------------------------------------------------


def test_what_was_given_up_is_told_for_as_long_as_the_supervisor_runs(tmp_path: Path) -> None:
    """Shards and services; afterwards it is old."""
    office = Office((0,), (1,), serve=True)
    office.tick()
    office.fail((1,), LIMITS.failures_max)
    office.fail(SERVE, LIMITS.failures_max)
    stop, log = threading.Event(), MemoryLog(Topology("memory", 2, 1, 1)).writer()
    told = GivenUp({1: "ended with exit code 1"}, {"serve": "ended with exit code 1"})
    with Upkeep(tmp_path) as upkeep, ThreadPoolExecutor(1) as pool:
        assert given_up(tmp_path) == GivenUp({}, {})
        tending = pool.submit(upkeep.tend, log, office.supervisor, stop, office.lines.append)
        deadline = time.monotonic() + 20
        while given_up(tmp_path) != told and not tending.done() and time.monotonic() < deadline:
            stop.wait(0.02)
        stop.set()
        tending.result()
        assert given_up(tmp_path) == told
        with pytest.raises(HftpipeError, match="already runs"), Upkeep(tmp_path):
            pass
    assert given_up(tmp_path) == GivenUp({}, {})


@pytest.mark.parametrize("written", [b"", b"{", b'{"0": "ended"}', b"[]", b'{"shards": [], "services": {}}'])
def test_what_cannot_be_read_says_nothing(tmp_path: Path, written: bytes) -> None:
    """Another version of the program may have written it."""
    with Upkeep(tmp_path):
        (tmp_path / "up.json").write_bytes(written)
        assert given_up(tmp_path) == GivenUp({}, {})


# --- how shards are dealt out -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shards", "workers", "groups"),
    [
        (4, 2, [(0, 2), (1, 3)]),
        (4, 1, [(0, 1, 2, 3)]),
        (3, 2, [(0, 2), (1,)]),
        (2, 8, [(0,), (1,)]),
    ],
)
def test_shards_are_dealt_out_to_processes(shards: int, workers: int, groups: list[tuple[int, ...]]) -> None:
    """Each to exactly one, as evenly as can be."""
    assert grouped(shards, workers) == groups


@pytest.mark.parametrize("workers", [1, 2, 3, 7, 100])
def test_every_shard_is_dealt_out(workers: int) -> None:
    """Whatever the numbers."""
    groups = grouped(24, workers)
    assert sorted(shard for group in groups for shard in group) == list(range(24))
    assert all(groups)


# --- standing still -----------------------------------------------------------------------------------------------


class Beats:
    """A shard's ownership as the watch sees it, and the looks that it took."""

    def __init__(self, owner: str = "host 7 start token") -> None:
        self.clock = StillClock()
        self.current: Ownership | None = Ownership(1, owner, 1)
        self.looks = 0
        self.watch = StallWatch(self._look, self.clock, still_ms=1_000)

    def _look(self, shard: int) -> Ownership | None:
        self.looks += 1
        return self.current

    def after(self, milliseconds: int, pid: int = 7) -> bool:
        """Whether the process was found to stand still in so much time, looked at all the time."""
        stalled = False
        for _ in range(milliseconds // 50):
            self.clock.sleep_ms(50)
            stalled |= self.watch.is_stalled(pid, (0,))
        return stalled

    def beating(self) -> Iterator[int]:
        """The beats of a living owner."""
        for beat in count(2):
            self.current = Ownership(1, "host 7 start token", beat)
            yield beat


def test_an_owner_whose_beat_moves_does_not_stand_still() -> None:
    """However long it lives."""
    beats = Beats()
    for beat in beats.beating():
        assert not beats.after(900)
        if beat > 10:
            break


def test_an_owner_whose_beat_does_not_move_stands_still() -> None:
    """From the first time that this beat was seen."""
    beats = Beats()
    assert not beats.after(1_000)
    assert beats.after(200)


@pytest.mark.parametrize("owner", ["", "host 8 start token", "somebody"])
def test_a_process_that_owns_nothing_does_not_stand_still(owner: str) -> None:
    """It stands by, and another one's beat is none of its business."""
    assert not Beats(owner).after(5_000)


def test_a_store_that_cannot_be_read_says_nothing() -> None:
    """And what was seen before is forgotten."""
    beats = Beats()
    beats.after(900)
    beats.current, known = None, beats.current
    assert not beats.after(5_000)
    beats.current = known
    assert not beats.after(1_000)
    assert beats.after(200)


def test_a_new_process_of_the_same_shard_begins_anew() -> None:
    """It has an epoch of its own."""
    beats = Beats()
    assert beats.after(1_200)
    beats.current = Ownership(2, "host 9 start token", 2)
    assert not beats.after(1_000, pid=9)


def test_the_store_is_looked_at_some_times_only() -> None:
    """Not with each tick."""
    beats = Beats()
    beats.after(10_000)
    assert beats.looks <= 101
