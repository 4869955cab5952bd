"""How each shard stands: what its store says, beside what its log says."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hftpipe.core.commit import Totals
from hftpipe.errors import HftpipeError
from hftpipe.log.redis import ShardLog
from hftpipe.owner import describe, is_dead
from hftpipe.store.reading import store_paths, summarise

NO_WORKER: Final = "stopped: no worker runs"
"""The state of a shard that could go on."""


@dataclass(frozen=True, slots=True)
class ShardStatus:
    """One line of `hftpipe status`; what only the log knows is None when it was not asked.

    appended, applied, backlog, pending, gaps, dead count entries; transactions, refused, skipped count rows.
    losses: how often an operator has accepted a loss (`hftpipe repair`).
    reach, reach_s: the oldest entry that the log still holds, empty when it holds none, and seconds since its append.
    journal: the first entry of the journal, which is never trimmed; empty while nothing was applied.
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
    losses: int
    reach: str | None
    reach_s: int | None
    journal: str


def statuses(
    home: Path, shards: int, logs: Mapping[int, ShardLog], failed: Mapping[int, str], *, now_ms: int
) -> list[ShardStatus]:
    """All shards of a home.

    now_ms: Unix time.
    logs: what the log says of each shard; empty when it was not asked.
    failed: shards that the supervisor has given up, and why.
    """
    found = {int(path.stem.removeprefix("shard-")): path for path in store_paths(home)}
    return [
        _status(shard, found.get(shard), logs.get(shard), failed.get(shard, ""), now_ms)
        for shard in range(shards)
    ]


def _status(shard: int, path: Path | None, log: ShardLog | None, failed: str, now_ms: int) -> ShardStatus:
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
        state=damage
        or state_of(
            summary.stopped if summary is not None else "",
            is_owned=summary is not None and summary.owner != "" and not is_dead(summary.owner),
            standbys=log.standbys if log is not None else 0,
            failed=failed,
        ),
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
        losses=0 if summary is None else summary.losses,
        reach=None if log is None else str(log.first or ""),
        reach_s=None if log is None or log.first_ms is None else max(now_ms - log.first_ms, 0) // 1000,
        journal="" if summary is None else summary.journal_from,
    )


def state_of(stopped: str, *, is_owned: bool, standbys: int, failed: str) -> str:
    """A shard's state, for people.

    stopped: why it needs a person's decision, as its store says. failed: why the supervisor has given it up.
    is_owned: its owner lives.
    """
    if stopped:
        return f"stopped: {stopped}"
    if failed:
        return f"failed: {failed}"
    if is_owned:
        return "running"
    return "standby" if standbys else NO_WORKER
