"""Virtual time and actors: one seeded random generator decides who runs next, and everything else.

An actor is a process as the others see it: a greenlet that gives way at each `step`. Between two steps nothing else
happens. A killed actor never runs product code with an effect again: it is unwound at once, and whatever its
`finally` clauses call raises `Killed`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from random import Random

import greenlet


class Killed(BaseException):
    """Raised in an actor that is no more, at every point where it would touch the world."""


@dataclass(slots=True, eq=False)
class Actor:
    """A simulated process.

    wake_ms: it does not run before. slowness_ms: each of its steps takes up to so long. at: its last step.
    fault: what it died of.
    """

    name: str
    thread: greenlet.greenlet
    body: Callable[[], None]
    wake_ms: int
    slowness_ms: int
    paused: bool = False
    is_killed: bool = False
    is_over: bool = False
    at: str = "its start"
    fault: BaseException | None = None
    notes: set[str] = field(default_factory=set)


class Scheduler:
    """Runs actors one step at a time; its own greenlet is the one that made it."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.now_ms = 0
        self.actors: list[Actor] = []
        self.events: list[tuple[int, str, str]] = []
        self._main = greenlet.getcurrent()
        self._current: Actor | None = None

    @property
    def current(self) -> Actor:
        """The actor that is running."""
        assert self._current is not None
        return self._current

    def spawn(self, name: str, body: Callable[[], None], *, delay_ms: int = 0, slowness_ms: int = 0) -> Actor:
        """A new actor, which begins after a delay."""
        thread = greenlet.greenlet(self._live)
        actor = Actor(name, thread, body, self.now_ms + delay_ms, slowness_ms)
        self.actors.append(actor)
        return actor

    def step(self, label: str) -> None:
        """Called by an actor: others may run here, and it may be killed or paused here."""
        actor = self.current
        if actor.is_killed:
            raise Killed
        self.note(actor.name, label)
        actor.at = label
        if actor.slowness_ms:
            actor.wake_ms = self.now_ms + int(self.random.random() * actor.slowness_ms)
        self._main.switch()
        if actor.is_killed:
            raise Killed

    def sleep(self, milliseconds: int) -> None:
        """Called by an actor: it does not run for so long."""
        actor = self.current
        actor.wake_ms = self.now_ms + milliseconds
        slowness_ms, actor.slowness_ms = actor.slowness_ms, 0
        try:
            self.step("sleeps")
        finally:
            actor.slowness_ms = slowness_ms

    def run_one(self, next_event_ms: int | None = None) -> Actor | None:
        """Lets a ready actor do one step and returns it; when none is ready, time passes instead.

        next_event_ms: when something else is going to happen, to which time may pass.
        """
        ready = [actor for actor in self.actors if actor.wake_ms <= self.now_ms]
        if not ready:
            times = [actor.wake_ms for actor in self.actors]
            times += [] if next_event_ms is None else [next_event_ms]
            self.now_ms = max(self.now_ms, min(times, default=self.now_ms))
            return None
        self.now_ms += self.random.random() < 0.5
        actor = ready[int(self.random.random() * len(ready))]
        actor.paused = False
        self._switch_to(actor)
        return actor

    def pause(self, actor: Actor, milliseconds: int) -> None:
        """Stops an actor where it is; it goes on later, and does not know."""
        self.note(actor.name, f"is paused for {milliseconds} ms")
        actor.wake_ms = max(actor.wake_ms, self.now_ms + milliseconds)
        actor.paused = True

    def kill(self, actor: Actor) -> None:
        """Ends an actor where it is."""
        self.note(actor.name, "is killed")
        actor.is_killed = True
        if actor.thread:
            self._switch_to(actor)
        else:
            self._bury(actor)

    def note(self, who: str, what: str) -> None:
        """Adds to the trace."""
        self.events.append((self.now_ms, who, what))

    def trace_hash(self) -> str:
        """Equal for equal runs."""
        return blake2b("\n".join(map(repr, self.events)).encode(), digest_size=16).hexdigest()

    def _switch_to(self, actor: Actor) -> None:
        self._current = actor
        actor.thread.switch()
        self._current = None

    def _live(self) -> None:
        actor = self.current
        try:
            actor.body()
        except Killed:
            pass
        except Exception as fault:
            actor.fault = fault
        self._bury(actor)

    def _bury(self, actor: Actor) -> None:
        actor.is_over = True
        self.actors.remove(actor)
        self.note(actor.name, "is over" if actor.fault is None else f"ends: {actor.fault!r}"[:200])
