"""What goes wrong between two steps, as often as the settings say."""

from collections.abc import Callable

from hftpipe.core.entry import origin
from hftpipe.faults import POINTS
from hftpipe.log.memory import _Stream
from hftpipe.ports import Outgoing
from tests.simulation.scheduler import Actor
from tests.simulation.world import Command, SimulatedWorld

_WHILE_MS = 300


class Chaos:
    """Disturbs a world; `detach` is told of commands whose process hangs and is given up by whoever started it."""

    def __init__(self, world: SimulatedWorld, command_of: Callable[[Actor], Command | None]) -> None:
        self._world = world
        self._random = world.random
        self._command_of = command_of
        faults = world.settings.faults
        events: list[tuple[float, Callable[[], None]]] = [
            (faults.store_busy, self._make_store_busy),
            (faults.server_restarts, self._restart_server),
            (faults.server_down, self._take_server_down),
            (faults.group_destroyed, self._destroy_group),
            (faults.group_set_back, self._set_group_back),
            (faults.foreign, self._append_foreign),
            (faults.tail_lost, self._lose_tail),
            (0.01 if world.settings.grows else 0.0, self._grow),
        ]
        self._events = [event for event in events if event[0]]

    def disturb(self, actor: Actor) -> None:
        """After a step of an actor."""
        likelihood = self._random.random()
        for share, event in self._events:
            if likelihood < share:
                event()
                return
            likelihood -= share
        if not actor.is_over:
            self._disturb_actor(actor, likelihood)

    def _disturb_actor(self, actor: Actor, likelihood: float) -> None:
        faults = self._world.settings.faults
        if actor.at in POINTS:
            likelihood /= 4  # few of all steps, and those that matter most
        if likelihood < faults.kill:
            self._kill(actor)
        elif likelihood < faults.kill + faults.pause:
            self._pause(actor)
        elif likelihood < faults.kill + faults.pause + faults.stop:
            command = self._command_of(actor)
            if command is not None:
                command.stop = True

    def _kill(self, actor: Actor) -> None:
        self._world.hit(f"killed at {_place(actor)}")
        self._world.dead_owners.add(actor.name)
        self._world.scheduler.kill(actor)

    def _pause(self, actor: Actor) -> None:
        lease_ms = self._world.settings.worker_limits.lease_ms
        self._world.hit(f"paused at {_place(actor)}")
        self._world.scheduler.pause(actor, self._random.randint(1, 4 * lease_ms))
        command = self._command_of(actor)
        if command is not None and self._random.random() < 0.3:
            command.given_up = True

    def _make_store_busy(self) -> None:
        database = self._random.choice(self._world.databases)
        database.busy_until_ms = self._world.scheduler.now_ms + self._random.randint(1, _WHILE_MS)
        self._world.scheduler.note("chaos", "a database is busy")

    def _restart_server(self) -> None:
        self._world.server.restart()

    def _take_server_down(self) -> None:
        self._world.server.restart()
        self._world.server.down_until_ms = self._world.scheduler.now_ms + self._random.randint(1, _WHILE_MS)
        self._world.hit("server down for a while")

    def _destroy_group(self) -> None:
        self._world.scheduler.note("chaos", "a group is destroyed")
        self._stream().group = None
        self._world.server.changed()
        self._world.hit("group destroyed")

    def _set_group_back(self) -> None:
        group = self._stream().group
        if group is not None:
            self._world.scheduler.note("chaos", "a group is set back to 0")
            group.delivered = origin(1)
            self._world.server.changed()
            self._world.hit("group set back")

    def _append_foreign(self) -> None:
        shard = self._random.randrange(self._world.settings.shards)
        self._world.server.append(Outgoing(shard, {b"hello": b"%d" % self._random.randrange(100)}))

    def _lose_tail(self) -> None:
        if self._world.server.lose_tail():
            self._world.hit("tail lost")

    def _grow(self) -> None:
        file = self._random.choice(self._world.files)
        file.visible = min(len(file.text.lines), file.visible + self._random.randint(1, 8))

    def _stream(self) -> _Stream:
        return self._random.choice(self._world.server.log.streams)


def _place(actor: Actor) -> str:
    """An actor's last step without numbers."""
    return f"{actor.at.split(' ')[0].removesuffix(':')}{' done' if actor.at.endswith('done') else ''}"
