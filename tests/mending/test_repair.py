"""Accepting a loss, over memory adapters: what is shown is given up, all else is applied, whatever is killed."""

from collections.abc import Callable
from dataclasses import replace

import orjson
import pytest

from hftpipe.core.commit import Commit
from hftpipe.core.entry import EntryId, Foreign, RawEntry, encode
from hftpipe.errors import LogEmptied, LogForeign, LogGap, LogUnavailable, MendingRefused, ShardStopped
from hftpipe.invariants import violations
from hftpipe.log.memory import MemoryLogMender
from hftpipe.mending.diagnosis import Diagnosis
from hftpipe.mending.repair import Repairing, accept, examine
from hftpipe.ports import Ownership, Topology
from hftpipe.store.memory import MemoryStore
from tests.shell.shard_bench import ShardBench, deposits


class Killed(BaseException):
    """The process is gone: nothing is tidied up."""


class Mortal:
    """A store as a process has it that is killed: it dies within a commit, and gives nothing up."""

    def __init__(self, store: MemoryStore, die: Callable[[str], None]) -> None:
        self._store = store
        self._die = die

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def commit(self, epoch: int, commit: Commit) -> None:
        self._die("store.in_transaction")
        self._store.commit(epoch, commit)

    def release(self, epoch: int, stopped: str = "") -> None:
        """Nobody does."""


def repairing(
    bench: ShardBench, *, owner: str = "operator", reach: Callable[[str], None] = lambda _: None
) -> Repairing:
    """What the bench's shard is repaired with; whoever owned it before is dead, but for `worker`."""
    return Repairing(
        0,
        bench.topology,
        bench.log.mender(0),
        lambda: bench.store,
        owner,
        lambda name: name != "worker",
        10_000,
        bench.clock,
        "ann@host",
        reach,
    )


def repair(bench: ShardBench) -> Diagnosis:
    """Looks, and accepts what it has seen."""
    found = examine(repairing(bench))
    accept(repairing(bench), found)
    return found


def lose(bench: ShardBench, *ids: EntryId) -> None:
    """Single entries vanish."""
    for entry_id in ids:
        del bench.entries[entry_id]


def empty(bench: ShardBench) -> None:
    """The log is removed, with all that the server knows of it."""
    stream = bench.log.streams[0]
    stream.entries.clear()
    stream.group, stream.last = None, EntryId(1, -1)
    stream.advice.clear()


def flush(bench: ShardBench) -> None:
    """All that the server holds is removed."""
    empty(bench)
    bench.log.topology = None


def damage(bench: ShardBench, entry_id: EntryId) -> None:
    """An amount is changed."""
    fields = bench.entries[entry_id]
    bench.entries[entry_id] = {**fields, b"b": fields[b"b"].replace(b"10000", b"90000", 1)}


def stopped(bench: ShardBench, kind: type[ShardStopped]) -> str:
    """Why the worker stops; that names the command to run."""
    with pytest.raises(kind) as stop:
        bench.worker().run()
    assert "`hftpipe repair --shard 0`" in str(stop.value)
    return str(stop.value)


def outcomes(bench: ShardBench) -> list[dict[str, object]]:
    """What the journal says of each entry."""
    return [orjson.loads(record.outcomes) for record in bench.store.records]


def test_a_gap_is_given_up_and_all_behind_it_is_applied() -> None:
    """The rows lost are missing to their source, and come when it sends them again; other sources go on."""
    bench = ShardBench()
    bench.append(1, 1)
    bench.worker().run()
    ids = bench.append(1, 1, 1)
    other = encode("other", 0, deposits(100, 5), 0)
    bench.append_fields(other)
    lose(bench, ids[0], ids[1])
    assert "0/1-2 to 0/1-3 were appended and are missing" in stopped(bench, LogGap)
    found = repair(bench)
    assert "entries 0/1-2 to 0/1-3 are missing from the log" in found.problem
    assert found.told[0].startswith("entries 0/1-2 to 0/1-3: 2 in all")
    assert "rows 3 to 4 of file are missing: `hftpipe ingest`" in found.told[1]
    assert found.told[2] == "Not lost: 2 entries with 6 transactions that wait behind it or between"
    assert outcomes(bench)[2:] == [{"lost": ["1-2", "1-3"]}]
    (decision,) = bench.store.decisions
    assert (decision.action, decision.entry, decision.record) == ("accepted_loss", "0/1-2", 3)
    assert (decision.who, decision.note) == ("ann@host", "given up: 1-2 to 1-3")
    bench.worker().run()
    assert bench.balance() == 2 + 5
    assert outcomes(bench)[3:] == [{"gap": True}, {}]
    bench.append_fields(encode("file", 0, deposits(1, 5), 0))
    bench.worker().run()
    assert bench.balance() == 5 + 5
    assert not violations(bench.store.snapshot())


LIVE = "serve:host:1"


def send(bench: ShardBench, source: str, *rows: int) -> list[EntryId]:
    """Entries of one row each, one behind the other."""
    return [bench.append_fields(encode(source, row - 1, deposits(row, 1), 0)) for row in rows]


def test_what_lies_before_a_loss_is_applied_with_it() -> None:
    """Several losses at once, a damaged entry among them, each in its place; what cannot be sent again goes on."""
    bench = ShardBench()
    bench.append(1)
    bench.worker().run()
    ids = send(bench, LIVE, 11, 12, 13, 14, 15, 16)[1:]
    send(bench, LIVE, 1)
    bench.entries[EntryId(1, 1)] = encode(LIVE, 0, deposits(11, 1), 0)
    lose(bench, ids[0])
    damage(bench, ids[2])
    found = repair(bench)
    assert [(str(loss.first), str(loss.id)) for loss in found.losses] == [("1-2", "1-2"), ("1-4", "1-4")]
    told = " / ".join(found.told)
    assert "; what is left of it says: 1 transactions, of serve:host:1, rows 14 to 14, accounts 0" in told
    assert "rows 12 to 12 of serve:host:1 are missing, and cannot be read again" in told
    bench.worker().run()
    assert [list(outcome) for outcome in outcomes(bench)] == [
        [],
        [],
        ["lost", "sources"],
        [],
        ["lost", "sources", "dead"],
        [],
        [],
        ["skipped"],
    ]
    assert bench.balance() == 1 + 4
    assert [foreign.id for foreign in bench.store.dead] == [EntryId(1, 4)]
    assert bench.log.streams[0].dead.keys() == {EntryId(1, 4)}
    assert len(bench.store.decisions) == 2
    assert not violations(bench.store.snapshot())


def test_what_is_damaged_is_kept_in_the_log_before_it_is_given_up() -> None:
    """The next repair would not know of it any more; a log that takes no more does not hold it up."""
    bench = ShardBench()
    ids = bench.append(1, 1, 1)
    damage(bench, ids[1])

    def die(reached: str) -> None:
        if reached == "store.in_transaction":
            raise Killed

    dying = replace(repairing(bench), open_store=lambda: Mortal(bench.store, die))  # type: ignore[arg-type, return-value]
    with pytest.raises(Killed):
        accept(dying, examine(repairing(bench)))
    assert bench.log.streams[0].dead.keys() == {ids[1]}

    class Full(MemoryLogMender):
        def bury(self, foreign: Foreign) -> None:
            raise LogUnavailable(f"no room for {foreign.id}")

    accept(replace(repairing(bench), log=Full(bench.log, 0)), examine(repairing(bench)))
    assert [foreign.id for foreign in bench.store.dead] == [ids[1]]


def test_rows_of_a_live_source_that_come_later_in_the_log_are_not_taken_for_lost() -> None:
    """Appends land in any order: what a later entry brings was never torn out."""
    bench = ShardBench()
    first = send(bench, "other", 1)
    send(bench, LIVE, 2, 1, 2, 3)
    lose(bench, *first)
    found = repair(bench)
    assert not found.is_live
    bench.worker().run()
    assert bench.balance() == 3
    assert outcomes(bench) == [{"lost": ["1-0", "1-0"]}, {"gap": True}, {}, {}, {}]


def test_a_live_source_whose_producer_runs_is_not_touched() -> None:
    """What it has not confirmed cannot be told from what was lost."""
    bench = ShardBench()
    ids = send(bench, LIVE, 1, 2, 3)
    lose(bench, ids[1])

    class Connected(MemoryLogMender):
        def producers(self) -> list[str]:
            return ["7"]

    class Waiting(MemoryLogMender):
        def producers(self) -> list[str]:
            return ["7"] if bench.clock.now_ms > 1_500 else []

    for kind in (Connected, Waiting):
        with pytest.raises(MendingRefused, match="Stop `hftpipe serve`"):
            accept(replace(repairing(bench), log=kind(bench.log, 0)), examine(repairing(bench)))
    assert not bench.log.writer().losses()
    assert not bench.store.records
    assert not bench.ownership().owner


def test_an_emptied_log_goes_on_behind_what_was_applied() -> None:
    """Ids stay dense, and what was in it besides nobody knows."""
    bench = ShardBench()
    bench.append(1, 1)
    bench.worker().run()
    empty(bench)
    stopped(bench, LogEmptied)
    found = repair(bench)
    assert "nobody knows how much" in found.told[0]
    assert outcomes(bench)[2:] == [{"lost": []}]
    assert bench.append(1) == [EntryId(1, 2)]
    bench.worker().run()
    assert bench.balance() == 3
    assert bench.store.checkpoint().incarnation == 0
    assert not violations(bench.store.snapshot())


def test_an_emptied_server_belongs_to_its_pipeline_again() -> None:
    """The topology is written as the store has it, for other shards too."""
    bench = ShardBench()
    bench.append(1)
    bench.worker().run()
    flush(bench)
    stopped(bench, LogForeign)
    assert repair(bench).is_unfounded
    assert bench.log.topology == bench.topology
    bench.append(1)
    bench.worker().run()
    assert bench.balance() == 2


def test_a_topology_that_alone_is_missing_costs_nothing() -> None:
    """It is written again, and nothing stands in the journal."""
    bench = ShardBench()
    bench.append(1)
    bench.worker().run()
    bench.log.topology = None
    found = repair(bench)
    assert found.problem
    assert not found.losses
    assert bench.log.topology == bench.topology
    assert len(bench.store.records) == 1


def test_what_was_appended_to_an_emptied_log_is_applied() -> None:
    """It begins at 1-0 again: the checkpoint goes back before that, and known rows are skipped."""
    bench = ShardBench()
    bench.append(1, 1, 1)
    bench.worker().run()
    empty(bench)
    for first in (1, 3):
        bench.append_fields(encode("file", first - 1, deposits(first, 2), 0))
    assert "the log holds nothing of what was applied (it holds 1-0 to 1-1)" in stopped(bench, LogEmptied)
    repair(bench)
    assert bench.store.checkpoint().id == EntryId(1, -1)
    bench.worker().run()
    assert bench.balance() == 4
    assert bench.store.checkpoint().totals.skipped == 3
    assert not violations(bench.store.snapshot())


def test_a_log_that_begins_behind_the_checkpoint() -> None:
    """What lies between is known by its addresses."""
    bench = ShardBench()
    bench.append(1)
    bench.worker().run()
    ids = bench.append(1, 1, 1)
    lose(bench, EntryId(1, 0), *ids[:2])
    assert "0/1-1 to 0/1-2 are no longer in the log" in stopped(bench, LogGap)
    repair(bench)
    assert outcomes(bench)[1:] == [{"lost": ["1-1", "1-2"]}]
    bench.worker().run()
    assert bench.store.checkpoint().id == EntryId(1, 3)
    assert not violations(bench.store.snapshot())


def test_entries_that_all_are_gone_are_known_by_the_last_id() -> None:
    """The server remembers which id it gave last."""
    bench = ShardBench()
    bench.append(1)
    bench.worker().run()
    bench.append(1, 1)
    bench.entries.clear()
    stopped(bench, LogEmptied)
    repair(bench)
    assert outcomes(bench)[1:] == [{"lost": ["1-1", "1-2"]}]
    bench.append(1)
    bench.worker().run()
    assert bench.store.checkpoint().id == EntryId(1, 3)


def test_where_nothing_is_wrong_nothing_is_done() -> None:
    """A backlog is no fault; nor is a lost tail, which heals by itself."""
    bench = ShardBench()
    bench.append(1, 1)
    bench.worker().run()
    bench.append(1)
    before = bench.store.snapshot()
    assert not examine(repairing(bench)).problem
    for entry_id in (EntryId(1, 1), EntryId(1, 2)):
        lose(bench, entry_id)
    bench.log.streams[0].last = EntryId(1, 0)
    found = examine(repairing(bench))
    assert not found.problem
    assert found.shared is not None
    assert bench.store.snapshot() == before


def test_a_deleted_entry_that_was_applied_is_no_loss() -> None:
    """It says so: only that the log is the same cannot be proved by it any more."""
    bench = ShardBench()
    bench.append(1, 1, 1)
    bench.worker().run()
    lose(bench, EntryId(1, 2))
    bench.append(1)
    told = " / ".join(repair(bench).told)
    assert "1-2: applied before, as the journal says; so these are not lost" in told
    bench.worker().run()
    assert bench.balance() == 4
    assert not violations(bench.store.snapshot())


@pytest.mark.parametrize("has_gone_back", [False, True])
@pytest.mark.parametrize("is_damaged", [False, True])
def test_what_was_applied_before_it_was_lost_or_damaged_is_told(
    is_damaged: bool, has_gone_back: bool
) -> None:
    """Also where a worker has gone back before it meanwhile."""
    bench = ShardBench()
    ids = bench.append(1, 1, 1)
    bench.worker().run()
    bench.append(1)
    damage(bench, ids[2]) if is_damaged else lose(bench, ids[2])
    if has_gone_back:
        with pytest.raises(ShardStopped):
            bench.worker().run()
        assert bench.store.checkpoint().id == ids[1]
    told = " / ".join(repair(bench).told)
    assert "1-2: applied before, as the journal says; so these are not lost" in told
    bench.worker().run()
    assert bench.balance() == 4


def test_what_has_come_in_the_place_of_what_was_applied_is_lost() -> None:
    """The log had lost its tail: the same ids, and other entries."""
    bench = ShardBench()
    bench.append(1, 1, 1, 1)
    bench.worker().run()
    for entry_id in list(bench.entries)[1:]:
        lose(bench, entry_id)
    bench.log.streams[0].last = EntryId(1, 0)
    ids = send(bench, "other", 21, 22, 23)
    lose(bench, ids[0])
    damage(bench, ids[2])
    found = repair(bench)
    assert [loss.id for loss in found.losses] == [ids[0], ids[2]]
    assert "applied before" not in " / ".join(found.told)


# --- an accepted loss, and what comes after it ----------------------------------------------------------------


@pytest.mark.parametrize("kept", [2, 7, 9])
def test_a_lost_tail_behind_or_before_an_accepted_loss_still_heals(kept: int) -> None:
    """The log goes back before the loss, or behind it: the worker finds what they share, and rows come again."""
    bench = ShardBench()
    ids = send(bench, "file", *range(1, 8))
    lose(bench, ids[3], ids[4])
    repair(bench)
    fields = [bench.append_fields(encode("file", 0, deposits(1, rows), 0)) for rows in (7, 8, 9)]
    assert fields[-1] == EntryId(1, 9)
    bench.worker().run()
    assert bench.balance() == 9
    for entry_id in [entry_id for entry_id in bench.entries if entry_id.sequence >= kept]:
        lose(bench, entry_id)
    bench.log.streams[0].last = EntryId(1, kept - 1)
    bench.worker().run()
    bench.append_fields(encode("file", 0, deposits(1, 10), 0))
    bench.worker().run()
    assert bench.balance() == 10
    assert bench.store.checkpoint().incarnation == 1
    assert not violations(bench.store.snapshot())


@pytest.mark.parametrize("appended", [0, 1])
def test_a_lost_tail_down_to_the_repaired_end_heals(appended: int) -> None:
    """An emptied log that was made to go on shows by the id that it gives next that it is the one."""
    bench = ShardBench()
    bench.append(1, 1)
    bench.worker().run()
    empty(bench)
    repair(bench)
    bench.append(1, 1)
    bench.worker().run()
    bench.entries.clear()
    bench.log.streams[0].last = EntryId(1, 1)
    send(bench, "file", *[9] * appended)
    bench.worker().run()
    assert bench.store.checkpoint().incarnation == 1
    assert bench.store.checkpoint().id == EntryId(1, 1 + appended)
    assert not violations(bench.store.snapshot())


def test_a_log_that_is_emptied_again_stops_again() -> None:
    """The accepted loss is no licence for the next."""
    bench = ShardBench()
    bench.append(1, 1)
    bench.worker().run()
    for times in range(1, 4):
        empty(bench)
        stopped(bench, LogEmptied)
        repair(bench)
        assert outcomes(bench).count({"lost": []}) == times
        bench.worker().run()
        bench.append(1)
        bench.worker().run()
    assert not violations(bench.store.snapshot())


def test_a_forged_loss_is_found() -> None:
    """Its words are bound into the hash chain."""
    bench = ShardBench()
    ids = bench.append(1, 1, 1)
    lose(bench, ids[1])
    repair(bench)
    snapshot = bench.store.snapshot()
    records = list(snapshot.tables.records)
    for forged in ('{"lost":["1-1","1-9"]}', '{"lost":[]}', "{}", '{"lost":["1-0","1-1"]}'):
        records[1] = replace(records[1], outcomes=forged)
        assert violations(replace(snapshot, tables=replace(snapshot.tables, records=records))), forged


# --- whatever is killed, and whoever else is there ------------------------------------------------------------


@pytest.mark.parametrize("spoil", [lambda bench: lose(bench, EntryId(1, 2)), flush], ids=["gap", "emptied"])
@pytest.mark.parametrize(
    "point", ["repair.owned", "repair.log_ready", "store.in_transaction", "repair.committed"]
)
def test_a_repair_that_is_killed_is_finished_by_the_next(
    spoil: Callable[[ShardBench], None], point: str
) -> None:
    """One loss in the journal, one decision, and the shard goes on."""
    bench = ShardBench()
    bench.append(1, 1)
    bench.worker().run()
    bench.append(1, 1)
    spoil(bench)

    def die(reached: str) -> None:
        if reached == point:
            raise Killed

    dying = repairing(bench, owner="killed", reach=die)
    with pytest.raises(Killed):
        accept(replace(dying, open_store=lambda: Mortal(bench.store, die)), examine(dying))  # type: ignore[arg-type, return-value]
    assert bench.ownership().owner == "killed"
    if examine(repairing(bench)).problem:
        repair(bench)
    bench.worker(dead=["killed"]).run()
    bench.append(1)
    bench.worker().run()
    assert sum("lost" in outcome for outcome in outcomes(bench)) == 1
    assert len(bench.store.decisions) == 1
    assert bench.store.checkpoint().id == bench.log.streams[0].last
    assert not violations(bench.store.snapshot())


def test_a_worker_at_work_is_not_disturbed() -> None:
    """It is named, and nothing is changed."""
    bench = ShardBench()
    ids = bench.append(1, 1)
    lose(bench, ids[0])
    epoch = bench.owned_by("worker")

    class Beating:
        def __getattr__(self, name: str) -> object:
            return getattr(bench.clock, name)

        def sleep_ms(self, milliseconds: int) -> None:
            bench.clock.sleep_ms(milliseconds)
            bench.store.beat(epoch)

    with pytest.raises(MendingRefused, match="shard 0 is owned by worker, which works on it"):
        examine(replace(repairing(bench), clock=Beating()))  # type: ignore[arg-type]
    assert bench.ownership().epoch == epoch


def test_a_worker_that_comes_behind_the_look_keeps_the_shard() -> None:
    """What was seen is what is taken."""
    bench = ShardBench()
    bench.append(1)
    bench.worker().run()
    bench.append(1, 1)
    lose(bench, EntryId(1, 1))
    shown = examine(repairing(bench))

    class Raced(Mortal):
        """Free at the first look; right behind it a worker takes the shard."""

        def ownership(self) -> Ownership:
            seen = bench.store.ownership()
            if not seen.owner:
                bench.owned_by("worker")
            return seen

    store = Raced(bench.store, lambda _: None)
    with pytest.raises(MendingRefused, match="taken by another while it was looked at"):
        accept(replace(repairing(bench), open_store=lambda: store), shown)  # type: ignore[arg-type, return-value]
    assert bench.ownership().owner == "worker"


def test_a_repair_that_takes_long_keeps_the_shard() -> None:
    """A standby would take it for stalled, and go on: as it does when the process was held up, which says so."""
    bench = ShardBench()
    ids = bench.append(*[1] * 300)
    lose(bench, ids[-1])
    bench.append(1)
    looks: list[int] = []

    class Slow(MemoryLogMender):
        seconds = 3

        def range(self, first: EntryId, last: EntryId, count: int) -> list[RawEntry]:
            bench.clock.sleep_ms(self.seconds * 1_000)
            looks.append(bench.store.beats)
            if self.seconds > 3 and len(looks) == 3:
                bench.owned_by("standby")
            return super().range(first, last, count)

    shown = examine(repairing(bench))
    slow = Slow(bench.log, 0)
    accept(replace(repairing(bench), log=slow), shown)
    assert all(looks[place + 2] > looks[place] for place in range(len(looks) - 2))
    assert len(bench.store.decisions) == 1
    lose(bench, bench.append(1)[0])
    bench.append(1)
    shown = examine(repairing(bench))
    slow.seconds = 11
    looks.clear()
    with pytest.raises(MendingRefused, match=r"shard 0 was taken over meanwhile\. Stop its workers"):
        accept(replace(repairing(bench), log=slow), shown)
    assert bench.ownership().owner == "standby"
    assert len(bench.store.decisions) == 1


def test_a_refused_repair_leaves_the_shard_stopped() -> None:
    """`status` still says why."""
    bench = ShardBench()
    ids = bench.append(1, 1, 1)
    lose(bench, ids[1])
    why = stopped(bench, LogGap)
    shown = examine(repairing(bench))
    lose(bench, ids[2])
    with pytest.raises(MendingRefused):
        accept(repairing(bench), shown)
    assert bench.store.stopped == why
    repair(bench)
    assert not bench.store.stopped


def test_a_worker_that_has_stalled_for_its_lease_is_replaced() -> None:
    """As by any standby; it is fenced when it wakes up."""
    bench = ShardBench()
    ids = bench.append(1, 1)
    lose(bench, ids[0])
    epoch = bench.owned_by("worker")
    repair(bench)
    assert bench.ownership().epoch > epoch
    assert outcomes(bench) == [{"lost": ["1-0", "1-0"]}]


@pytest.mark.parametrize("meanwhile", ["restored", "lost more"])
def test_what_is_not_as_it_was_shown_is_not_given_up(meanwhile: str) -> None:
    """Between question and answer somebody restores the log, or loses more of it."""
    bench = ShardBench()
    ids = bench.append(1, 1, 1, 1)
    kept = dict(bench.entries)
    lose(bench, ids[1])
    shown = examine(repairing(bench))
    if meanwhile == "restored":
        bench.entries.clear()
        bench.entries.update(kept)
    else:
        lose(bench, ids[2])
    with pytest.raises(MendingRefused, match="not any more what was shown"):
        accept(repairing(bench), shown)
    assert not bench.store.records
    assert not bench.ownership().owner


def test_another_pipelines_log_cannot_be_repaired() -> None:
    """It says what to do instead."""
    bench = ShardBench()
    bench.append(1)
    bench.worker().run()
    bench.log.topology = Topology("other", 1, 1, 1)
    with pytest.raises(MendingRefused, match="A repair cannot help: start the right server"):
        examine(repairing(bench))
