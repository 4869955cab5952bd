"""A desk as transports see it: a log in memory whose server can be held up, and real stores with their workers."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from random import Random

from hftpipe.clock import SystemClock
from hftpipe.config import IngestLimits, ServeLimits, WorkerLimits
from hftpipe.errors import LogUnavailable
from hftpipe.log.memory import MemoryLog, MemoryLogWriter
from hftpipe.owning import World
from hftpipe.ports import Appended, Outgoing, Topology
from hftpipe.producer import Producer, Surroundings
from hftpipe.reception.desk import Desk
from hftpipe.reception.metrics import Metrics
from hftpipe.reception.repeats import Repeats
from hftpipe.store.books import SqliteBooks
from hftpipe.store.creation import create
from hftpipe.store.sqlite import SqliteStore, shard_path
from hftpipe.worker import ShardWorker

LIMITS = replace(ServeLimits(), stall_ms=60, reply_ms=300, applied_ms=2_000, stop_ms=2_000)
SOURCE = "serve:test"
WAIT_S = 10.0


class HeldWriter(MemoryLogWriter):
    """A log whose server is away, or slow, as told.

    open: appends wait for it. away: they fail. unconfirmed: they succeed, and the reply is lost, once. loses: the
    first entry is confirmed and then lost, once.
    """

    def __init__(self, log: MemoryLog) -> None:
        super().__init__(log)
        self.open = threading.Event()
        self.open.set()
        self.waiting = threading.Event()
        self.away = False
        self.unconfirmed = False
        self.loses = False
        self.groups: list[list[int]] = []

    def append(self, entries: Sequence[Outgoing]) -> Appended:
        self.waiting.set()
        self.open.wait(WAIT_S)
        self.waiting.clear()
        if self.away:
            return Appended([], LogUnavailable("the server is away"))
        self.groups.append([int(entry.fields[b"n"]) for entry in entries])
        if self.loses:
            self.loses = False
            ids = super().append(entries[:1]).ids
            stream = self._log.streams[entries[0].shard]
            del stream.entries[stream.last]
            stream.last = stream.last.moved(-1)
            return Appended(ids, LogUnavailable("the server has failed over to one that lags behind"))
        if self.unconfirmed:
            self.unconfirmed = False
            super().append(entries)
            return Appended([], LogUnavailable("the reply was lost"))
        return super().append(entries)

    def topology(self) -> Topology | None:
        if self.away:
            raise LogUnavailable("the server is away")
        return super().topology()


class Hall:
    """One pipeline in memory with real stores in a folder."""

    def __init__(self, home: Path, shards: int = 4) -> None:
        self.home = home
        self.topology = Topology("memory", shards, 1, 1)
        self.log = MemoryLog(self.topology)
        self.writer = HeldWriter(self.log)
        self.lines: list[str] = []
        self.failed: list[BaseException] = []
        self.halt = threading.Event()
        self.metrics = Metrics()

    @asynccontextmanager
    async def desk(
        self,
        limits: ServeLimits = LIMITS,
        ingest: IngestLimits = IngestLimits(),  # noqa: B008 - a frozen value
    ) -> AsyncIterator[Desk]:
        """A desk, stopped afterwards."""
        surroundings = Surroundings(SystemClock(self.halt), Random(1), self.halt.is_set, self.lines.append)
        producer = Producer(
            SOURCE,
            self.topology,
            log=self.writer,
            surroundings=surroundings,
            limits=ingest,
            resumable=False,
        )
        repeats = Repeats(self._books(), self.topology.shards, limits.recent_transactions_max, seed=1)
        repeats.trust()
        desk = Desk(
            self.topology,
            producer=producer,
            repeats=repeats,
            books=self._books(),
            metrics=self.metrics,
            limits=limits,
            failed=self.failed.append,
        )
        try:
            yield desk
        finally:
            self.writer.open.set()
            asyncio.get_running_loop().call_later(0.5, self.halt.set)
            await desk.stop(limits.stop_ms)
            self.halt.set()

    def work(self) -> None:
        """Applies all that was appended."""
        for shard in range(self.topology.shards):
            self._worker(shard).run()

    def appended(self) -> int:
        """Transactions in the log."""
        return sum(int(fields[b"n"]) for stream in self.log.streams for fields in stream.entries.values())

    def _books(self) -> SqliteBooks:
        return SqliteBooks(self.home, self.topology.shards)

    def _worker(self, shard: int) -> ShardWorker:
        path = shard_path(self.home, shard)

        def open_store() -> SqliteStore:
            create(path, self.topology, shard)
            return SqliteStore(path)

        clock = SystemClock(threading.Event())
        world = World(clock, "worker", lambda _: False, lambda: False, self.lines.append, Random(1))
        return ShardWorker(
            shard,
            self.topology,
            log=self.log.reader(shard, "worker", lambda _: None),
            open_store=open_store,
            world=world,
            limits=WorkerLimits(read_wait_ms=1, commit_interval_ms=0),
            until_idle=True,
        )
