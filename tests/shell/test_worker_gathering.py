"""How long a worker waits before a commit: not at all for a lone transaction, a moment while a queue comes in."""

import threading
from collections.abc import Callable
from itertools import pairwise
from random import Random

import click
import pytest

from hftpipe.cli.options import worker_limit_options
from hftpipe.clock import SystemClock
from hftpipe.config import WorkerLimits
from hftpipe.core.entry import EntryId
from hftpipe.errors import Fenced
from hftpipe.invariants import violations
from tests.shell.memory_pipeline import StillClock
from tests.shell.shard_bench import ShardBench

FULL = 10
GATHER_MS = 70


def limits_of(commit_transactions_max: int = 1_000, full_entries_min: int = 1) -> WorkerLimits:
    """Bounds under which entries of `FULL` transactions are full ones."""
    return WorkerLimits(
        full_entry_transactions=FULL,
        full_entries_min=full_entries_min,
        commit_transactions_max=commit_transactions_max,
        gather_ms=GATHER_MS,
    )


LIMITS = limits_of()


class Clock(StillClock):
    """`gathered` are the times of the worker's own waits; `meanwhile` is called in each of them."""

    def __init__(self) -> None:
        super().__init__()
        self.gathered: list[int] = []
        self.meanwhile: Callable[[], object] = lambda: None

    def sleep_ms(self, milliseconds: int) -> None:
        super().sleep_ms(milliseconds)
        if milliseconds == GATHER_MS:
            self.gathered.append(self.now_ms)
            self.meanwhile()


class Bench(ShardBench):
    """A shard whose worker's waits are counted; `steps` happen one in each wait, be it of a read or to gather."""

    clock: Clock

    def __init__(self, *steps: Callable[[], object]) -> None:
        super().__init__()
        self.clock = Clock()
        self.steps = list(steps)
        self.clock.meanwhile = self._step
        self.meanwhile = self._step
        self.stopping = lambda: not self.steps and len(self.waits) > 3

    def _step(self) -> None:
        if self.steps:
            self.steps.pop(0)()

    def run(self, limits: WorkerLimits = LIMITS, *, until_idle: bool = False) -> None:
        self.worker(limits=limits, until_idle=until_idle).run()
        assert not violations(self.store.snapshot())

    def full(self, count: int = 1) -> Callable[[], object]:
        """Entries of a producer that has a queue."""
        return lambda: self.append(*[FULL] * count)


def nothing() -> None:
    """Nothing comes."""


# --- without a queue -------------------------------------------------------------------------------------------


def test_a_lone_transaction_is_committed_without_a_wait() -> None:
    """Each as soon as it has come, at the time at which it was appended."""
    bench = Bench()
    times: dict[str, list[int]] = {"sent": [], "worker.committed": []}

    def send() -> None:
        times["sent"].append(bench.clock.now_ms)
        bench.append(1)

    def reach(step: str) -> None:
        times.setdefault(step, []).append(bench.clock.now_ms)

    bench.steps = [send] * 4
    bench.worker(limits=LIMITS, until_idle=False, reach=reach).run()
    assert bench.store.sizes == [1, 1, 1, 1]
    assert times["worker.committed"] == times["sent"]
    assert not bench.clock.gathered


@pytest.mark.parametrize("size", [1, FULL - 1])
def test_entries_that_are_not_full_are_never_waited_for(size: int) -> None:
    """However many there are: their producer sends what it has."""
    bench = Bench()
    bench.steps = [lambda: bench.append(*[size] * 20)] * 3
    bench.run()
    assert bench.store.sizes == [20 * size] * 3
    assert not bench.clock.gathered


def test_entries_of_somebody_else_are_never_waited_for() -> None:
    """A dead letter is one transaction's worth."""
    bench = Bench(lambda: bench.append_fields({b"hello": b"world"}), lambda: bench.append(1))
    bench.run()
    assert len(bench.store.records) == 2
    assert not bench.clock.gathered


# --- with a queue ----------------------------------------------------------------------------------------------


def test_while_entries_come_in_full_commits_gather() -> None:
    """A wait before each, and what came in it is one commit."""
    bench = Bench()
    bench.steps = [bench.full(), bench.full(3), bench.full(5), bench.full(2)]
    bench.run()
    assert bench.store.sizes == [FULL, 3 * FULL, 5 * FULL, 2 * FULL]
    first = WorkerLimits().read_wait_ms
    assert bench.clock.gathered == [first + GATHER_MS * number for number in range(1, 5)]


def test_one_full_entry_among_small_ones_is_a_queue() -> None:
    """It was cut from more than one entry holds."""
    bench = Bench(lambda: bench.append(1, FULL, 2), lambda: bench.append(1, 1))
    bench.run()
    assert bench.store.sizes == [FULL + 3, 2]
    assert len(bench.clock.gathered) == 1


def test_a_few_full_entries_are_no_queue() -> None:
    """A producer that was held up for a moment sends as much at once."""
    bench = Bench()
    bench.steps = [bench.full(3), bench.full(4), bench.full(3)]
    bench.run(limits_of(full_entries_min=4))
    assert bench.store.sizes == [3 * FULL, 4 * FULL, 3 * FULL]
    assert len(bench.clock.gathered) == 1


def test_commits_are_some_time_apart() -> None:
    """So that syncing them does not keep the log from being synced: what comes meanwhile is committed at once."""
    bench = Bench()
    committed: list[int] = []
    bench.steps = [lambda: bench.append(1), nothing, lambda: bench.append(1, 1)]
    limits = limits_of()

    def reach(step: str) -> None:
        if step == "worker.committed":
            committed.append(bench.clock.now_ms)

    bench.append(1)
    bench.worker(limits=limits, until_idle=False, reach=reach).run()
    assert all(after - before >= limits.commit_interval_ms for before, after in pairwise(committed))
    assert sum(bench.store.sizes) == 4


def test_when_nothing_comes_any_more_gathering_stops() -> None:
    """One wait in vain, then reads that return with the first entry; nothing is late for it."""
    bench = Bench()
    bench.steps = [bench.full(), nothing, nothing, lambda: bench.append(1), nothing, lambda: bench.append(1)]
    bench.run()
    assert bench.store.sizes == [FULL, 1, 1]
    assert len(bench.clock.gathered) == 1


def test_after_the_last_entry_of_a_queue_gathering_stops() -> None:
    """It is seldom a full one."""
    bench = Bench()
    bench.steps = [bench.full(), lambda: bench.append(FULL, FULL, 4), lambda: bench.append(1)]
    bench.run()
    assert bench.store.sizes == [FULL, 2 * FULL + 4, 1]
    assert len(bench.clock.gathered) == 2, "one before the rest of the queue, one before the lone transaction"


def test_gathering_begins_again_with_the_next_queue() -> None:
    """Any number of times."""
    bench = Bench()
    bench.steps = [bench.full(), nothing, bench.full(2), bench.full(), nothing, lambda: bench.append(1)]
    bench.run()
    assert bench.store.sizes == [FULL, 2 * FULL, FULL, 1]
    assert len(bench.clock.gathered) == 3


# --- with a backlog --------------------------------------------------------------------------------------------


def test_a_full_commit_is_never_waited_for() -> None:
    """It could not become any larger."""
    bench = Bench()
    bench.append(*[FULL] * 12)
    limits = limits_of(4 * FULL)
    bench.run(limits)
    assert bench.store.sizes == [4 * FULL] * 3
    assert not bench.clock.gathered


def waits_before_the_end(bench: Bench, limits: WorkerLimits) -> int:
    """How often a worker waits while as much as a commit may hold is still in its log."""
    waits = 0

    def look() -> None:
        nonlocal waits
        applied = bench.store.checkpoint().id
        left = sum(int(fields[b"n"]) for entry_id, fields in bench.entries.items() if entry_id > applied)
        waits += left >= limits.commit_transactions_max

    bench.clock.meanwhile = look
    newest = max(bench.entries)
    bench.stopping = lambda: bench.store.checkpoint().id == newest
    bench.run(limits)
    return waits


@pytest.mark.parametrize("commit_entries", [1, 7, 63, 64, 65, 100, 256])
def test_a_backlog_larger_than_a_commit_is_not_waited_for(commit_entries: int) -> None:
    """There is enough to commit: from the first read after the start on."""
    bench = Bench()
    bench.append(*[FULL] * 600)
    limits = limits_of(commit_entries * FULL)
    assert waits_before_the_end(bench, limits) == 0
    assert sum(bench.store.sizes) == 600 * FULL
    assert max(bench.store.sizes) <= limits.commit_transactions_max


@pytest.mark.parametrize("seed", range(5))
def test_a_backlog_of_entries_of_any_size_is_not_waited_for(seed: int) -> None:
    """Though a read is sized by the entries before it, and the last commit of a read may be a small one."""
    random = Random(seed)
    bench = Bench()
    sizes = [random.choice([1, 2, FULL, FULL]) for _ in range(900)]
    bench.append(*sizes)
    limits = limits_of(20 * FULL)
    assert waits_before_the_end(bench, limits) == 0
    assert sum(bench.store.sizes) == sum(sizes)


def test_a_backlog_of_a_files_blocks_is_not_waited_for() -> None:
    """Of each block the last entry of a shard is a smaller one; a commit holds 256 full entries."""
    bench = Bench()
    bench.append(*[*[FULL] * 9, 3] * 300)
    limits = limits_of(256 * FULL)
    assert waits_before_the_end(bench, limits) == 0


def test_a_backlog_that_was_handed_out_before_is_not_waited_for_either() -> None:
    """It is read by range after a worker died."""
    bench = Bench()
    bench.append(*[FULL] * 40)
    dead = bench.new_reader("dead")
    dead.attach(EntryId(1, -1))
    dead.read(40, 0, [], None)
    limits = limits_of(8 * FULL)
    assert waits_before_the_end(bench, limits) == 0
    assert bench.store.sizes == [8 * FULL] * 5


def test_gathering_never_makes_a_commit_larger_than_its_bound() -> None:
    """What comes meanwhile may be more than fits."""
    bench = Bench()
    limits = limits_of(4 * FULL)
    bench.steps = [bench.full(), bench.full(9), bench.full()]
    bench.run(limits)
    assert sum(bench.store.sizes) == 11 * FULL
    assert max(bench.store.sizes) == 4 * FULL


# --- the end of a wait -----------------------------------------------------------------------------------------


def test_a_worker_that_is_told_to_stop_while_it_gathers_ends() -> None:
    """It gathers no further time, acknowledges and releases."""
    bench = Bench()
    told: list[int] = []
    bench.steps = [bench.full(), lambda: told.append(bench.clock.now_ms), bench.full(), bench.full()]
    bench.stopping = lambda: bool(told)
    bench.run()
    assert len(bench.clock.gathered) == 1
    assert bench.clock.now_ms - told[0] <= LIMITS.read_wait_ms
    assert not bench.pending
    assert bench.ownership().owner == ""


def test_what_was_gathered_is_committed_before_a_worker_ends() -> None:
    """Or is left in the log, for the next one: never half of it."""
    bench = Bench()
    told = threading.Event()

    def send_and_tell() -> None:
        bench.append(FULL, FULL)
        told.set()

    bench.steps = [bench.full(), send_and_tell]
    bench.stopping = told.is_set
    bench.run()
    assert not bench.pending
    bench.stopping = lambda: False
    bench.worker("second", limits=LIMITS).run()
    assert bench.balance() == 3 * FULL


def test_a_worker_until_idle_never_gathers() -> None:
    """Nobody has promised it any more."""
    bench = Bench()
    bench.append(FULL)
    bench.run(until_idle=True)
    assert bench.balance() == FULL
    assert not bench.clock.gathered


def test_the_clock_ends_a_wait_at_once_when_told_to_stop() -> None:
    """Before it or within it."""
    stop = threading.Event()
    sleeper = threading.Thread(target=SystemClock(stop).sleep_ms, args=(600_000,), daemon=True)
    sleeper.start()
    stop.set()
    sleeper.join(30)
    assert not sleeper.is_alive()
    SystemClock(stop).sleep_ms(600_000)


def test_a_worker_that_is_replaced_while_it_gathers_changes_nothing() -> None:
    """The store refuses what it gathered; the new owner applies it."""
    bench = Bench()
    bench.steps = [bench.full(), lambda: bench.owned_by("second") and bench.append(FULL)]
    worker = bench.worker(limits=LIMITS, until_idle=False)
    with pytest.raises(Fenced):
        worker.run()
    assert bench.store.sizes == [FULL]
    bench.worker("second", limits=LIMITS).run()
    assert bench.balance() == 2 * FULL
    assert not violations(bench.store.snapshot())


@pytest.mark.parametrize("lease_ms", [100, 700, 10_000, 60_000])
def test_an_owner_that_only_gathers_beats_all_the_same(lease_ms: int) -> None:
    """Each commit is a beat; no wait is longer than the time between two, whatever the lease."""
    found: list[WorkerLimits] = []

    @click.command()
    @worker_limit_options
    def command(limits: WorkerLimits) -> None:
        found.append(limits)

    command(["--lease-ms", str(lease_ms)], standalone_mode=False)
    (limits,) = found
    assert max(limits.gather_ms, limits.commit_interval_ms, limits.read_wait_ms) <= limits.beat_ms
    assert limits.beat_ms < limits.lease_ms


def test_a_disk_that_fails_while_a_queue_comes_in_loses_nothing() -> None:
    """Attaching anew, it begins without a wait of its own."""
    bench = Bench()
    bench.steps = [bench.full(), bench.full(2), bench.full(3)]
    bench.store.failing_after = 1
    bench.run()
    assert bench.balance() == 6 * FULL
    assert not bench.pending


def test_a_worker_told_to_stop_ends_behind_the_commit_in_hand() -> None:
    """Though one read has brought more than that; the rest stays pending, for the next owner."""
    bench = Bench()
    bench.append(*[FULL] * 40)
    told = threading.Event()

    def reach(step: str) -> None:
        if step == "worker.committed":
            told.set()

    bench.stopping = told.is_set
    bench.worker(limits=limits_of(4 * FULL), until_idle=False, reach=reach).run()
    assert bench.store.sizes == [4 * FULL]
    assert bench.ownership().owner == ""
    bench.stopping = lambda: False
    bench.worker("second", limits=LIMITS).run()
    assert bench.balance() == 40 * FULL
    assert not violations(bench.store.snapshot())
