"""Who works on a shard: taking over, standing by, being replaced, and why a shard has stopped."""

import pytest

from hftpipe.config import WorkerLimits
from hftpipe.core.entry import EntryId, origin
from hftpipe.errors import EntryDamaged, Fenced
from hftpipe.ports import Ownership, Topology
from hftpipe.store.memory import MemoryStore
from tests.shell.memory_pipeline import WORKER_LIMITS
from tests.shell.shard_bench import ShardBench, UnreliableStore

LEASE_MS = WorkerLimits().lease_ms
POLL_MS = WorkerLimits().standby_poll_ms


class BusyElsewhere(UnreliableStore):
    """A store whose owner, in another process, shows a sign of life at each look until `beats_left` is used up."""

    def __init__(self, topology: Topology, shard: int, beats_left: int) -> None:
        super().__init__(topology, shard)
        self.beats_left = beats_left

    def ownership(self) -> Ownership:
        seen = super().ownership()
        if seen.owner == "elsewhere" and self.beats_left:
            self.beats_left -= 1
            MemoryStore.beat(self, seen.epoch)
        return super().ownership()


# --- taking over --------------------------------------------------------------------------------------------------


def test_a_shard_that_was_released_is_taken_at_once() -> None:
    """The lease is for owners that cannot say that they have gone."""
    bench = ShardBench()
    bench.append(1)
    bench.store.release(bench.owned_by("before"))
    bench.worker().run()
    assert bench.clock.now_ms == 0
    assert bench.balance() == 1


def test_a_shard_whose_owner_is_dead_is_taken_at_once() -> None:
    """Known to be gone is better than a lease that has run out."""
    bench = ShardBench()
    bench.append(1)
    bench.owned_by("gone")
    bench.worker(dead=["gone"]).run()
    assert bench.clock.now_ms == 0
    assert bench.balance() == 1


def test_a_shard_is_taken_when_the_beat_has_not_moved_for_the_lease() -> None:
    """By the clock of the one who looks, and not a poll before."""
    bench = ShardBench()
    bench.append(1)
    bench.owned_by("elsewhere")
    bench.worker().run()
    assert LEASE_MS <= bench.clock.now_ms <= LEASE_MS + POLL_MS
    assert bench.balance() == 1


def test_each_beat_of_the_owner_begins_the_lease_anew() -> None:
    """A living owner is never replaced."""
    bench = ShardBench()
    bench.append(1)
    bench.store = BusyElsewhere(bench.topology, 0, beats_left=30)
    bench.owned_by("elsewhere")
    bench.worker().run()
    assert bench.clock.now_ms >= LEASE_MS + 29 * POLL_MS
    assert bench.balance() == 1


def test_taking_over_raises_the_epoch() -> None:
    """Epochs never decrease (I5)."""
    bench = ShardBench()
    epochs = []
    for owner in ("first", "second", "third"):
        bench.worker(owner).run()
        epochs.append(bench.ownership().epoch)
    assert epochs == [1, 2, 3]


def test_a_takeover_that_another_standby_wins_goes_on_standing_by() -> None:
    """`take` compares with what was seen: only one of many wins."""
    bench = ShardBench()

    class Contested(UnreliableStore):
        """Somebody else is a moment faster, once."""

        def take(self, owner: str, seen: Ownership) -> int | None:
            if owner == "first" and seen.epoch == 0:
                super().take("faster", seen)
            return super().take(owner, seen)

    bench.append(1)
    bench.store = Contested(bench.topology, 0)
    bench.worker().run()
    assert bench.ownership().epoch == 2
    assert bench.clock.now_ms >= LEASE_MS


# --- standing by --------------------------------------------------------------------------------------------------


def test_a_standby_says_so_once_and_shows_itself_in_the_log() -> None:
    """`status` counts standbys by what they announce."""
    bench = ShardBench()
    bench.append(1)
    bench.owned_by("elsewhere")
    bench.worker().run()
    assert bench.lines == ["shard 0: standing by: owned by elsewhere"]
    assert bench.reader.roles[0] == "standby"
    assert bench.reader.roles[-1] == "owner"


def test_a_standby_until_idle_ends_when_the_owner_has_applied_all() -> None:
    """It is not needed, and does not take what is not its own."""
    bench = ShardBench()
    bench.append(1)
    bench.worker().run()
    bench.owned_by("elsewhere")
    bench.worker("second").run()
    assert bench.ownership().owner == "elsewhere"
    assert not bench.lines


def test_a_standby_that_is_told_to_stop_ends_within_one_look() -> None:
    """It owns nothing, so it has nothing to finish."""
    bench = ShardBench()
    bench.append(1)
    bench.owned_by("elsewhere")
    bench.stopping = lambda: bench.clock.now_ms > 0
    bench.worker(until_idle=False).run()
    assert bench.clock.now_ms == POLL_MS
    assert bench.ownership().owner == "elsewhere"


def test_an_idle_owner_beats() -> None:
    """So that no standby takes it for stalled: several times in each lease."""
    bench = ShardBench()
    bench.stopping = lambda: bench.clock.now_ms >= LEASE_MS
    bench.worker(until_idle=False).run()
    assert 4 <= bench.store.beats <= 6


def replaced(bench: ShardBench) -> None:
    """Somebody else takes the shard, once."""
    if bench.ownership().owner == "first":
        bench.owned_by("elsewhere")


# --- being replaced -----------------------------------------------------------------------------------------------


def test_a_replaced_worker_raises_fenced_and_writes_nothing() -> None:
    """Its commit finds another epoch; what it held in memory is thrown away."""
    bench = ShardBench()
    bench.append(1)

    def replace(point: str) -> None:
        if point == "worker.applied":
            bench.owned_by("elsewhere")

    with pytest.raises(Fenced, match="taken over"):
        bench.worker(reach=replace).run()
    assert not bench.store.records
    assert bench.ownership().owner == "elsewhere"


def test_an_idle_worker_finds_out_with_its_next_beat_that_it_was_replaced() -> None:
    """A stalled one wakes up and ends, without waiting for an entry."""
    bench = ShardBench()
    bench.meanwhile = lambda: replaced(bench)
    with pytest.raises(Fenced):
        bench.worker(until_idle=False).run()
    assert bench.clock.now_ms <= 2 * WorkerLimits().beat_ms


def test_a_worker_that_was_replaced_while_it_waited_out_a_fault_raises_fenced() -> None:
    """Whoever owned the shard once does not quietly stand by."""
    bench = ShardBench()
    bench.append(1)
    bench.store.failing_before = 1

    def replace(point: str) -> None:
        if point == "worker.applied":
            bench.owned_by("elsewhere")

    with pytest.raises(Fenced, match="shard 0 was taken over by elsewhere"):
        bench.worker(reach=replace).run()


def test_a_replaced_worker_does_not_release_what_is_no_longer_its_own() -> None:
    """Told to stop after it was replaced, it changes nothing."""
    bench = ShardBench()
    bench.meanwhile = lambda: replaced(bench)
    bench.stopping = lambda: bool(bench.waits)
    bench.worker(until_idle=False).run()
    assert bench.ownership().owner == "elsewhere"


def test_a_release_whose_answer_was_lost_is_no_takeover() -> None:
    """Nobody has raised the epoch: the worker owns the shard again, and releases it again."""
    bench = ShardBench()
    bench.append(1)
    bench.store.lost_releases = 1
    bench.worker().run()
    assert bench.balance() == 1
    assert bench.ownership().owner == ""


# --- why it stopped -----------------------------------------------------------------------------------------------


def test_why_a_shard_stopped_is_written_into_its_store() -> None:
    """For `status`, when nothing runs any more."""
    bench = ShardBench()
    (damaged,) = bench.append(1)
    bench.entries[damaged] = {**bench.entries[damaged], b"t": b"1"}
    with pytest.raises(EntryDamaged):
        bench.worker().run()
    assert bench.store.stopped.startswith("entry 0/1-0 does not match its digest")
    assert bench.lines == [f"shard 0: stopped: {bench.store.stopped}"]
    assert bench.ownership().owner == ""


def test_the_next_owner_clears_why_the_shard_had_stopped() -> None:
    """What was repaired is no longer shown."""
    bench = ShardBench()
    (damaged,) = bench.append(1)
    intact = bench.entries[damaged]
    bench.entries[damaged] = {**intact, b"t": b"1"}
    with pytest.raises(EntryDamaged):
        bench.worker().run()
    bench.entries[damaged] = intact
    bench.worker("second").run()
    assert bench.store.stopped == ""
    assert bench.balance() == 1


def test_what_a_replaced_worker_reads_later_is_taken_over_within_a_lease() -> None:
    """Entries handed to one that can no longer commit would count as backlog for ever, and producers would wait."""
    bench = ShardBench()
    zombie = bench.new_reader("zombie")

    def read_as_a_zombie() -> None:
        if len(bench.waits) == 1:
            bench.append(1, 1)
        if len(bench.waits) == 3:
            group = bench.log.streams[0].group
            assert group is not None
            group.delivered = origin(1)  # the owner had found them by range, before the group gave them out
            assert len(zombie.read(10, 0, [], None)) == 2

    bench.meanwhile = read_as_a_zombie
    bench.stopping = lambda: bench.clock.now_ms > 2 * WORKER_LIMITS.lease_ms
    bench.worker(until_idle=False).run()
    assert bench.store.checkpoint().id == EntryId(1, 1)
    assert bench.pending == []
