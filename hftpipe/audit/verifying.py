"""Verifies a whole home: its files among each other, each shard by itself, and ids across shards."""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hftpipe.audit.findings import Findings
from hftpipe.audit.log_check import Logs
from hftpipe.audit.parallel import Tell, for_each_shard, worthwhile
from hftpipe.audit.scratch import scratch_folder
from hftpipe.audit.shared_ids import FindShared, Shared, parts_for
from hftpipe.audit.verify import Verified, Verify
from hftpipe.core.transaction import Column
from hftpipe.errors import HftpipeError, UsageError
from hftpipe.ports import Topology
from hftpipe.store.ids import IdReader
from hftpipe.store.reading import ShardSummary, open_reading, store_paths, summarise
from hftpipe.store.sqlite import shard_path, translated

_ENTRY_OF = "SELECT entry FROM entries WHERE number = ?"


@dataclass(slots=True)
class Report:
    """What a verification came to. whole: findings about the pipeline as such."""

    whole: Findings = field(default_factory=lambda: Findings(None))
    shards: dict[int, Verified] = field(default_factory=dict)

    @property
    def all(self) -> list[Findings]:
        """Of the pipeline, and shard by shard."""
        return [self.whole, *(self.shards[shard].findings for shard in sorted(self.shards))]


@dataclass(frozen=True, slots=True)
class Log:
    """The log of a pipeline under audit. topology: None when it belongs to none."""

    topology: Topology | None
    shards: Logs


def verify(
    home: Path,
    chosen: Sequence[int],
    log: Log | None,
    *,
    processes: int,
    stopping: Callable[[], bool],
    tell: Tell,
) -> Report:
    """Verifies the chosen shards of a home, all when none is.

    log: None when it is not to be looked at. processes: at most. Raises UsageError when there is no such shard,
    ScratchUnavailable when there is no room to count, Interrupted when it is to stop.
    """
    report = Report()
    stored = _stored(home)
    pipeline, shards = _agreed(stored, None if log is None else log.topology)
    if log is not None:
        topology = log.topology
        report.whole.check("log", "pipeline", topology and topology.pipeline, pipeline)
        report.whole.check("log", "number of shards", topology and topology.shards, shards)
    wanted = _wanted(chosen, shards, stored, report.whole)
    processes = worthwhile([shard_path(home, shard) for shard in wanted], processes)
    parts = parts_for(sum(_ids(summary) for summary in stored.values()))
    with scratch_folder("hftpipe-verify-") as folder:
        task = Verify(home, pipeline, shards, folder, parts, None if log is None else log.shards)
        report.shards = for_each_shard(task, wanted, processes=processes, stopping=stopping, tell=tell)
        if len(wanted) > 1:
            shared = for_each_shard(
                FindShared(folder, tuple(wanted)),
                range(parts),
                processes=processes if parts > 1 else 0,
                stopping=stopping,
                tell=tell,
            )
            _add_shared(home, list(shared.values()), report.whole)
    return report


def _add_shared(home: Path, shared: Sequence[Shared], findings: Findings) -> None:
    for part in shared:
        for tx, takers in part.shown:
            findings.add("taken_ids", f"tx {tx}", f"taken by {_addresses(home, tx, takers)}", "taken once")
        findings.count += part.count - len(part.shown)


def _stored(home: Path) -> dict[int, ShardSummary | None]:
    """What each file of a home says of itself, by the shard in its name; None for one that cannot be read."""
    found: dict[int, ShardSummary | None] = {}
    for path in store_paths(home):
        try:
            summary = summarise(path)
        except HftpipeError:
            summary = None  # its own audit names what is wrong
        found[int(path.stem.removeprefix("shard-"))] = summary
    return found


def _agreed(stored: dict[int, ShardSummary | None], topology: Topology | None) -> tuple[str, int]:
    """Pipeline and number of shards that most files name; where that is undecided, those that the log names."""
    of_log = ("", max(stored, default=-1) + 1)
    if topology is not None:
        of_log = topology.pipeline, topology.shards
    named = Counter((summary.pipeline, summary.shards) for summary in stored.values() if summary is not None)
    if named:
        return max(named, key=lambda name: (named[name], name == of_log, str(name)))
    return of_log


def _wanted(
    chosen: Sequence[int], shards: int, stored: dict[int, ShardSummary | None], findings: Findings
) -> list[int]:
    if chosen and chosen[-1] >= shards:
        raise UsageError(f"there is no shard {chosen[-1]}: the pipeline has 0 to {shards - 1}")
    for shard in stored:
        if shard >= shards and not chosen:
            findings.add(
                "database", f"shard-{shard:04}.db", f"a file of shard {shard}", f"shards 0 to {shards - 1}"
            )
    return list(chosen) or list(range(shards))


def _ids(summary: ShardSummary | None) -> int:
    """How many ids a shard has taken at most."""
    return 0 if summary is None else summary.checkpoint.totals.applied + summary.checkpoint.totals.refused


def _addresses(home: Path, tx: int, shards: Sequence[int]) -> str:
    """Where an id was taken: `1/1-7 and 3/1-9`."""
    return " and ".join(_address(home, shard, tx) for shard in shards)


def _address(home: Path, shard: int, tx: int) -> str:
    path = shard_path(home, shard)
    try:
        with translated(path), closing(open_reading(path)) as connection:
            wanted: Column = np.array([tx], dtype=np.int64)
            for number in IdReader(connection).takers(wanted):
                (entry,) = connection.execute(_ENTRY_OF, (number,)).fetchone()
                return f"{shard}/{entry}"
    except (HftpipeError, TypeError):
        pass  # the shard's own findings say what is wrong with it
    return f"shard {shard}"
