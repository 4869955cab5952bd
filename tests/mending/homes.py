"""A home with real databases, over a log in memory: what an operator mends."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from hftpipe.config import WorkerLimits
from hftpipe.core.entry import EntryId, encode
from hftpipe.core.snapshot import Snapshot
from hftpipe.core.transaction import Batch
from hftpipe.invariants import violations
from hftpipe.log.memory import MemoryLog, MemoryLogMender
from hftpipe.mending.dead import Mending
from hftpipe.mending.repair import Repairing, accept, examine
from hftpipe.owning import World
from hftpipe.ports import LogMender, Outgoing, Topology
from hftpipe.store.creation import create
from hftpipe.store.reading import snapshot
from hftpipe.store.sqlite import SqliteStore, shard_path
from hftpipe.worker import ShardWorker
from tests.shell.memory_pipeline import StillClock

TIME_MS = 1_700_000_000_000


class Killed(BaseException):
    """The process is gone: nothing is tidied up."""


def dies_at(point: str) -> Callable[[str], None]:
    """Is killed at that step."""

    def die(reached: str) -> None:
        if reached == point:
            raise Killed

    return die


def plain(account: int, tx: int, kind: str = "deposit", amount: str = "1.0") -> dict[bytes, bytes]:
    """What a client puts into an inbox."""
    fields = {"type": kind, "account": account, "tx": tx, "amount": amount}
    return {name.encode(): str(value).encode() for name, value in fields.items()}


class MendedHome:
    """Two shards. `time_ms` is that of the next entry."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.topology = Topology("mended", 2, 1, 1)
        self.log = MemoryLog(self.topology)
        self.clock = StillClock()
        self.lines: list[str] = []
        self.time_ms = TIME_MS
        self.open_mender: Callable[[int], LogMender] = lambda shard: MemoryLogMender(self.log, shard)

    def send(self, account: int, row: int, *, source: str = "file", previous: int | None = None) -> EntryId:
        """One deposit of one unit; its id is its row, in the thousands of its account."""
        batch = Batch.of("D", [account], [account * 1_000 + row], [10_000], [row])
        before = row - 1 if previous is None else previous
        return self.add(account % 2, encode(source, before, batch, self.time_ms))

    def add(self, shard: int, fields: dict[bytes, bytes]) -> EntryId:
        """Any fields, as they are."""
        self.time_ms += 1
        return self.log.append(Outgoing(shard, fields))

    def work(self) -> None:
        """Applies all that waits."""
        for shard in range(2):
            world = World(self.clock, "worker", lambda _: True, lambda: False, self.lines.append, Random(1))
            ShardWorker(
                shard,
                self.topology,
                log=self.log.reader(shard, "worker", self.clock.sleep_ms),
                open_store=lambda shard=shard: self.open_store(shard),  # type: ignore[misc]
                world=world,
                limits=WorkerLimits(),
                until_idle=True,
            ).run()

    def open_store(self, shard: int) -> SqliteStore:
        """Made when it is not there."""
        path = shard_path(self.folder, shard)
        create(path, self.topology, shard)
        return SqliteStore(path)

    def mending(self, reach: Callable[[str], None] = lambda _: None) -> Mending:
        """What its dead letters are mended with."""
        return Mending(self.folder, self.topology, self._open, "ann@host", lambda: self.time_ms, reach=reach)

    @contextmanager
    def _open(self, shard: int) -> Iterator[LogMender]:
        yield self.open_mender(shard)

    def shards(self) -> list[Snapshot]:
        """All shards, after each was found to hold every invariant."""
        found = [snapshot(shard_path(self.folder, shard)) for shard in range(2)]
        assert not [line for shard in found for line in violations(shard)]
        return found

    def available(self, account: int) -> int:
        """Units of an account."""
        balances = self.shards()[account % 2].tables.balances
        return balances[account][0] // 10_000 if account in balances else 0

    def length(self, shard: int) -> int:
        """Entries ever appended to a shard's log."""
        return self.log.streams[shard].last.sequence + 1


def repair(home: MendedHome) -> None:
    """Gives up what shard 0 has lost."""
    store = home.open_store(0)
    repairing = Repairing(
        0,
        home.topology,
        home.log.mender(0),
        lambda: SqliteStore(shard_path(home.folder, 0)),
        "operator",
        lambda _: True,
        1_000,
        home.clock,
        "ann@host",
    )
    store.close()
    accept(repairing, examine(repairing))
