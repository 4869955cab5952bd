"""The main job: ingest files, let the workers apply them, wait until all is applied."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hftpipe.config import SupervisorLimits
from hftpipe.core.entry import EntryId
from hftpipe.errors import HftpipeError, Interrupted, SourceBroken, SourceRefused
from hftpipe.ingest import Summary, ingest
from hftpipe.intake import Intake
from hftpipe.invalid_report import InvalidReport
from hftpipe.ports import LogWriter
from hftpipe.producer import Producer
from hftpipe.store.reading import refused_since, store_paths, summarise
from hftpipe.supervisor import Supervisor


@dataclass(frozen=True, slots=True)
class Intaking:
    """What is needed to ingest: a producer for each source, and where to report."""

    producer: Callable[[Intake], Producer]
    report: InvalidReport
    stopping: Callable[[], bool]


def ingest_all(intakes: Sequence[Intake], intaking: Intaking, summary: Summary) -> None:
    """Appends all sources, one after another; returns when all is durable. Raises as `ingest` does."""
    for intake in intakes:
        if intaking.stopping() and not intake.until_told:
            raise Interrupted(f"stopped before {intake.name}; it was not read")
        part = Summary()
        try:
            ingest(
                intake.source,
                intake.validator,
                intaking.producer(intake),
                summary=part,
                report=intaking.report,
                stopping=intaking.stopping,
                until_told=intake.until_told,
            )
        except SourceRefused as refused:
            if not summary.appended:
                raise
            raise SourceBroken(f"{refused}. The sources before it are durable") from refused
        finally:
            summary.join(part)


@contextmanager
def running(supervisor: Supervisor, limits: SupervisorLimits, stop: threading.Event) -> Iterator[None]:
    """The supervised processes run during the body, and are asked to end behind it.

    stop: set when they can no longer be supervised.
    """
    over = threading.Event()
    faults: list[BaseException] = []

    def tend() -> None:
        try:
            while not over.is_set():
                supervisor.tick()
                over.wait(limits.tick_ms / 1000)
        except BaseException as fault:
            # Raised again below: nobody must believe that the workers are looked after.
            faults.append(fault)
            stop.set()

    thread = threading.Thread(target=tend, name="supervisor")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        supervisor.stop()
        if faults:
            raise faults[0]


class Drain:
    """Waits until everything that was appended has been applied.

    failed: shards that the supervisor has given up, and why.
    epochs: of the shards before the workers were started: what stopped a shard then may be mended.
    """

    def __init__(
        self,
        home: Path,
        shards: int,
        log: LogWriter,
        failed: Callable[[], Mapping[int, str]],
        epochs: Mapping[int, int],
    ) -> None:
        self._home = home
        self._log = log
        self._failed = failed
        self._targets = {shard: log.extent(shard).last for shard in range(shards)}
        self._epochs = epochs

    def wait(self, stop: threading.Event, poll_s: float = 0.02) -> None:
        """Raises HftpipeError when a shard cannot go on, Interrupted when told to stop, now or before."""
        while not stop.is_set():
            if self._is_over():
                return
            stop.wait(poll_s)
        # Also when nothing is left to apply: who was told to stop has perhaps not appended everything.
        raise Interrupted(
            "stopped before everything was applied. With --home, the same command goes on from there"
        )

    def _is_over(self) -> bool:
        for shard, why in self._failed().items():
            raise HftpipeError(f"the worker of shard {shard} keeps failing ({why}); see the lines above")
        applied = self._applied()
        return all(
            last is None or (shard in applied and applied[shard] >= last)
            for shard, last in self._targets.items()
        )

    def _applied(self) -> dict[int, EntryId]:
        applied: dict[int, EntryId] = {}
        for path in store_paths(self._home):
            summary = summarise(path)
            if summary.stopped and summary.epoch > self._epochs.get(summary.shard, 0):
                raise HftpipeError(f"shard {summary.shard} stopped: {summary.stopped}")
            applied[summary.shard] = summary.checkpoint.id
        return applied


class Outcomes:
    """What the workers of a home have done since this was made."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._before = {summary.shard: summary for summary in map(summarise, store_paths(home))}

    @property
    def epochs(self) -> dict[int, int]:
        """The epoch of each shard before."""
        return {shard: summary.epoch for shard, summary in self._before.items()}

    def applied(self) -> int:
        """Rows that took effect."""
        now = sum(summarise(path).checkpoint.totals.applied for path in store_paths(self._home))
        return now - sum(summary.checkpoint.totals.applied for summary in self._before.values())

    def refused(self) -> Counter[str]:
        """Rows that were refused, by reason."""
        total: Counter[str] = Counter()
        for path in store_paths(self._home):
            before = self._before.get(summarise(path).shard)
            total += refused_since(path, before.checkpoint.number if before is not None else 0)
        return total
