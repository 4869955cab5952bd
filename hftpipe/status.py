"""How each shard stands: what its store says, beside what its log says."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hftpipe.core.commit import Totals
from hftpipe.errors import HftpipeError
from hftpipe.log.redis import ShardLog
from hftpipe.owner import describe, is_dead
from hftpipe.store.reading import ShardSummary, store_paths, summarise


@dataclass(frozen=True, slots=True)
class ShardStatus:
    """One line of `hftpipe status`; what only the log knows is None when it was not asked.

    appended, applied, backlog, pending, gaps, dead count entries; transactions, refused, skipped count rows.
    """

    shard: int
    state: str
    owner: str
    epoch: int
    standbys: int | None
    appended: int | None
    applied: int
    backlog: int | None
    pending: int | None
    transactions: int
    refused: int
    skipped: int
    gaps: int
    dead: int


def statuses(
    home: Path, shards: int, logs: Mapping[int, ShardLog], failed: Mapping[int, str]
) -> list[ShardStatus]:
    """All shards of a home.

    logs: what the log says of each shard; empty when it was not asked.
    failed: shards that the supervisor has given up, and why.
    """
    found = {int(path.stem.removeprefix("shard-")): path for path in store_paths(home)}
    return [
        _status(shard, found.get(shard), logs.get(shard), failed.get(shard, "")) for shard in range(shards)
    ]


def _status(shard: int, path: Path | None, log: ShardLog | None, failed: str) -> ShardStatus:
    summary, damage = None, ""
    if path is not None:
        try:
            summary = summarise(path)
        except HftpipeError as error:
            damage = f"stopped: {error}"
    applied = 0 if summary is None else summary.checkpoint.id.sequence + 1
    totals = Totals() if summary is None else summary.checkpoint.totals
    return ShardStatus(
        shard=shard,
        state=damage or _state(summary, log, failed),
        owner=describe(summary.owner) if summary is not None else "",
        epoch=summary.epoch if summary is not None else 0,
        standbys=None if log is None else log.standbys,
        appended=None if log is None else log.appended,
        applied=applied,
        backlog=None if log is None else max(log.appended - applied, 0),
        pending=None if log is None else log.pending,
        transactions=totals.applied,
        refused=totals.refused,
        skipped=totals.skipped,
        gaps=totals.gaps,
        dead=totals.dead,
    )


def _state(summary: ShardSummary | None, log: ShardLog | None, failed: str) -> str:
    if summary is not None and summary.stopped:
        return f"stopped: {summary.stopped}"
    if failed:
        return f"failed: {failed}"
    if summary is not None and summary.owner and not is_dead(summary.owner):
        return "running"
    if log is not None and log.standbys:
        return "standby"
    return "stopped: no worker runs"
