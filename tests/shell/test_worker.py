"""How a worker reads, decides, commits and acknowledges, over a log and a store in memory."""

import re
from collections.abc import Callable

import pytest

from hftpipe.config import WorkerLimits
from hftpipe.core.entry import EntryId
from hftpipe.errors import EntryDamaged, LogGap
from hftpipe.invariants import violations
from hftpipe.retention.setting import Retention
from tests.shell.shard_bench import ShardBench


def ids_of(bench: ShardBench) -> list[str]:
    """Entries of the journal."""
    return [str(record.id) for record in bench.store.records]


def one_after_another(*steps: Callable[[], object]) -> Callable[[], None]:
    """Does one step each time it is called, and then nothing."""
    left = list(steps)

    def step() -> None:
        if left:
            left.pop(0)()

    return step


# --- the size of a commit ----------------------------------------------------------------------------------------


def test_all_that_waits_is_one_commit() -> None:
    """Under load one transaction of the database carries many entries."""
    bench = ShardBench()
    bench.append(1, 2, 3)
    bench.worker().run()
    assert bench.store.sizes == [6]


def test_a_commit_is_cut_at_its_bound() -> None:
    """It ends with the entry that reaches the bound; entries are never split."""
    bench = ShardBench()
    bench.append(3, 3, 3, 3, 3)
    bench.worker(limits=WorkerLimits(commit_transactions_max=5)).run()
    assert bench.store.sizes == [6, 6, 3]
    assert bench.balance() == 15


def test_a_lone_transaction_is_not_delayed() -> None:
    """On an idle shard each is committed as soon as it has come."""
    bench = ShardBench()
    bench.meanwhile = one_after_another(*[lambda: bench.append(1)] * 3)
    bench.stopping = lambda: len(bench.waits) > 4
    bench.worker(until_idle=False).run()
    assert bench.store.sizes == [1, 1, 1]


@pytest.mark.parametrize(
    ("size", "wanted"), [(1, 50), (10, 10), (100, 1), (300, 1)], ids=["capped", "fits", "one", "at least one"]
)
def test_a_read_asks_for_as_many_entries_as_fill_a_commit(size: int, wanted: int) -> None:
    """Judged by the entries of the last commit, within 1 and `read_entries_max`."""
    bench = ShardBench()
    bench.append(size)
    bench.worker(limits=WorkerLimits(commit_transactions_max=100, read_entries_max=50)).run()
    assert bench.reader.counts[1] == wanted


# --- entries that are not as they should be -----------------------------------------------------------------------


def test_a_foreign_entry_is_dead_lettered_and_the_shard_goes_on() -> None:
    """It is kept beside the log and in the store, journaled, counted, and said."""
    bench = ShardBench()
    bench.append(1)
    foreign = bench.append_fields({b"hello": b"world"})
    bench.append(1)
    bench.worker().run()
    assert bench.balance() == 2
    assert [letter.id for letter in bench.store.dead] == [foreign]
    assert bench.log.streams[0].dead[foreign][b"reason"] == b"missing field b"
    assert bench.store.checkpoint().totals.dead == 1
    assert bench.lines == ["shard 0: entry 0/1-1 is none of ours (missing field b): dead-lettered"]
    assert not violations(bench.store.snapshot())


def test_a_full_log_that_takes_no_dead_letter_does_not_hold_the_shard() -> None:
    """The store keeps the dead letter in any case, and that is said."""
    bench = ShardBench()
    foreign = bench.append_fields({b"hello": b"world"})
    bench.append(2)
    reader = bench.new_reader("first")
    reader.full = True
    bench.worker(reader=reader).run()
    assert bench.balance() == 2
    assert [letter.id for letter in bench.store.dead] == [foreign]
    assert "is kept in the store's dead letters only: the server is out of memory" in bench.lines[1]


def test_a_damaged_entry_stops_the_shard_behind_what_came_before_it() -> None:
    """Money may be in it: what is before is committed, nothing behind moves."""
    bench = ShardBench()
    _, _, damaged, _ = bench.append(1, 1, 1, 1)
    bench.entries[damaged] = {**bench.entries[damaged], b"t": b"1"}
    with pytest.raises(EntryDamaged, match="entry 0/1-2 does not match its digest"):
        bench.worker().run()
    assert ids_of(bench) == ["1-0", "1-1"]
    assert bench.balance() == 2


def test_a_damaged_entry_is_never_passed_over() -> None:
    """A worker that is started again stops at the same place, and with the same words."""
    bench = ShardBench()
    (damaged,) = bench.append(1)
    bench.entries[damaged] = {**bench.entries[damaged], b"t": b"1"}
    for owner in ("first", "second"):
        with pytest.raises(EntryDamaged):
            bench.worker(owner).run()
    assert bench.lines[0] == bench.lines[1]
    assert not bench.store.records


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        ((2,), "entries 0/1-2 to 0/1-2 were"),
        ((2, 3), "entries 0/1-2 to 0/1-3 were"),
        ((0,), "entries 0/1-0 to 0/1-0 were"),
        ((3, 4), "entries 0/1-3 to 0/1-4 were"),
        ((0, 1, 2, 3, 4), "entries 0/1-0 to 0/1-4 were"),
    ],
    ids=["one", "two", "first", "last", "all"],
)
def test_a_gap_stops_the_shard_and_names_the_range(missing: tuple[int, ...], named: str) -> None:
    """What is before the gap is applied, what is behind it is not."""
    bench = ShardBench()
    ids = bench.append(1, 1, 1, 1, 1)
    for index in missing:
        del bench.entries[ids[index]]
    with pytest.raises(LogGap, match=re.escape(named)):
        bench.worker().run()
    assert bench.balance() == missing[0]


# --- what the group hands out -------------------------------------------------------------------------------------


def test_what_the_group_gave_to_a_dead_worker_is_read_by_range() -> None:
    """The group will not hand it out again; the checkpoint says that it is missing."""
    bench = ShardBench()
    bench.append(1, 1, 1)
    dead = bench.new_reader("dead")
    dead.attach(EntryId(1, -1))
    dead.read(2, 0, [], None)
    bench.worker().run()
    assert ids_of(bench) == ["1-0", "1-1", "1-2"]
    assert not bench.pending


def test_a_hole_in_what_the_group_hands_out_is_filled_by_range() -> None:
    """Another consumer of the group may take entries at any moment; order is kept all the same."""
    bench = ShardBench()
    bench.append(1)
    thief = bench.new_reader("thief")

    def steal() -> None:
        bench.append(1, 1, 1, 1)
        thief.read(2, 0, [], None)

    bench.meanwhile = one_after_another(steal)
    bench.stopping = lambda: len(bench.waits) > 3
    bench.worker(until_idle=False).run()
    assert ids_of(bench) == ["1-0", "1-1", "1-2", "1-3", "1-4"]
    assert bench.balance() == 5


def test_entries_that_are_handed_out_again_are_acknowledged_and_skipped() -> None:
    """They are at or below the checkpoint, so they have taken effect."""
    bench = ShardBench()
    bench.append(1, 1, 1)
    bench.worker().run()
    group = bench.log.streams[0].group
    assert group is not None
    group.delivered = EntryId(1, -1)
    bench.append(1)
    bench.worker("second").run()
    assert ids_of(bench) == ["1-0", "1-1", "1-2", "1-3"]
    assert bench.balance() == 4
    assert not bench.pending


def test_a_group_that_is_gone_is_made_again_at_the_checkpoint() -> None:
    """The group's position is no truth: losing it loses nothing."""
    bench = ShardBench()
    bench.append(1, 1)

    def drop() -> None:
        bench.log.streams[0].group = None
        bench.append(1)

    bench.meanwhile = one_after_another(drop)
    bench.stopping = lambda: len(bench.waits) > 3
    bench.worker(until_idle=False).run()
    assert ids_of(bench) == ["1-0", "1-1", "1-2"]
    assert "is gone" in bench.lines[0]


def test_rows_that_were_appended_twice_take_effect_once() -> None:
    """The source chain skips them, whatever entries they come in."""
    bench = ShardBench()
    (first, second) = bench.append(2, 2)
    bench.append_fields(bench.entries[second])
    bench.append_fields(bench.entries[first])
    bench.worker().run()
    assert bench.balance() == 4
    assert bench.store.checkpoint().totals.skipped == 4


def test_a_batch_behind_missing_rows_is_left_alone_and_counted() -> None:
    """Its rows come again behind those that are missing."""
    bench = ShardBench()
    bench.append(1, 1)
    (late,) = bench.append(1)
    fields = bench.entries.pop(late)
    bench.log.streams[0].last = EntryId(1, 1)
    (ahead,) = bench.append(1)
    bench.append_fields(fields)
    bench.append_fields(bench.entries[ahead])
    bench.worker().run()
    assert bench.balance() == 4
    assert bench.store.checkpoint().totals.gaps == 1
    assert not violations(bench.store.snapshot())


# --- acknowledging, trimming, ending ------------------------------------------------------------------------------


def test_everything_is_acknowledged_when_a_worker_ends() -> None:
    """Nothing is left pending for a successor to claim."""
    bench = ShardBench()
    bench.append(1, 1, 1)
    bench.worker().run()
    assert not bench.pending


@pytest.mark.parametrize(("retain", "left"), [(0, 1), (3, 4), (100, 10)])
def test_trimming_keeps_the_checkpoints_entry_and_what_is_to_be_retained(retain: int, left: int) -> None:
    """The entry at the checkpoint is what the next attach looks for."""
    bench = ShardBench()
    ids = bench.append(*[1] * 10)
    bench.worker(limits=WorkerLimits(retain=Retention(entries=retain))).run()
    assert list(bench.entries) == ids[-left:]
    bench.append(1)
    bench.worker("second").run()
    assert bench.balance() == 11


def test_what_is_not_applied_is_never_trimmed() -> None:
    """However little is to be retained."""
    bench = ShardBench()
    ids = bench.append(*[1] * 6)
    bench.entries[ids[3]] = {**bench.entries[ids[3]], b"t": b"1"}
    with pytest.raises(EntryDamaged):
        bench.worker(limits=WorkerLimits(commit_transactions_max=1, retain=Retention(entries=0))).run()
    with pytest.raises(EntryDamaged):
        bench.worker("second", limits=WorkerLimits(retain=Retention(entries=0))).run()
    assert set(ids[2:]) <= set(bench.entries)


def test_a_worker_until_idle_ends_when_all_is_applied() -> None:
    """It never waits for more."""
    bench = ShardBench()
    bench.append(1)
    bench.worker().run()
    assert not bench.waits
    assert bench.balance() == 1


def test_a_worker_until_idle_of_an_empty_log_ends() -> None:
    """There is nothing to apply."""
    bench = ShardBench()
    bench.worker().run()
    assert bench.ownership().owner == ""
    assert not bench.store.records


def test_starting_again_without_new_input_changes_nothing() -> None:
    """Any number of times (I7), but for who owned the shard."""
    bench = ShardBench()
    bench.append(2, 3)
    bench.worker().run()
    before = bench.store.snapshot().tables
    for owner in ("second", "third"):
        bench.worker(owner).run()
    assert bench.store.snapshot().tables == before


def test_a_worker_that_is_told_to_stop_ends_within_one_wait() -> None:
    """It finishes what it has in hand, acknowledges and releases."""
    bench = ShardBench()
    bench.append(1)
    bench.stopping = lambda: bool(bench.waits)
    bench.worker(until_idle=False).run()
    assert bench.waits == [WorkerLimits().read_wait_ms]
    assert bench.balance() == 1
    assert not bench.pending
    assert bench.ownership().owner == ""
