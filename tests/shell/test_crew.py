"""One process, some shards: what becomes of the others when one cannot go on."""

import threading
from collections.abc import Callable
from random import Random

import pytest

from hftpipe.config import WorkerLimits
from hftpipe.core.entry import encode
from hftpipe.core.transaction import Batch
from hftpipe.crew import Crew
from hftpipe.errors import UsageError
from hftpipe.log.memory import MemoryLog
from hftpipe.owning import World
from hftpipe.ports import Outgoing, Store, Topology
from hftpipe.store.memory import MemoryStore
from hftpipe.worker import ShardWorker
from tests.shell.memory_pipeline import StillClock


class TakenOver(MemoryStore):
    """A shard whose next owner does not wait for the lease."""

    def beat(self, epoch: int) -> None:
        self.take("elsewhere", self.ownership())
        super().beat(epoch)


class Harbour:
    """Three shards, each with one deposit in its log, and a crew for them.

    opened: called by each worker that opens its store; what it raises is raised there.
    """

    def __init__(self, opened: Callable[[int], None] = lambda _: None, *, until_idle: bool = True) -> None:
        self.topology = Topology("harbour", 3, 1, 1)
        self.log = MemoryLog(self.topology)
        self.stores = [MemoryStore(self.topology, shard) for shard in range(3)]
        self.stop = threading.Event()
        self.lines: list[str] = []
        self._opened = opened
        for shard in range(3):
            self.log.append(Outgoing(shard, encode("file", 0, Batch.of("D", [shard], [1], [1], [1]), 0)))
        self.crew = Crew(
            {shard: self._worker(shard, until_idle) for shard in range(3)}, self.stop, self.lines.append
        )

    def _worker(self, shard: int, until_idle: bool) -> ShardWorker:
        clock = StillClock()
        world = World(clock, "crew", lambda _: False, self.stop.is_set, self.lines.append, Random(1))

        def open_store() -> Store:
            self._opened(shard)
            return self.stores[shard]

        return ShardWorker(
            shard,
            self.topology,
            log=self.log.reader(shard, "crew", self._wait),
            open_store=open_store,
            world=world,
            limits=WorkerLimits(),
            until_idle=until_idle,
        )

    def _wait(self, _milliseconds: int) -> None:
        assert self.stop.wait(10), "nobody has ended the crew"

    def damage(self, shard: int) -> None:
        """A shard's only entry does not match its digest."""
        entries = self.log.streams[shard].entries
        for entry_id in list(entries):
            entries[entry_id] = {**entries[entry_id], b"t": b"1"}

    def applied(self) -> list[int]:
        """Shards whose deposit was applied."""
        return [shard for shard, store in enumerate(self.stores) if store.balances]


def test_a_crew_that_has_applied_everything_ends_with_0() -> None:
    """All shards are released."""
    harbour = Harbour()
    assert harbour.crew.run() == 0
    assert harbour.applied() == [0, 1, 2]
    assert [store.ownership().owner for store in harbour.stores] == ["", "", ""]


def test_a_stopped_shard_leaves_the_others_at_work() -> None:
    """They are finished; the exit code tells of the one that was not."""
    harbour = Harbour()
    harbour.damage(1)
    assert harbour.crew.run() == 1
    assert harbour.applied() == [0, 2]
    assert not harbour.stop.is_set()
    assert len(harbour.lines) == 1
    assert harbour.lines[0].startswith("shard 1: stopped: entry 1/1-0 does not match its digest")


def test_a_fenced_shard_ends_all_with_4() -> None:
    """The process was away for longer than its lease, and so were the others."""
    harbour = Harbour(until_idle=False)
    harbour.stores[1] = TakenOver(harbour.topology, 1)
    assert harbour.crew.run() == 4
    assert harbour.stop.is_set()
    assert 1 not in harbour.applied()
    assert [line for line in harbour.lines if "shard 1" in line] == harbour.lines != []
    assert [store.ownership().owner for store in harbour.stores] == ["", "elsewhere", ""]


def test_any_other_error_ends_all_with_its_exit_code() -> None:
    """Nobody could go on as asked."""

    def refused(shard: int) -> None:
        if shard == 2:
            raise UsageError("cannot make the folder")

    harbour = Harbour(refused, until_idle=False)
    assert harbour.crew.run() == 2
    assert harbour.lines == ["shard 2: cannot make the folder"]
    assert harbour.stop.is_set()


def test_a_bug_ends_all_and_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is raised with its traceback, and the process does not go on without one of its shards."""
    raised: list[type[BaseException]] = []
    monkeypatch.setattr(threading, "excepthook", lambda arguments: raised.append(arguments.exc_type))

    def broken(shard: int) -> None:
        if shard == 0:
            raise ZeroDivisionError

    harbour = Harbour(broken, until_idle=False)
    assert harbour.crew.run() == 1
    assert raised == [ZeroDivisionError]
    assert harbour.stop.is_set()


def test_a_crew_that_is_told_to_stop_ends_with_0() -> None:
    """It finishes what it has in hand."""
    harbour = Harbour(until_idle=False)
    harbour.stop.set()
    assert harbour.crew.run() == 0
