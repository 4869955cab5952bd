"""What a worker keeps of the log: by entries, time and bytes, while it runs and after a restart."""

from dataclasses import dataclass

import pytest

from hftpipe.config import WorkerLimits
from hftpipe.core.entry import EntryId
from hftpipe.retention.reach import Reach, size_of
from hftpipe.retention.setting import Retention
from tests.shell.memory_pipeline import StillClock
from tests.shell.shard_bench import ShardBench

MINUTE_MS = 60_000


def limits(retain: Retention) -> WorkerLimits:
    """A commit for each entry."""
    return WorkerLimits(retain=retain, commit_transactions_max=1, read_entries_max=1)


def kept(bench: ShardBench) -> list[int]:
    """Sequences of the entries that the log still holds."""
    return [entry_id.sequence for entry_id in bench.entries]


def worked(bench: ShardBench, retain: Retention, owner: str = "first") -> list[int]:
    """A worker applies all that is there, and ends; what is kept then."""
    bench.worker(owner, limits=limits(retain)).run()
    return kept(bench)


def worked_slowly(bench: ShardBench, retain: Retention, entries: int, every_ms: int) -> None:
    """A worker applies one entry after the other, each appended when the one before was applied so long ago."""
    bench.append(1, time_ms=bench.clock.unix_ms())
    bench.meanwhile = Feeding(bench, entries - 1, every_ms).feed
    bench.stopping = lambda: bench.store.checkpoint().id.sequence >= entries - 1
    bench.worker(limits=limits(retain), until_idle=False).run()


@dataclass
class Feeding:
    """Appends an entry each time that a worker waits, after some time."""

    bench: ShardBench
    left: int
    every_ms: int

    def feed(self) -> None:
        """Called in a wait for entries."""
        if self.left:
            self.left -= 1
            self.bench.clock.now_ms += self.every_ms
            self.bench.append(1, time_ms=self.bench.clock.unix_ms())


class TwoClocks(StillClock):
    """The system's clock is `ahead_ms` of the one that nobody sets."""

    def __init__(self, ahead_ms: int) -> None:
        super().__init__()
        self.ahead_ms = ahead_ms

    def unix_ms(self) -> int:
        return self.now_ms + self.ahead_ms


# --- while it runs ---------------------------------------------------------------------------------------------


def test_what_was_applied_longer_ago_is_trimmed() -> None:
    """By the time that passed since, whatever the entries say."""
    bench = ShardBench()
    worked_slowly(bench, Retention(age_ms=5 * MINUTE_MS), entries=20, every_ms=MINUTE_MS)
    assert kept(bench)[0] in {14, 15}
    assert kept(bench)[-1] == 19


def test_an_idle_shard_is_trimmed_too() -> None:
    """Down to the entry at the checkpoint."""
    bench = ShardBench()
    bench.append(*[1] * 5)
    bench.stopping = lambda: bench.clock.now_ms > 2 * MINUTE_MS
    bench.worker(limits=limits(Retention(age_ms=MINUTE_MS)), until_idle=False).run()
    assert kept(bench) == [4]


def test_the_newest_bytes_are_kept() -> None:
    """About as many as are asked for."""
    bench = ShardBench()
    bench.append(*[1] * 50)
    size = size_of(bench.entries[EntryId(1, 40)])
    left = worked(bench, Retention(size_bytes=10 * size))
    assert 49 - 12 <= left[0] <= 49 - 6


def test_everything_is_kept_where_that_is_asked_for() -> None:
    """No bound, no trimming."""
    bench = ShardBench()
    bench.append(*[1] * 30)
    assert worked(bench, Retention()) == list(range(30))


@pytest.mark.parametrize(
    ("retain", "first"),
    [
        (Retention(entries=3, age_ms=5 * MINUTE_MS), {16}),
        (Retention(entries=15, age_ms=5 * MINUTE_MS), {14, 15}),
        (Retention(entries=15, age_ms=5 * MINUTE_MS, size_bytes=1), {19}),
    ],
)
def test_what_is_beyond_any_bound_is_trimmed(retain: Retention, first: set[int]) -> None:
    """The strictest counts."""
    bench = ShardBench()
    worked_slowly(bench, retain, entries=20, every_ms=MINUTE_MS)
    assert kept(bench)[0] in first


@pytest.mark.parametrize(
    "retain", [Retention(entries=0), Retention(age_ms=0), Retention(size_bytes=0), Retention(0, 0, 0)]
)
def test_the_entry_at_the_checkpoint_stays(retain: Retention) -> None:
    """However little is to be retained: the next attach looks for it."""
    bench = ShardBench()
    worked_slowly(bench, retain, entries=5, every_ms=MINUTE_MS)
    assert kept(bench) in ([4], [3, 4])
    bench.append(1)
    bench.stopping = lambda: False
    bench.worker("second").run()
    assert bench.balance() == 6


# --- after a restart ------------------------------------------------------------------------------------------


def history(minutes: int, ahead_ms: int = 0) -> ShardBench:
    """A shard that has applied an entry a minute, up to now; `ahead_ms` is the system's clock of the entries'."""
    bench = ShardBench()
    bench.clock = TwoClocks(ahead_ms)
    for minute in range(minutes):
        bench.append(1, time_ms=1_000_000_000_000 + minute * MINUTE_MS)
    bench.clock.ahead_ms += 1_000_000_000_000 + (minutes - 1) * MINUTE_MS
    worked(bench, Retention())
    return bench


def test_what_was_applied_before_is_found_by_its_times() -> None:
    """By halving; an entry is as new as the newest of the three behind it."""
    bench = history(300)
    assert worked(bench, Retention(age_ms=10 * MINUTE_MS), "second") == list(range(286, 300))


def test_what_was_applied_before_ages_while_the_worker_runs() -> None:
    """Until it is all gone but the checkpoint's."""
    bench = history(100)
    bench.stopping = lambda: bench.clock.now_ms > 4 * MINUTE_MS
    retain = Retention(age_ms=10 * MINUTE_MS)
    bench.worker("second", limits=limits(retain), until_idle=False).run()
    assert 92 <= kept(bench)[0] <= 93
    bench.stopping = lambda: bench.clock.now_ms > 20 * MINUTE_MS
    bench.worker("third", limits=limits(retain), until_idle=False).run()
    assert kept(bench) == [99]


def test_nothing_ages_while_no_worker_runs() -> None:
    """After a weekend, what was kept before it can be replayed still."""
    bench = history(100, ahead_ms=3 * 24 * 60 * MINUTE_MS)
    assert worked(bench, Retention(age_ms=60 * MINUTE_MS), "second")[0] == 36


def test_a_clock_set_back_trims_nothing_early() -> None:
    """It trims late: when the worker has run for the whole time."""
    bench = history(100, ahead_ms=-3 * 24 * 60 * MINUTE_MS)
    retain = Retention(age_ms=10 * MINUTE_MS)
    assert worked(bench, retain, "second")[0] == 0
    bench.stopping = lambda: bench.clock.now_ms > 11 * MINUTE_MS
    bench.worker("third", limits=limits(retain), until_idle=False).run()
    assert kept(bench) == [99]


def test_a_producer_whose_clock_is_ahead_trims_nothing_early() -> None:
    """Not even with the last entry of all."""
    bench = history(100)
    bench.append(1, time_ms=4_000_000_000_000)
    worked(bench, Retention(), "second")
    assert worked(bench, Retention(age_ms=10 * MINUTE_MS), "third")[0] == 86


@pytest.mark.parametrize("lagging", range(85, 100))
def test_a_producer_whose_clock_is_far_behind_trims_nothing_early(lagging: int) -> None:
    """Wherever its entry stands."""
    bench = ShardBench()
    for minute in range(100):
        time_ms = 1_000_000_000_000 + minute * MINUTE_MS
        bench.append(1, time_ms=7 if minute == lagging else time_ms)
    clock = TwoClocks(1_000_000_000_000 + 99 * MINUTE_MS)
    log = bench.new_reader("other")
    reach = Reach(Retention(age_ms=10 * MINUTE_MS), log, clock, EntryId(1, 99))
    reach.look()
    first = reach.trim_to(EntryId(1, 99))
    assert first is not None
    assert first.sequence <= 89


def test_what_was_applied_before_is_weighed_by_samples() -> None:
    """Close to what is asked for, in a number of reads that does not grow with the log."""
    bench = ShardBench()
    last = bench.append(*[1 + 40 * (number % 7 == 0) for number in range(3_000)])[-1]
    sizes = [size_of(fields) for fields in bench.entries.values()]
    reach = Reach(Retention(size_bytes=50_000), bench.new_reader("other"), StillClock(), last)
    reach.look()
    first = reach.trim_to(last)
    assert first is not None
    assert 0.7 < sum(sizes[first.sequence :]) / 50_000 < 1.5


def test_a_bound_that_is_wide_enough_trims_nothing_at_a_restart() -> None:
    """Weighed or not."""
    bench = history(100)
    retain = Retention(entries=200, age_ms=10**9, size_bytes=10**9)
    assert worked(bench, retain, "second") == list(range(100))


def test_entries_that_tell_no_time_are_taken_for_new() -> None:
    """Somebody else wrote them; they go when the worker has run for the whole time."""
    bench = ShardBench()
    for _ in range(20):
        bench.append_fields({b"hello": b"world"})
    retain = Retention(age_ms=10 * MINUTE_MS)
    worked(bench, Retention())
    assert len(worked(bench, retain, "second")) >= 10
    bench.stopping = lambda: bench.clock.now_ms > 11 * MINUTE_MS
    bench.worker("third", limits=limits(retain), until_idle=False).run()
    assert kept(bench) == [19]
