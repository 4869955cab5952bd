"""One shard on the bench: its log, its store, a clock that only moves when somebody waits, and any worker over them."""

from collections.abc import Callable, Sequence
from random import Random

from hftpipe.config import WorkerLimits
from hftpipe.core.commit import Commit
from hftpipe.core.entry import EntryId, Foreign, RawEntry, encode
from hftpipe.core.transaction import Batch
from hftpipe.errors import LogUnavailable, StoreUnavailable
from hftpipe.log.memory import MemoryLog, MemoryLogReader
from hftpipe.owning import Witness, World
from hftpipe.ports import Outgoing, Ownership, Store, Topology
from hftpipe.store.memory import MemoryStore
from hftpipe.worker import ShardWorker
from tests.shell.memory_pipeline import WORKER_LIMITS, StillClock


def deposits(first_row: int, count: int, account: int = 0) -> Batch:
    """So many deposits of one unit each; row and transaction id are the same number."""
    rows = list(range(first_row, first_row + count))
    return Batch.of("D" * count, [account] * count, rows, [10_000] * count, rows)


class UnreliableStore(MemoryStore):
    """A store on a disk that fails now and then.

    failing_before, failing_after: so many more commits fail, with nothing written, or with all of it written.
    lost_releases: so many more releases are written, and their answers lost.
    sizes: transactions of each commit that was written.
    """

    def __init__(self, topology: Topology, shard: int) -> None:
        super().__init__(topology, shard)
        self.failing_before = 0
        self.failing_after = 0
        self.lost_releases = 0
        self.sizes: list[int] = []
        self.beats = 0

    def commit(self, epoch: int, commit: Commit) -> None:
        if self.failing_before:
            self.failing_before -= 1
            raise StoreUnavailable("the disk is full")
        super().commit(epoch, commit)
        self.sizes.append(sum(record.count for record in commit.records))
        if self.failing_after:
            self.failing_after -= 1
            raise StoreUnavailable("the disk did not answer")

    def beat(self, epoch: int) -> None:
        super().beat(epoch)
        self.beats += 1

    def release(self, epoch: int, stopped: str = "") -> None:
        super().release(epoch, stopped)
        if self.lost_releases:
            self.lost_releases -= 1
            raise StoreUnavailable("the disk did not answer")


class BenchReader(MemoryLogReader):
    """The worker's side of the log, with what was asked of it.

    counts: entries wanted by each read. roles: announced, in order. full: no dead letter can be written.
    """

    def __init__(self, log: MemoryLog, consumer: str, wait_ms: Callable[[int], None]) -> None:
        super().__init__(log, 0, consumer, wait_ms)
        self.counts: list[int] = []
        self.roles: list[str] = []
        self.full = False

    def read(
        self, count: int, wait_ms: int, done: Sequence[EntryId], keep_from: EntryId | None
    ) -> list[RawEntry]:
        self.counts.append(count)
        return super().read(count, wait_ms, done, keep_from)

    def bury(self, foreign: Foreign) -> None:
        if self.full:
            raise LogUnavailable("the server is out of memory")
        super().bury(foreign)

    def announce(self, role: str) -> None:
        self.roles.append(role)


class ShardBench:
    """A pipeline of one shard. `waits` are the waits of reads, `meanwhile` is called in each of them."""

    def __init__(self) -> None:
        self.topology = Topology("bench", 1, 1, 1)
        self.log = MemoryLog(self.topology)
        self.store = UnreliableStore(self.topology, 0)
        self.clock = StillClock()
        self.lines: list[str] = []
        self.waits: list[int] = []
        self.meanwhile: Callable[[], None] = lambda: None
        self.stopping: Callable[[], bool] = lambda: self.clock.now_ms > 600_000
        self.reader = self.new_reader("first")
        self._next_row = 1

    @property
    def entries(self) -> dict[EntryId, dict[bytes, bytes]]:
        """What the log holds."""
        return self.log.streams[0].entries  # type: ignore[return-value]

    @property
    def pending(self) -> list[EntryId]:
        """What was handed out and is not acknowledged."""
        group = self.log.streams[0].group
        return sorted(group.pending) if group is not None else []

    def new_reader(self, consumer: str) -> BenchReader:
        """Another consumer of the group."""
        return BenchReader(self.log, consumer, self._wait)

    def append(self, *sizes: int, source: str = "file", time_ms: int = 0) -> list[EntryId]:
        """Entries of so many deposits each, appended at that Unix time."""
        ids = []
        for size in sizes:
            fields = encode(source, self._next_row - 1, deposits(self._next_row, size), time_ms)
            ids.append(self.log.append(Outgoing(0, fields)))
            self._next_row += size
        return ids

    def append_fields(self, fields: dict[bytes, bytes]) -> EntryId:
        """An entry as it is."""
        return self.log.append(Outgoing(0, fields))

    def worker(
        self,
        owner: str = "first",
        *,
        limits: WorkerLimits = WORKER_LIMITS,
        until_idle: bool = True,
        dead: Sequence[str] = (),
        reader: BenchReader | None = None,
        store: Store | None = None,
        reach: Callable[[str], None] = lambda _: None,
        witness: Witness | None = None,
    ) -> ShardWorker:
        """A worker of the shard; `dead` owners are known to be gone."""
        world = World(
            self.clock,
            owner,
            lambda name: name in dead,
            self.stopping,
            self.lines.append,
            Random(1),
            reach,
            witness or Witness(),
        )
        self.reader = reader if reader is not None else self.new_reader(owner)
        return ShardWorker(
            0,
            self.topology,
            log=self.reader,
            open_store=lambda: store if store is not None else self.store,
            world=world,
            limits=limits,
            until_idle=until_idle,
        )

    def owned_by(self, owner: str) -> int:
        """Somebody else takes the shard; the epoch."""
        epoch = self.store.take(owner, self.store.ownership())
        assert epoch is not None
        return epoch

    def balance(self) -> int:
        """Units deposited to the only account."""
        return self.store.balances[0][0] // 10_000 if self.store.balances else 0

    def ownership(self) -> Ownership:
        """Who owns the shard."""
        return self.store.ownership()

    def _wait(self, milliseconds: int) -> None:
        self.waits.append(milliseconds)
        self.clock.sleep_ms(milliseconds)
        self.meanwhile()
