"""One look at a whole pipeline: what its stores say beside what its log says, for whoever looks on again and again."""

import threading
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from hftpipe.clock import SystemClock
from hftpipe.core.commit import Checkpoint, Totals
from hftpipe.core.entry import EntryId, origin
from hftpipe.core.journal import GENESIS
from hftpipe.descriptors import make_room
from hftpipe.embedded import is_running
from hftpipe.embedded.home import Home
from hftpipe.embedded.locks import is_locked
from hftpipe.errors import HftpipeError, StoreDamaged
from hftpipe.log.gauge import LIMITS, LOOKER, LogGauge, LogReading, WholeReading
from hftpipe.owner import describe, is_dead
from hftpipe.ports import Clock
from hftpipe.status import state_of
from hftpipe.store.gauge import EARLIER, HomeGauge, Reading
from hftpipe.upkeep import given_up
from hftpipe.wiring.pipeline import Place, stored_summary

HOTTEST_MAX: Final = 10
UNREADABLE: Final = "unreadable"
"""How a state begins that is not known for now."""
_UNBEGUN: Final = Checkpoint(origin(1), "", 0, GENESIS, -1, 0, Totals())
_AWAY_MS: Final = 2_000
"""So much longer than its linger a private server that nobody uses is left alone, or it would never end."""


@dataclass(frozen=True, slots=True)
class ShardView:
    """One shard. What only the log knows is None when it was not asked, what the store knows while it was never read.

    A store that cannot be read for now stands as it was seen last.

    appended, applied, backlog, gaps, dead: entries. transactions, refused, skipped: rows, since the shard began.
    backlog_seconds: age of the oldest entry not applied, 0.0 when there is none.
    commit_p50_ms, commit_p99_ms: from append to commit, of the transactions of the last minute; None when unknown.
    reach: the first entry that the log still holds, "" when it holds none.
    """

    shard: int
    state: str
    owner: str
    epoch: int | None
    standbys: int | None
    appended: int | None
    applied: int | None
    backlog: int | None
    backlog_seconds: float | None
    transactions: int | None
    refused: int | None
    skipped: int | None
    gaps: int | None
    dead: int | None
    commit_p50_ms: int | None
    commit_p99_ms: int | None
    reach: str | None


@dataclass(frozen=True, slots=True)
class ServerView:
    """The log's server."""

    version: str
    memory_bytes: int
    aof_bytes: int
    clients: int
    uptime_s: int


@dataclass(frozen=True, slots=True)
class Overview:
    """A pipeline at one moment; `orjson.dumps` writes it as it is.

    time_ms: Unix time. pipeline: its id, "" while unknown.
    transactions_in: rows ever appended; those not applied yet are estimated from their entries.
    refused_by_reason: rows; `earlier` stands for those whose records were not read yet.
    invalid_by_reason: entries of the inbox; `earlier` for those before the first look.
    hottest: accounts with the rows that name them, of a sample of the newest since the look before.
    problem: what could not be asked, for people; empty when all could.
    """

    time_ms: int
    pipeline: str
    shards: list[ShardView]
    transactions_in: int | None
    refused_by_reason: dict[str, int]
    invalid_by_reason: dict[str, int]
    inbox_waiting: int | None
    server: ServerView | None
    hottest: list[tuple[int, int]]
    problem: str


class Observer:
    """Looks at a pipeline, for one thread at a time; starts nothing, writes nothing, and keeps no server alive.

    shards: only these; None for all.
    """

    def __init__(
        self, place: Place, *, shards: Collection[int] | None = None, clock: Clock | None = None
    ) -> None:
        self._place = place
        self._only = shards
        self._clock = clock or SystemClock(threading.Event())
        self._home = HomeGauge(place.home)
        endpoint = place.standing_endpoint(LIMITS)
        self._log = LogGauge(lambda: endpoint.connect(f"{place.prefix}:{LOOKER}"), place.keys)
        self._shards = 0
        self._pipeline = ""
        self._last: dict[int, Reading] = {}
        self._inflow: dict[int, _Inflow] = {}
        self._away_until_ms = 0
        self._left: WholeReading | None = None

    def look(self) -> Overview:
        """How it stands now; what cannot be asked is told in `problem`. Takes a few ms, seconds when the log hangs."""
        if not self._shards:
            stored = stored_summary(self._place.home)
            self._shards = 0 if stored is None else stored.shards
            make_room(len(self._wanted()))
        seen = self._seen()
        if seen.shards != self._shards:  # the first look, or another pipeline lives here now
            self._shards = seen.shards
            make_room(len(self._wanted()))
            self._last.clear()
            self._inflow.clear()
            seen = self._seen()
        if seen.pipeline != self._pipeline:
            self._pipeline = seen.pipeline
            self._inflow.clear()
        self._leave(seen)
        failed = given_up(self._place.home).shards
        return Overview(
            time_ms=self._clock.unix_ms(),
            pipeline=seen.pipeline,
            shards=[self._view(shard, seen, failed.get(shard, "")) for shard in self._wanted()],
            transactions_in=None if seen.whole is None else self._transactions_in(seen),
            refused_by_reason=_summed(reading.refused for reading in seen.readings.values()),
            invalid_by_reason=_invalid(seen.whole),
            inbox_waiting=None if seen.whole is None else seen.whole.inbox_waiting,
            server=_server(seen.whole),
            hottest=_hottest(seen.readings.values()),
            problem=seen.problem,
        )

    def close(self) -> None:
        """Lets go of stores and server."""
        self._home.close()
        self._log.close()

    def _wanted(self) -> list[int]:
        return [shard for shard in range(self._shards) if self._only is None or shard in self._only]

    def _seen(self) -> "_Seen":
        wanted = self._wanted()
        fresh, faults = self._home.read(wanted)
        readings = self._last = fresh | self._kept(faults, fresh)
        owners = {reading.owner for reading in readings.values()} - {""}
        alive = {owner for owner in owners if not is_dead(owner)}
        applied = {
            shard: readings[shard].checkpoint.id if shard in readings else _UNBEGUN.id for shard in wanted
        }
        whole, problem = self._asked(applied, is_owned=bool(alive))
        stored = next(iter(readings.values()), None)
        return _Seen(
            pipeline=stored.pipeline if stored is not None else whole.pipeline if whole is not None else "",
            shards=_shards(whole, stored, self._shards if faults else 0),
            readings=readings,
            faults=faults,
            alive=alive,
            whole=whole,
            problem=problem or _mismatch(self._place, stored, whole),
        )

    def _kept(self, faults: Collection[int], fresh: Mapping[int, Reading]) -> dict[int, Reading]:
        """What was read last of shards that cannot be read now: of the same pipeline, and nothing new."""
        pipelines = {reading.pipeline for reading in fresh.values()}
        return {
            shard: replace(reading, accounts=())
            for shard, reading in self._last.items()
            if shard in faults and (not pipelines or reading.pipeline in pipelines)
        }

    def _asked(self, applied: Mapping[int, EntryId], *, is_owned: bool) -> tuple[WholeReading | None, str]:
        """What the log says; or why it was not asked."""
        place = self._place
        if not place.redis_url and not (place.home / "redis").exists():
            return None, f"{place.home} holds no pipeline yet"
        if not is_owned and self._clock.monotonic_ms() < self._away_until_ms:
            return (
                self._left,
                f"nobody uses the server of {place.home}: it was left alone, so that it can end",
            )
        try:
            whole = self._log.read(applied)
        except HftpipeError as error:
            if place.redis_url or is_running(place.home):
                return None, f"the log was not asked: {error}"
            return None, f"no server runs for {place.home}; start one with: hftpipe up --home '{place.home}'"
        self._left, self._away_until_ms = None, 0
        return whole, ""

    def _leave(self, seen: "_Seen") -> None:
        """A private server ends when its last client has left: who only looks on is none."""
        whole, place = seen.whole, self._place
        if whole is None or whole is self._left or whole.others != 0 or place.redis_url:
            return
        if not is_locked(Home(place.home).foreground_lock):
            self._log.close()
            self._left = replace(whole, server=None)  # it may end at any time: that would not be seen
            self._away_until_ms = self._clock.monotonic_ms() + place.linger_ms + _AWAY_MS

    def _view(self, shard: int, seen: "_Seen", failed: str) -> ShardView:
        reading = seen.readings.get(shard)
        log = seen.log(shard)
        checkpoint = seen.checkpoint(shard)
        applied = None if checkpoint is None else checkpoint.id.sequence + 1
        totals = None if checkpoint is None else checkpoint.totals
        return ShardView(
            shard=shard,
            state=seen.state(shard, failed),
            owner="" if reading is None else describe(reading.owner),
            epoch=reading.epoch if reading is not None else None if checkpoint is None else 0,
            standbys=None if log is None else log.standbys,
            appended=None if log is None else log.appended,
            applied=applied,
            backlog=None if log is None or applied is None else max(log.appended - applied, 0),
            backlog_seconds=None if log is None or applied is None else self._age_s(log),
            transactions=None if totals is None else totals.applied,
            refused=None if totals is None else totals.refused,
            skipped=None if totals is None else totals.skipped,
            gaps=None if totals is None else totals.gaps,
            dead=None if totals is None else totals.dead,
            commit_p50_ms=None if log is None else log.stats.get("commit_p50_ms"),
            commit_p99_ms=None if log is None else log.stats.get("commit_p99_ms"),
            reach=None if log is None else str(log.reach or ""),
        )

    def _age_s(self, log: LogReading) -> float:
        if log.oldest is None or not log.oldest.time_ms:
            return 0.0
        return max(self._clock.unix_ms() - log.oldest.time_ms, 0) / 1000

    def _transactions_in(self, seen: "_Seen") -> int | None:
        """Never less than at an earlier look: what was estimated too high is waited for."""
        wanted = self._wanted()
        if any(seen.checkpoint(shard) is None for shard in wanted):
            return None
        for shard in wanted:
            if shard in seen.faults:
                continue  # it stands where it stood
            inflow = self._inflow.setdefault(shard, _Inflow())
            inflow.see(seen.readings.get(shard), seen.log(shard))
        return sum(inflow.rows for inflow in self._inflow.values())


@dataclass(slots=True)
class _Inflow:
    """Rows ever appended to a shard; `per_entry` is the mean of the entries applied last."""

    rows: int = 0
    per_entry: float = 0.0
    applied_rows: int = 0
    applied_entries: int = 0

    def see(self, reading: Reading | None, log: LogReading | None) -> None:
        """Another look."""
        totals = Totals() if reading is None else reading.checkpoint.totals
        entries = 0 if reading is None else reading.checkpoint.id.sequence + 1
        rows = totals.applied + totals.refused + totals.skipped
        if entries > self.applied_entries:
            self.per_entry = (rows - self.applied_rows) / (entries - self.applied_entries)
        self.applied_rows, self.applied_entries = rows, entries
        if log is not None:
            rows += self._waiting(max(log.appended - entries, 0), log)
        self.rows = max(self.rows, rows)

    def _waiting(self, backlog: int, log: LogReading) -> int:
        """Exact for up to two entries: the oldest and the newest are seen, those between them are not."""
        if not backlog or log.oldest is None:
            return 0
        if backlog == 1:
            return log.oldest.count
        ends = log.oldest.count + log.newest_count
        return ends + round((backlog - 2) * (self.per_entry or ends / 2))


@dataclass(frozen=True, slots=True)
class _Seen:
    """What stores and log said.

    shards: of the pipeline. readings: also of earlier looks, for shards that have faults now. alive: owners whose
    process is there.
    """

    pipeline: str
    shards: int
    readings: Mapping[int, Reading]
    faults: Mapping[int, HftpipeError]
    alive: Collection[str]
    whole: WholeReading | None
    problem: str

    def log(self, shard: int) -> LogReading | None:
        return None if self.whole is None else self.whole.logs.get(shard)

    def checkpoint(self, shard: int) -> Checkpoint | None:
        """How far a shard was applied when it was read last; None when it never could be."""
        if reading := self.readings.get(shard):
            return reading.checkpoint
        return None if shard in self.faults else _UNBEGUN

    def state(self, shard: int, failed: str) -> str:
        if fault := self.faults.get(shard):
            return f"{'stopped' if isinstance(fault, StoreDamaged) else UNREADABLE}: {fault}"
        reading, log = self.readings.get(shard), self.log(shard)
        return state_of(
            "" if reading is None else reading.stopped,
            is_owned=reading is not None and reading.owner in self.alive,
            standbys=0 if log is None else log.standbys or 0,
            failed=failed,
        )


def _shards(whole: WholeReading | None, stored: Reading | None, damaged: int) -> int:
    if whole is not None and whole.shards:
        return whole.shards
    return damaged if stored is None else stored.shards


def _mismatch(place: Place, stored: Reading | None, whole: WholeReading | None) -> str:
    """Why stores and log do not belong together; empty when they do, or one of them was not there."""
    if whole is None:
        return ""
    if not whole.pipeline:
        return f"the server holds no pipeline under the prefix {place.prefix}"
    if stored is None or stored.pipeline == whole.pipeline:
        return ""
    return f"{place.home} holds pipeline {stored.pipeline}, the server pipeline {whole.pipeline}"


def _summed(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Counts by reason of all shards, most frequent first."""
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return dict(total.most_common())


def _invalid(whole: WholeReading | None) -> dict[str, int]:
    if whole is None:
        return {}
    earlier = whole.invalid_ever - sum(whole.invalid.values())
    return _summed([whole.invalid, {EARLIER: earlier} if earlier > 0 else {}])


def _server(whole: WholeReading | None) -> ServerView | None:
    if whole is None or whole.server is None:
        return None
    told = whole.server
    return ServerView(told.version, told.memory_bytes, told.aof_bytes, told.clients, told.uptime_s)


def _hottest(readings: Iterable[Reading]) -> list[tuple[int, int]]:
    rows: Counter[int] = Counter()
    for reading in readings:
        rows.update(reading.accounts)
    return rows.most_common(HOTTEST_MAX)
