"""A log whose server fails as told, and the producers of one source that append to it."""

from collections.abc import Callable, Sequence
from random import Random

from hftpipe.config import IngestLimits
from hftpipe.core.entry import Entry, EntryId, RawEntry, decode
from hftpipe.core.transaction import Batch
from hftpipe.errors import LogUnavailable
from hftpipe.log.memory import MemoryLog, MemoryLogWriter
from hftpipe.ports import Appended, Outgoing, Topology
from hftpipe.producer import Producer, Surroundings
from hftpipe.source.framing import Mark
from tests.shell.memory_pipeline import INGEST_LIMITS, StillClock


def mark(line: int) -> Mark:
    """A place in the source, by line."""
    return Mark(line, line * 10, f"{line:032x}", unfinished=False)


def deposits(*rows: int, accounts: Sequence[int] = (0,)) -> Batch:
    """Deposits dealt out over the accounts; row and transaction id are the same number."""
    return Batch.of(
        "D" * len(rows), [accounts[row % len(accounts)] for row in rows], rows, [1] * len(rows), rows
    )


class UnreliableWriter(MemoryLogWriter):
    """A log whose server fails as told.

    cuts: for each coming pipeline, how many entries are confirmed before the connection breaks; None for all.
    unconfirmed: entries that are written all the same, and not confirmed.
    """

    def __init__(self, log: MemoryLog) -> None:
        super().__init__(log)
        self.log = log
        self.cuts: list[int | None] = []
        self.unconfirmed = 0
        self.pipelines: list[int] = []
        self.before_backlog: Callable[[], None] = lambda: None
        self.advice_failing = 0

    def append(self, entries: Sequence[Outgoing]) -> Appended:
        self.pipelines.append(len(entries))
        cut = self.cuts.pop(0) if self.cuts else None
        if cut is None:
            return super().append(entries)
        confirmed = super().append(entries[:cut]).ids
        super().append(entries[cut : cut + self.unconfirmed])
        return Appended(confirmed, LogUnavailable("the connection broke off"))

    def backlog(self, shard: int) -> int:
        self.before_backlog()
        return super().backlog(shard)

    def advice(self, source: str) -> dict[int, bytes]:
        if self.advice_failing:
            self.advice_failing -= 1
            raise LogUnavailable("the server is loading")
        return super().advice(source)


class Desk:
    """A log and the producers of one source that append to it."""

    def __init__(self, shards: int = 1) -> None:
        self.topology = Topology("desk", shards, 1, 1)
        self.log = MemoryLog(self.topology)
        self.writer = UnreliableWriter(self.log)
        self.clock = StillClock()
        self.lines: list[str] = []
        self.stopping: Callable[[], bool] = lambda: False

    def producer(
        self, source: str = "file", *, limits: IngestLimits = INGEST_LIMITS, resumable: bool = True
    ) -> Producer:
        """The next producer."""
        surroundings = Surroundings(self.clock, Random(1), lambda: self.stopping(), self.lines.append)  # noqa: PLW0108
        return Producer(
            source,
            self.topology,
            log=self.writer,
            surroundings=surroundings,
            limits=limits,
            resumable=resumable,
        )

    def entries(self, shard: int = 0) -> list[Entry]:
        """What a shard's log holds."""
        found = []
        for entry_id, fields in self.log.streams[shard].entries.items():
            entry = decode(RawEntry(entry_id, fields), shard, self.topology.shards)
            assert isinstance(entry, Entry)
            found.append(entry)
        return found

    def rows(self, shard: int = 0) -> list[tuple[int, list[int]]]:
        """Position before, and rows, of each entry."""
        return [(entry.previous, list(entry.batch.rows)) for entry in self.entries(shard)]

    def lose_tail(self, kept: int, shard: int = 0) -> None:
        """The log forgets all but its first entries."""
        stream = self.log.streams[shard]
        for entry_id in list(stream.entries)[kept:]:
            del stream.entries[entry_id]
        stream.last = EntryId(1, kept - 1)
