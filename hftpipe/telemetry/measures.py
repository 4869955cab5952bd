"""What the workers of a process have done since it began, counted as they do it."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import orjson

from hftpipe.core.commit import Commit, Totals
from hftpipe.owning import Witness
from hftpipe.ports import Clock
from hftpipe.telemetry.spread import Spread

_NONE_REFUSED: Final = "{}"


@dataclass(slots=True)
class Measured:
    """One shard.

    applied, refused, skipped: rows. gaps, dead, entries: entries applied. faults: passing ones, each tried again after
    a part of `wait_ms`. owned: how often the shard was taken. submit: from append to commit, by row. commit: how long
    one took. commits: those that are on disk.
    """

    reads: int = 0
    entries: int = 0
    commits: int = 0
    applied: int = 0
    skipped: int = 0
    gaps: int = 0
    dead: int = 0
    faults: int = 0
    wait_ms: int = 0
    owned: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    submit: Spread = field(default_factory=Spread)
    commit: Spread = field(default_factory=Spread)


class Measures(Witness):
    """Of some shards, each worked on by one thread; others may read meanwhile."""

    def __init__(self, shards: Iterable[int], clock: Clock) -> None:
        self.shards = {shard: Measured() for shard in shards}
        self._clock = clock
        self._began_ms: dict[int, int] = {}
        self._told: dict[int, int] = {}
        self._telling: dict[int, int] = {}

    def owned(self, shard: int) -> None:
        self.shards[shard].owned += 1

    def read(self, shard: int, entries: int) -> None:  # noqa: ARG002 - those that are applied are counted
        self.shards[shard].reads += 1

    def committing(self, shard: int) -> None:
        self._began_ms[shard] = self._clock.monotonic_ms()

    def committed(self, shard: int, commit: Commit) -> None:
        measured, now_ms = self.shards[shard], self._clock.monotonic_ms()
        unix_ms = self._clock.unix_ms()
        measured.commit.add(now_ms - self._began_ms[shard], 1, now_ms)
        for record in commit.records:
            if record.count:  # clocks of two machines may differ: no transaction takes less than nothing
                measured.submit.add(max(unix_ms - record.time_ms, 0), record.count, now_ms)
            if record.outcomes != _NONE_REFUSED:
                refused = orjson.loads(record.outcomes).get("refused", {})
                measured.refused.update({reason: len(rows) for reason, rows in refused.items()})
        self._add(measured, commit.before.totals, commit.after.totals)
        measured.entries += len(commit.records)
        measured.commits += 1

    def faulted(self, shard: int, wait_ms: int) -> None:
        self.shards[shard].faults += 1
        self.shards[shard].wait_ms += wait_ms

    def fresh(self) -> dict[int, dict[str, int]]:
        """For shards whose last commits are not `told` yet: times of the last minute, for those who look on."""
        now_ms, unix_ms = self._clock.monotonic_ms(), self._clock.unix_ms()
        values: dict[int, dict[str, int]] = {}
        self._telling = {shard: measured.commits for shard, measured in self.shards.items()}
        for shard, measured in self.shards.items():
            if self._telling[shard] == self._told.get(shard, 0):
                continue
            (half, most), rows = measured.submit.recent((0.5, 0.99), now_ms)
            values[shard] = {
                "time_ms": unix_ms,
                "commit_p50_ms": half,
                "commit_p99_ms": most,
                "transactions": rows,
            }
        return values

    def told(self) -> None:
        """What `fresh` gave last has arrived."""
        self._told = self._telling

    @staticmethod
    def _add(measured: Measured, before: Totals, after: Totals) -> None:
        measured.applied += after.applied - before.applied
        measured.skipped += after.skipped - before.skipped
        measured.gaps += after.gaps - before.gaps
        measured.dead += after.dead - before.dead
