"""Keeps processes running: restarts with backoff, and finds the shard that keeps failing.

Each process is a member with a name. Workers that fail again and again are given one shard each, so that the shard at
fault is found; who then still fails is marked as failed and left alone, the others go on. All end by themselves when
the supervisor is gone.
"""

import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

from hftpipe.backoff import Backoff
from hftpipe.config import SupervisorLimits
from hftpipe.event import Event, Level
from hftpipe.owner import pid_of
from hftpipe.ports import Clock, Ownership

PARENT_PIPE: Final = "HFTPIPE_PARENT_PIPE"
"""Environment variable with the descriptor whose end of file tells a process that its supervisor is gone."""


class State(StrEnum):
    """Where the process of a member stands."""

    RUNNING = "running"
    WAITING = "restarting"
    FAILED = "failed"


class Child(Protocol):
    """A process that was started here, and that nobody else can be mistaken for."""

    pid: int

    def poll(self) -> int | None:
        """The exit code; None while it runs, negative for the signal that killed it."""

    def send_signal(self, number: int) -> None:
        """Sends a signal, if it still runs."""

    def kill(self) -> None:
        """Kills it."""


@dataclass(frozen=True, slots=True)
class Member:
    """A process that is to be kept running.

    name: "shards 0, 2", "serve". role: what its process is called in messages. spawn: starts it.
    is_stalled: whether the process of that id stands still. parts: who takes its place when it keeps failing; without
    any it is given up. shards: those it works on. ends_first: it is asked to end while the others still run.
    stop_ms: how long it has to end when asked.
    """

    name: str
    role: str
    spawn: Callable[[], Child]
    stop_ms: int
    is_stalled: Callable[[int], bool] = lambda _: False
    parts: tuple["Member", ...] = ()
    shards: tuple[int, ...] = ()
    ends_first: bool = False


@dataclass(slots=True)
class Slot:
    """A member's process, and how that has fared."""

    member: Member
    backoff: Backoff
    child: Child | None = None
    state: State = State.WAITING
    due_ms: int = 0
    why: str = ""
    failed_ms: deque[int] = field(default_factory=deque)


class Supervisor:
    """Runs one process for each member."""

    def __init__(
        self,
        members: Sequence[Member],
        *,
        clock: Clock,
        fraction: Callable[[], float],
        report: Callable[[str], None],
        limits: SupervisorLimits,
    ) -> None:
        self._clock = clock
        self._fraction = fraction
        self._report = report
        self._limits = limits
        self.slots = [self._slot(member) for member in members]

    @property
    def failed(self) -> Mapping[int, str]:
        """The shards that were given up, and why."""
        given_up = [slot for slot in self.slots if slot.state is State.FAILED]
        return {shard: slot.why for slot in given_up for shard in slot.member.shards}

    @property
    def failed_services(self) -> Mapping[str, str]:
        """The members without shards that were given up, by name, and why."""
        given_up = [slot for slot in self.slots if slot.state is State.FAILED]
        return {slot.member.name: slot.why for slot in given_up if not slot.member.shards}

    def tick(self) -> None:
        """Starts what is due, and takes note of what has ended. To be called a few times a second."""
        now_ms = self._clock.monotonic_ms()
        for slot in list(self.slots):
            if slot.child is not None:
                self._watch(slot, slot.child, now_ms)
            elif slot.state is State.WAITING and now_ms >= slot.due_ms:
                self._start(slot, now_ms)

    def _start(self, slot: Slot, now_ms: int) -> None:
        try:
            slot.child = slot.member.spawn()
            slot.state = State.RUNNING
        except OSError as error:  # the system has no room for a process now
            self._note_end(slot, f"could not be started: {error}", now_ms)

    def stop(self) -> None:
        """Asks all to end, in two groups one behind the other, and kills those that do not within their deadline."""
        self._stop([slot for slot in self.slots if slot.member.ends_first])
        self._stop([slot for slot in self.slots if not slot.member.ends_first])

    def _stop(self, slots: Sequence[Slot]) -> None:
        for slot in slots:
            if slot.child is not None:
                slot.child.send_signal(signal.SIGTERM)
        asked_ms = self._clock.monotonic_ms()
        for slot in slots:
            child, slot.child = slot.child, None
            if child is not None:
                deadline_ms = asked_ms + slot.member.stop_ms
                while child.poll() is None and self._clock.monotonic_ms() < deadline_ms:
                    self._clock.sleep_ms(self._limits.tick_ms)
                if child.poll() is None:
                    self._tell("process_killed", slot.member, "did not end in time; killed", pid=child.pid)
                    child.kill()

    def _watch(self, slot: Slot, child: Child, now_ms: int) -> None:
        code = child.poll()
        if code is None:
            if slot.member.is_stalled(child.pid):
                # Stopped inside a transaction it would block the shard for every other worker.
                told = f"{slot.member.role} {child.pid} does not move; killed"
                self._tell("process_stalled", slot.member, told, pid=child.pid)
                child.kill()
                slot.child, slot.state, slot.due_ms = None, State.WAITING, now_ms
            return
        slot.child = None
        self._note_end(slot, _ended(code), now_ms)

    def _note_end(self, slot: Slot, why: str, now_ms: int) -> None:
        role = slot.member.role
        slot.why = why
        slot.failed_ms.append(now_ms)
        while slot.failed_ms[0] < now_ms - self._limits.window_ms:
            slot.failed_ms.popleft()
        if len(slot.failed_ms) < self._limits.failures_max:
            wait_ms = slot.backoff.next_ms() if len(slot.failed_ms) > 1 else 0
            slot.state, slot.due_ms = State.WAITING, now_ms + wait_ms
            told = f"{role} {slot.why}; starting it again in {wait_ms} ms"
            self._tell("process_restarting", slot.member, told, why=why, wait_ms=wait_ms)
        elif slot.member.parts:
            told = f"{role} keeps failing ({slot.why}); trying each alone"
            self._tell("process_split", slot.member, told, why=why)
            self.slots.remove(slot)
            self.slots += map(self._slot, slot.member.parts)
        else:
            slot.state = State.FAILED
            told = (
                f"failed, {len(slot.failed_ms)} times in {self._limits.window_ms // 1000} s ({slot.why}). "
                "Left alone; the others go on"
            )
            self._tell("process_given_up", slot.member, told, Level.ERROR, why=why)

    def _tell(
        self, name: str, member: Member, told: str, level: Level = Level.WARNING, **fields: object
    ) -> None:
        sentence = f"{member.name}: {told}"
        self._report(Event(name, sentence, level, member=member.name, shards=member.shards, **fields))

    def _slot(self, member: Member) -> Slot:
        return Slot(member, Backoff(self._limits.retry_first_ms, self._limits.retry_max_ms, self._fraction))


class StallWatch:
    """Tells whether a worker process stands still: it owns a shard, and the beat does not move.

    ownership: of a shard, None when that cannot be known.
    still_ms: so long a beat may stand still.
    """

    def __init__(self, ownership: Callable[[int], Ownership | None], clock: Clock, *, still_ms: int) -> None:
        self._ownership = ownership
        self._clock = clock
        self._still_ms = still_ms
        self._seen: dict[int, tuple[Ownership | None, int]] = {}
        self._looked_ms: dict[int, int] = {}

    def is_stalled(self, pid: int, shards: tuple[int, ...]) -> bool:
        """Whether the process has stood still for too long. Looks at each shard some times per `still_ms` only."""
        return any(self._is_still(shard, pid) for shard in shards)

    def _is_still(self, shard: int, pid: int) -> bool:
        now_ms = self._clock.monotonic_ms()
        if now_ms - self._looked_ms.get(shard, -self._still_ms) < self._still_ms // 10:
            return False
        self._looked_ms[shard] = now_ms
        current = self._ownership(shard)
        seen, since_ms = self._seen.get(shard, (None, now_ms))
        if current is None or current != seen:
            self._seen[shard] = (current, now_ms)
            return False
        return pid_of(current.owner) == pid and now_ms - since_ms >= self._still_ms


def grouped(shards: int, workers: int) -> list[tuple[int, ...]]:
    """The shards dealt out to so many processes."""
    return [tuple(range(first, shards, workers)) for first in range(min(workers, shards))]


Spawn = Callable[[Sequence[str]], Child]
"""Starts `hftpipe` with these words behind it."""


def worker(
    shards: tuple[int, ...],
    *,
    spawn: Spawn,
    is_stalled: Callable[[int, tuple[int, ...]], bool],
    stop_ms: int,
    options: Callable[[tuple[int, ...]], Sequence[str]] = lambda _: (),
) -> Member:
    """The worker process of some shards; several that keep failing are tried one by one.

    is_stalled: whether the process of that id, for these shards, stands still (see `StallWatch`).
    options: what else a worker of some shards is told.
    """
    alone = [(shard,) for shard in shards] if len(shards) > 1 else []
    words = ["worker", *(word for shard in shards for word in ("--shard", str(shard))), *options(shards)]
    return Member(
        name=f"shard{'s' * (len(shards) > 1)} {', '.join(map(str, shards))}",
        role="worker",
        spawn=lambda: spawn(words),
        stop_ms=stop_ms,
        is_stalled=lambda pid: is_stalled(pid, shards),
        parts=tuple(
            worker(one, spawn=spawn, is_stalled=is_stalled, stop_ms=stop_ms, options=options) for one in alone
        ),
        shards=shards,
    )


def reception(*, spawn: Spawn, stop_ms: int) -> Member:
    """The process of the reception service: it ends while the workers run, for it answers what it has taken."""
    return Member(
        name="serve", role="service", spawn=lambda: spawn(["serve"]), stop_ms=stop_ms, ends_first=True
    )


class Spawner:
    """Starts `hftpipe` processes that end when this process is gone.

    environment: their settings as HFTPIPE_… variables, so that no secret stands on a command line.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        # Only this process holds the writing end: however it ends, the others read an end of file.
        self._read_end, self._write_end = os.pipe()
        os.set_inheritable(self._read_end, True)
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith("HFTPIPE_WORKER_")
        }
        # HFTPIPE_TOKEN is a client's secret: none of them needs it.
        for name in ("HFTPIPE_SHARD", "HFTPIPE_UNTIL_IDLE", "HFTPIPE_TOKEN"):
            inherited.pop(name, None)
        self._environment = {
            **inherited,
            **environment,
            "HFTPIPE_CONFIG": os.devnull,  # what the file says has been taken over into `environment`
            PARENT_PIPE: str(self._read_end),
        }

    def __call__(self, words: Sequence[str]) -> Child:
        return subprocess.Popen(
            [sys.executable, "-m", "hftpipe", *words],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(self._read_end,),
            start_new_session=True,  # Ctrl-C is for the supervisor, which then asks the others
        )


def _ended(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    return f"was killed by {signal.Signals(-code).name}"
