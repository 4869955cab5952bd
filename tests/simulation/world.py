"""The world of one run: a server, a database per shard, sources, and the processes of the product among them."""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from hftpipe.core.commit import Commit
from hftpipe.core.entry import FORMAT, digest_of
from hftpipe.core.snapshot import Snapshot
from hftpipe.core.transaction import Batch
from hftpipe.ingest import Summary, ingest
from hftpipe.log.memory import MemoryLog
from hftpipe.owning import World
from hftpipe.ports import Topology
from hftpipe.producer import Producer, Surroundings
from hftpipe.source.stream import Source
from hftpipe.store.memory import MemoryStore
from hftpipe.worker import ShardWorker
from tests.simulation.clients import SimulatedReader, SimulatedWriter
from tests.simulation.database import Database, SimulatedStore
from tests.simulation.scheduler import Actor, Scheduler
from tests.simulation.server import Server
from tests.simulation.settings import Settings
from tests.simulation.workload import FileReader, LiveReader, Report, SimulatedFile, Text, text_of

_UNIX_MS = 1_700_000_000_000


class SimulatedClock:
    """Virtual time; see `ports.Clock`."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def monotonic_ms(self) -> int:
        return self._scheduler.now_ms

    def unix_ms(self) -> int:
        return _UNIX_MS + self._scheduler.now_ms

    def sleep_ms(self, milliseconds: int) -> None:
        self._scheduler.sleep(milliseconds)


@dataclass(slots=True)
class Command:
    """What somebody starts again whenever it has ended: `body` is one life of it, under a name of its own.

    is_service: it is not meant to end. is_live: what it reads cannot be read again. is_done: its last life ended
    because there was nothing left to do. given_up: its process hangs, and another one is to be started. is_beside: a
    former life is not over yet; was_beside: that has been so some time.
    """

    name: str
    body: Callable[["Command", str], None]
    is_service: bool = False
    is_live: bool = False
    given_up: bool = False
    is_beside: bool = False
    was_beside: bool = False
    is_done: bool = False
    stop: bool = False
    lives: int = 0
    actor: Actor | None = None

    @property
    def life(self) -> str:
        """The name of the life that it is in."""
        return f"{self.name}.{self.lives}"

    def end(self, life: str) -> None:
        """A life has ended, without a fault."""
        if life == self.life:
            self.is_done = not self.stop


@dataclass(slots=True)
class LiveFeed:
    """What comes in at a live source: each life of its process gets what no former one has acknowledged."""

    text: Text
    reader: LiveReader | None = None

    def rest(self) -> Text:
        """What is left, with lines counted from 1 again."""
        done = 0 if self.reader is None else self.reader.acknowledged
        rows = {line - done: row for line, row in self.text.rows.items() if line > done}
        invalid = {line - done for line in self.text.invalid if line > done}
        self.text = Text(self.text.header, self.text.lines[done:], rows, invalid)
        return self.text


class ObservedProducer(Producer):
    """The product's producer; `acknowledged` takes what it was told is durable."""

    acknowledged: Callable[[str, Batch], None]

    def append(self, batch: Batch) -> None:
        super().append(batch)
        self.acknowledged(self.source, batch)


class SimulatedWorld:
    """All that there is, and how its processes are made."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.random = Random(settings.seed)
        self.scheduler = Scheduler(self.random)
        self.clock = SimulatedClock(self.scheduler)
        self.markers: Counter[str] = Counter()
        self.broken: dict[str, None] = {}
        self.texts: dict[str, Text] = {}
        self.durable: defaultdict[str, set[int]] = defaultdict(set)
        self.dead_owners: set[str] = set()
        self.topology = Topology("pipeline-1", settings.shards, 1, FORMAT)
        self.server = Server(
            MemoryLog(self.topology),
            self.scheduler,
            settings.faults,
            self.hit,
            self.broke,
            settings.late_ms,
            keeps_history=settings.loses_tail,
        )
        self.server.changed()
        self.databases = [self._database(shard) for shard in range(settings.shards)]
        self.files = [self._file(number) for number in range(settings.files)]
        self.reports: list[tuple[SimulatedFile, Report]] = []
        self.commands = self._commands()

    @property
    def snapshots(self) -> list[Snapshot]:
        """All databases as they are now."""
        return [database.store.snapshot() for database in self.databases]

    def is_applied(self, shard: int) -> bool:
        """Whether the database stands at the log's last entry, as that is now."""
        stream, checkpoint = self.server.log.streams[shard], self.databases[shard].store.checkpoint()
        fields = stream.entries.get(checkpoint.id)
        return checkpoint.id == stream.last and (fields is None or digest_of(fields) == checkpoint.digest)

    def hit(self, situation: str) -> None:
        """Remembers that a situation has occurred."""
        self.markers[situation] += 1

    def broke(self, violation: str) -> None:
        """Remembers that something did not hold."""
        self.scheduler.note("oracle", violation)
        self.broken[violation] = None

    # --- what there is -----------------------------------------------------------------------------------------

    def _database(self, shard: int) -> Database:
        store = MemoryStore(self.topology, shard, self.scheduler.step)
        return Database(
            store,
            self.scheduler,
            self.settings.faults,
            self.hit,
            self.broke,
            lambda commit: self._look(shard, commit),
        )

    def _text(self, number: int, first_line: int) -> Text:
        spread = 0 if self.settings.is_shared else number
        return text_of(
            self.random,
            self.random.randint(1, self.settings.file_rows_max),
            first_line=first_line,
            account=spread * 10,
            tx=spread * 1_000,
            has_tx=self.random.random() < 0.8,
        )

    def _file(self, number: int) -> SimulatedFile:
        text = self.texts[f"file-{number}"] = self._text(number, 2)
        visible = self.random.randint(0, len(text.lines)) if self.settings.grows else len(text.lines)
        return SimulatedFile(f"file-{number}", text, visible=visible, is_finished=self.random.random() < 0.7)

    def _commands(self) -> list[Command]:
        readers = [*self.files, *self.files[: self.settings.has_twin]]
        commands = [self._file_command(file, f"ingest-{number}") for number, file in enumerate(readers)]
        commands += [self._live_command(number) for number in range(self.settings.live_sources)]
        commands += [
            self._worker_command(shard, f"worker-{shard}.{number}")
            for shard in range(self.settings.shards)
            for number in range(self.settings.workers)
        ]
        return commands

    # --- its processes -----------------------------------------------------------------------------------------

    def _file_command(self, file: SimulatedFile, name: str) -> Command:
        reports: list[Report] = []

        def live(command: Command, life: str) -> None:
            if command.is_beside or not reports:  # two processes at once do not write one file
                reports.append(Report(self.scheduler.step))
                self.reports.append((file, reports[-1]))
            report = reports[-1]
            reader = FileReader(file, self.random, self.settings.block_bytes_max, self.scheduler.step)
            producer = self._producer(command, file.name, life, resumable=True)
            self._ingest(command, reader, file.text, producer, report)
            command.end(life)

        return Command(name, live)

    def _live_command(self, number: int) -> Command:
        feed = LiveFeed(self._text(len(self.files) + number, 1))

        def live(command: Command, life: str) -> None:
            text = self.texts[life] = feed.rest()
            feed.reader = LiveReader(
                life, text, self.random, lambda: self.scheduler.sleep(self.random.randint(0, 30))
            )
            producer = self._producer(command, life, life, resumable=False)
            self._ingest(command, feed.reader, text, producer, Report(self.scheduler.step))
            command.end(life)

        return Command(f"live-{number}", live, is_live=True)

    def _producer(self, command: Command, source: str, life: str, *, resumable: bool) -> Producer:
        producer = ObservedProducer(
            source,
            self.topology,
            log=SimulatedWriter(self.server, life),
            surroundings=Surroundings(
                self.clock,
                self.random,
                lambda: command.stop,
                lambda line: self._said(life, line),
                self.scheduler.step,
            ),
            limits=self.settings.ingest_limits(self.random),
            resumable=resumable,
        )
        producer.acknowledged = self._acknowledge
        return producer

    def _ingest(
        self, command: Command, reader: Source, text: Text, producer: Producer, report: Report
    ) -> None:
        ingest(
            reader,
            text.validator(),
            producer,
            summary=Summary(),
            report=report,
            stopping=lambda: command.stop,
        )

    def _worker_command(self, shard: int, name: str) -> Command:
        def live(command: Command, life: str) -> None:
            self.worker(shard, life, lambda: command.stop, until_idle=self.random.random() < 0.3).run()

        return Command(name, live, is_service=True)

    def worker(self, shard: int, life: str, stopping: Callable[[], bool], *, until_idle: bool) -> ShardWorker:
        """A worker process of the product."""
        return ShardWorker(
            shard,
            self.topology,
            log=SimulatedReader(self.server, shard, life),
            open_store=lambda: SimulatedStore(self.databases[shard]),
            world=World(
                self.clock,
                life,
                lambda owner: self.settings.knows_dead and owner in self.dead_owners,
                stopping,
                lambda line: self._said(life, line),
                self.random,
                self.scheduler.step,
            ),
            limits=self.settings.worker_limits,
            until_idle=until_idle,
        )

    # --- what is seen of them ----------------------------------------------------------------------------------

    def _acknowledge(self, source: str, batch: Batch) -> None:
        self.durable[source].update(batch.rows)

    def _said(self, life: str, line: str) -> None:
        self.scheduler.note(life, f"says: {line}")
        for words, situation in _SITUATIONS.items():
            if words in line:
                self.hit(situation)
        if "standing by" in line:
            self.scheduler.current.notes.add("stood by")
        if "the log lost entries" in line:
            self.server.settle(life, line)

    def fenced(self, life: str) -> None:
        """A worker has ended because it was replaced: somebody must have replaced it."""
        self.hit("zombie fenced")
        for database in self.databases:
            if (epoch := database.epochs.get(life)) and database.store.ownership().epoch <= epoch:
                self.broke(f"I5: {life} says that it was replaced, and nobody has taken over")

    def _look(self, shard: int, commit: Commit) -> None:
        """After each commit: what can be seen at a glance, and which situations its entries were in."""
        store = self.databases[shard].store
        checkpoint = store.checkpoint()
        if (checkpoint.number, checkpoint.hash) != (len(store.records), store.records[-1].hash):
            self.broke(f"I10: shard {shard} is at {checkpoint.number}, with {len(store.records)} records")
        if commit.before.number + len(commit.records) != len(store.records):
            self.broke(
                f"I10: shard {shard} has {len(store.records)} records after a commit to {commit.after.number}"
            )
        for record in commit.records:
            if "gap" in record.outcomes:
                self.hit("gap entry left alone")
            elif '"skipped":' in record.outcomes:
                late = (shard, record.id, record.digest) in self.server.landed_late
                self.hit("late append skipped" if late else "rows skipped")
                if f'"skipped":{record.count}' not in record.outcomes:
                    self.hit("resumed mid batch")


_SITUATIONS = {
    "its cap": "backlog full",
    "Beginning again": "file began again",
    "They cannot be read again": "live source went on",
    "dead-lettered": "foreign entry dead-lettered",
}
