"""Passing faults hold a shard and nothing else: they repeat no row, lose none, and are waited out in bounds."""

import re
from collections.abc import Sequence

import pytest

from hftpipe.config import WorkerLimits
from hftpipe.core.entry import EntryId, RawEntry
from hftpipe.errors import LogUnavailable, StoreUnavailable
from hftpipe.invariants import violations
from hftpipe.log.memory import MemoryLog
from tests.shell.shard_bench import BenchReader, ShardBench

FIRST_MS, LONGEST_MS = WorkerLimits().retry_first_ms, WorkerLimits().retry_max_ms
WAITS = re.compile(r"Trying again in (\d+) ms")


def waits(lines: Sequence[str]) -> list[int]:
    """The waits that were reported."""
    return [int(found[1]) for line in lines if (found := WAITS.search(line))]


class BrokenReader(BenchReader):
    """A log whose connection breaks off at each of the given reads, counted from 0.

    lost_answers: the entries were handed out all the same.
    """

    def __init__(
        self, log: MemoryLog, bench: ShardBench, broken: Sequence[int], *, lost_answers: bool
    ) -> None:
        super().__init__(log, "first", bench.clock.sleep_ms)
        self._broken = broken
        self._lost_answers = lost_answers

    def read(
        self, count: int, wait_ms: int, done: Sequence[EntryId], keep_from: EntryId | None
    ) -> list[RawEntry]:
        is_broken = len(self.counts) in self._broken
        if is_broken and not self._lost_answers:
            self.counts.append(count)
            raise LogUnavailable("the connection was refused")
        entries = super().read(count, wait_ms, done, keep_from)
        if is_broken:
            raise LogUnavailable("the connection broke off")
        return entries


@pytest.mark.parametrize("failing", ["failing_before", "failing_after"])
def test_a_fault_of_the_store_repeats_nothing_and_loses_nothing(failing: str) -> None:
    """Whether the commit was written before it was raised is found out by looking."""
    bench = ShardBench()
    bench.append(2, 3, 4)
    setattr(bench.store, failing, 3)
    bench.worker(limits=WorkerLimits(commit_transactions_max=1)).run()
    assert bench.balance() == 9
    assert bench.store.checkpoint().totals.skipped == 0
    assert [record.position for record in bench.store.records] == [2, 5, 9]
    assert not violations(bench.store.snapshot())
    assert len(bench.lines) == 3


@pytest.mark.parametrize("lost_answers", [False, True], ids=["refused", "answer lost"])
@pytest.mark.parametrize("broken", [[0], [1], [0, 1, 2], [3]])
def test_a_lost_connection_to_the_log_repeats_nothing_and_loses_nothing(
    broken: list[int], lost_answers: bool
) -> None:
    """What was handed out and not received is read by range."""
    bench = ShardBench()
    bench.append(1, 1, 1)
    reader = BrokenReader(bench.log, bench, broken, lost_answers=lost_answers)
    bench.worker(reader=reader, limits=WorkerLimits(commit_transactions_max=1)).run()
    assert bench.balance() == 3
    assert not violations(bench.store.snapshot())


def test_a_lost_connection_at_the_last_acknowledgement_is_no_fault() -> None:
    """Everything is committed: the next owner acknowledges what is at or below the checkpoint."""
    bench = ShardBench()
    bench.append(1)
    reader = BrokenReader(bench.log, bench, [2], lost_answers=False)
    bench.worker(reader=reader).run()
    assert not bench.lines
    bench.append(1)
    bench.worker("second").run()
    assert not bench.pending


def test_the_wait_after_a_fault_grows_and_is_bounded() -> None:
    """Doubling with jitter, from `retry_first_ms` to `retry_max_ms`."""
    bench = ShardBench()
    bench.append(1)
    bench.store.failing_before = 14
    bench.worker().run()
    found = waits(bench.lines)
    for failures, wait_ms in enumerate(found):
        whole = min(FIRST_MS << failures, LONGEST_MS)
        assert whole / 2 - 1 <= wait_ms <= whole, failures
    assert len(found) == 14
    assert bench.clock.now_ms == sum(found)


def test_a_commit_makes_the_next_wait_short_again() -> None:
    """Faults are counted from the last success."""
    bench = ShardBench()
    bench.append(1)
    bench.store.failing_before = 10

    def fail_again() -> None:
        bench.append(1)
        bench.store.failing_before = 1

    steps = [fail_again]
    bench.meanwhile = lambda: steps.pop()() if steps else None
    bench.stopping = lambda: bench.balance() == 2
    bench.worker(until_idle=False).run()
    assert waits(bench.lines)[-1] <= FIRST_MS


def test_a_worker_that_is_told_to_stop_while_it_waits_out_a_fault_ends_within_one_wait() -> None:
    """The store may stay away for ever."""
    bench = ShardBench()
    bench.append(1)
    bench.store.failing_before = 1_000
    bench.stopping = lambda: bench.clock.now_ms > 0
    bench.worker(until_idle=False).run()
    assert len(waits(bench.lines)) == 1


def test_each_fault_is_said_with_what_failed_and_when_it_is_tried_again() -> None:
    """One line each, with the shard before it."""
    bench = ShardBench()
    bench.append(1)
    bench.store.failing_before = 1
    bench.worker().run()
    assert re.fullmatch(r"shard 0: the disk is full\. Trying again in \d+ ms", bench.lines[0])


@pytest.mark.parametrize(
    "point", ["worker.read", "worker.applied", "worker.committed", "worker.acknowledged"]
)
@pytest.mark.parametrize("time", [1, 2, 3])
def test_a_fault_at_any_step_repeats_nothing_and_loses_nothing(point: str, time: int) -> None:
    """Each step may fail; the next attempt begins at the checkpoint."""
    bench = ShardBench()
    bench.append(1, 2, 3, 4)
    reached = []

    def fail(name: str) -> None:
        if name == point:
            reached.append(name)
            if len(reached) == time:
                raise StoreUnavailable("a fault planted here")

    bench.worker(limits=WorkerLimits(commit_transactions_max=1), reach=fail).run()
    bench.append(1)
    bench.worker("second").run()
    assert bench.balance() == 11
    assert bench.store.checkpoint().totals.skipped == 0
    assert not violations(bench.store.snapshot())
