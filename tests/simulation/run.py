"""One run: chaos, then heal, then what must be true of the end; all of it follows from the seed."""

from collections.abc import Callable
from dataclasses import dataclass

from hftpipe.core.snapshot import Snapshot
from hftpipe.errors import Fenced, HftpipeError, Interrupted
from tests.simulation.chaos import Chaos
from tests.simulation.judgement import broken_end, replayed
from tests.simulation.oracle import broken_shards
from tests.simulation.scheduler import Actor
from tests.simulation.settings import KEEPS_ALL, NONE, Settings
from tests.simulation.world import Command, SimulatedWorld

HEAL_STEPS_MAX = 60_000
"""Steps within which everything must be drained once the faults are off."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a run: what did not hold, which situations occurred, the trace and its hash."""

    settings: Settings
    broken: list[str]
    markers: dict[str, int]
    events: list[tuple[int, str, str]]
    trace_hash: str

    def told(self, events_max: int = 80) -> str:
        """Seed, settings, the last events and the violations."""
        last = [f"{now:>7} ms  {who:<14} {what}" for now, who, what in self.events[-events_max:]]
        return "\n".join([str(self.settings), *last, *self.broken])


def run(settings: Settings) -> Result:
    """Runs it all."""
    world = SimulatedWorld(settings)
    running = Run(world)
    try:
        running.whole()
    finally:
        running.end_all()
    scheduler = world.scheduler
    return Result(settings, list(world.broken), dict(world.markers), scheduler.events, scheduler.trace_hash())


class _Stopped(Exception):
    """A violation was found: the rest of the run would only repeat it."""


class Run:
    """Drives a world through its phases."""

    def __init__(self, world: SimulatedWorld) -> None:
        self._world = world
        self._scheduler = world.scheduler
        self._random = world.random
        self._settings = world.settings
        self._by_actor: dict[Actor, Command] = {}
        self._former: list[Snapshot] = world.snapshots
        self._chaos_maker = Chaos(world, self._by_actor.get)

    def whole(self) -> None:
        """Chaos, heal, and the same command lines once more."""
        world = self._world
        try:
            self._chaos()
            self._look()
            self._heal()
            self._judge()
            self._again()
            self._replay()
            if world.markers["checkpoint went back"]:
                world.hit("tail lost and healed")
        except _Stopped:
            pass

    def end_all(self) -> None:
        """No process outlives the run."""
        for actor in list(self._scheduler.actors):
            self._scheduler.kill(actor)

    # --- phases ------------------------------------------------------------------------------------------------

    def _chaos(self) -> None:
        for command in self._world.commands:
            self._start(command, 30)
        look_at = self._random.randrange(self._settings.chaos_steps)
        for step in range(self._settings.chaos_steps):
            self._advance(self._restart_sometime)
            if step == look_at:
                self._look()

    def _heal(self) -> None:
        """No more faults; what is paused or under way still comes."""
        world = self._world
        world.server.faults = NONE
        world.server.down_until_ms = 0
        for file in world.files:
            file.visible = len(file.text.lines)
        for database in world.databases:
            database.faults = NONE
            database.busy_until_ms = 0
        self._drain()

    def _drain(self) -> None:
        """All command lines are started, once more at least, and all that comes of it is applied."""
        for command in self._world.commands:
            command.is_done = command.is_done and command.is_live
            if command.actor is None or not (command.is_service or command.is_done):
                self._start(command, 30)
        self._until("everything is drained", self._is_drained, self._restart_soon)
        self._close()

    def _close(self) -> None:
        for command in self._world.commands:
            command.stop = True
        self._until("all processes have ended", lambda: not self._scheduler.actors, lambda _: None)

    def _again(self) -> None:
        """I7: the same command lines, without new input, change nothing."""
        world = self._world
        before, ends = world.snapshots, [stream.last for stream in world.server.log.streams]
        self._drain()
        for snapshot, now in zip(before, world.snapshots, strict=True):
            if self._settled(now) != self._settled(snapshot):
                world.broke(f"I7: starting everything once more changed shard {now.shard}")
        if self._is_alone and ends != [stream.last for stream in world.server.log.streams]:
            world.broke("I7: files that were ingested already have added entries")

    @property
    def _is_alone(self) -> bool:
        """No two processes ever read one file at once: the slower one's advice is lower, which is safe."""
        return not (self._settings.has_twin or any(command.was_beside for command in self._world.commands))

    def _settled(self, snapshot: Snapshot) -> object:
        """What may not change without new input; entries that are skipped may be added where advice was low."""
        tables = snapshot.tables
        if self._is_alone:
            return tables, snapshot.checkpoint
        named = {account: balance[:3] for account, balance in tables.balances.items()}
        return named, tables.transactions(), tables.disputes, tables.sources, tables.dead

    def _replay(self) -> None:
        """I8: the whole log gives an empty store the same tables, in commits of other sizes."""
        if self._settings.loses_tail or self._settings.worker_limits.retain != KEEPS_ALL:
            return
        for database, tables in zip(
            self._world.databases, replayed(self._world, self._random.randint(1, 9)), strict=True
        ):
            if database.store.snapshot().tables != tables:
                self._world.broke(
                    f"I8: replayed from an empty store, {database.store.identity()} is not the same"
                )

    # --- steps -------------------------------------------------------------------------------------------------

    def _until(self, what: str, is_over: Callable[[], bool], on_end: Callable[[Command], None]) -> None:
        for step in range(HEAL_STEPS_MAX):
            if step % 4 == 0 and is_over():  # looked at now and then only, for speed
                return
            self._advance(on_end)
        self._world.broke(f"L1: waited in vain until {what}")
        raise _Stopped

    def _advance(self, on_end: Callable[[Command], None]) -> None:
        server = self._world.server
        if server.late:
            server.land()
        actor = self._scheduler.run_one(server.next_due_ms() if server.late else None)
        if server.faults is not NONE and actor is not None:
            self._chaos_maker.disturb(actor)
            self._replace_given_up()
        if actor is not None and actor.is_over:
            self._ended(actor, on_end)
        if self._world.broken:
            raise _Stopped

    def _ended(self, actor: Actor, on_end: Callable[[Command], None]) -> None:
        command = self._by_actor.pop(actor, None)
        fault = actor.fault
        if isinstance(fault, Fenced):
            self._world.fenced(actor.name)
        elif isinstance(fault, Interrupted):
            self._world.hit("interrupted")
        elif fault is not None:
            kind = "stopped" if isinstance(fault, HftpipeError) else "has a bug"
            self._world.broke(f"L1: {actor.name} {kind}: {type(fault).__name__}: {fault}")
        if command is not None and command.actor is actor:
            command.actor = None
            on_end(command)

    def _start(self, command: Command, delay_ms: int) -> None:
        command.is_beside = command.actor is not None
        command.was_beside = command.was_beside or command.is_beside
        command.lives += 1
        command.stop = False
        life = command.life
        command.actor = self._scheduler.spawn(
            life,
            lambda: command.body(command, life),
            delay_ms=self._random.randint(0, delay_ms),
            slowness_ms=self._random.randint(0, self._settings.slowness_ms),
        )
        self._by_actor[command.actor] = command

    def _replace_given_up(self) -> None:
        """Whoever started a process that hangs starts another one beside it."""
        for command in self._world.commands:
            if command.given_up:
                command.given_up = False
                self._world.hit("hanging process replaced")
                self._start(command, 50)

    def _restart_sometime(self, command: Command) -> None:
        if not (command.is_done and command.is_live):
            self._start(command, self._random.choice((0, 50, 500)))

    def _restart_soon(self, command: Command) -> None:
        if command.is_service or not command.is_done:
            self._start(command, 20)

    # --- looks -------------------------------------------------------------------------------------------------

    def _is_drained(self) -> bool:
        world = self._world
        if world.server.late or not all(
            command.is_done for command in world.commands if not command.is_service
        ):
            return False
        if any(actor.paused or not self._by_actor[actor].is_service for actor in self._scheduler.actors):
            return False
        return all(map(world.is_applied, range(self._settings.shards)))

    def _look(self) -> None:
        """All that the shared invariants say in the middle of a run."""
        now = self._world.snapshots
        for line in broken_shards(now, self._former, {}, self._world.texts):
            self._world.broke(line)
        self._former = now
        if self._world.broken:
            raise _Stopped

    def _judge(self) -> None:
        for line in broken_end(self._world, self._former):
            self._world.broke(line)
        if self._world.broken:
            raise _Stopped
