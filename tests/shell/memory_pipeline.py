"""The real ingest and the real workers over memory adapters: a whole pipeline in one thread."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from hftpipe.config import IngestLimits, WorkerLimits
from hftpipe.ingest import Summary, ingest
from hftpipe.invalid_report import InvalidReport
from hftpipe.log.memory import MemoryLog
from hftpipe.owning import World
from hftpipe.ports import LogWriter, Topology
from hftpipe.producer import Producer, Surroundings
from hftpipe.source.file import FileSource
from hftpipe.store.memory import MemoryStore
from hftpipe.validation import CsvValidator, Invalid, JsonlValidator, Rounding
from hftpipe.worker import ShardWorker

INGEST_LIMITS = IngestLimits()
WORKER_LIMITS = WorkerLimits()


class StillClock:
    """Time that moves only while somebody sleeps."""

    def __init__(self) -> None:
        self.now_ms = 0

    def monotonic_ms(self) -> int:
        return self.now_ms

    def unix_ms(self) -> int:
        return self.now_ms

    def sleep_ms(self, milliseconds: int) -> None:
        self.now_ms += milliseconds


@dataclass
class CollectedReport(InvalidReport):
    """Keeps what was reported as invalid."""

    rows: list[Invalid] = field(default_factory=list)

    def begin(self, source: str, after_line: int) -> None:
        self.rows = [row for row in self.rows if row.line <= after_line]

    def add(self, invalid: Sequence[Invalid]) -> None:
        self.rows += invalid


class MemoryPipeline:
    """A pipeline of some shards that ingests files and applies them."""

    def __init__(self, shards: int = 2) -> None:
        self.topology = Topology("memory", shards, 1, 1)
        self.log = MemoryLog(self.topology)
        self.stores = [MemoryStore(self.topology, shard) for shard in range(shards)]
        self.clock = StillClock()
        self.lines: list[str] = []
        self.report = CollectedReport()

    def ingest(
        self,
        path: Path,
        *,
        rounding: Rounding = Rounding.REJECT,
        limits: IngestLimits = INGEST_LIMITS,
        source: str = "",
        log: LogWriter | None = None,
        report: InvalidReport | None = None,
        stopping: Callable[[], bool] = lambda: False,
        summary: Summary | None = None,
    ) -> Summary:
        """Appends a file, CSV or .jsonl."""
        jsonl = path.suffix == ".jsonl"
        summary = summary if summary is not None else Summary()
        with FileSource(path, has_header=not jsonl) as file:
            validator = (
                JsonlValidator(rounding=rounding)
                if file.header is None
                else CsvValidator.from_header(file.header, rounding=rounding)
            )
            producer = Producer(
                source or file.name,
                self.topology,
                log=log if log is not None else self.log.writer(),
                surroundings=Surroundings(self.clock, Random(1), lambda: False, self.lines.append),
                limits=limits,
                resumable=True,
            )
            ingest(
                file,
                validator,
                producer,
                summary=summary,
                report=report if report is not None else self.report,
                stopping=stopping,
            )
        return summary

    def work(self, limits: WorkerLimits = WORKER_LIMITS) -> None:
        """Applies everything that was appended."""
        for shard in range(self.topology.shards):
            self.worker(shard, limits=limits).run()

    def worker(self, shard: int, owner: str = "worker", limits: WorkerLimits = WORKER_LIMITS) -> ShardWorker:
        """The worker of one shard."""
        world = World(self.clock, owner, lambda _: False, lambda: False, self.lines.append, Random(1))
        return ShardWorker(
            shard,
            self.topology,
            log=self.log.reader(shard, owner, self.clock.sleep_ms),
            open_store=lambda: self.stores[shard],
            world=world,
            limits=limits,
            until_idle=True,
        )

    def balances(self) -> dict[int, tuple[int, int, bool]]:
        """Account → available, held, locked."""
        return {
            account: balance[:3]
            for store in self.stores
            for account, balance in sorted(store.balances.items())
        }

    def outcomes(self) -> list[str]:
        """Refusals of all shards, in the order of the journal."""
        return [record.outcomes for store in self.stores for record in store.records]
