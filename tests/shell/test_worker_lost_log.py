"""A log that is not what it was: healed where log and journal share something, else the shard stops."""

import re

import pytest

from hftpipe.config import WorkerLimits
from hftpipe.core.entry import EntryId
from hftpipe.errors import LogEmptied, LogForeign, LogGap
from hftpipe.invariants import violations
from hftpipe.ports import Topology
from hftpipe.store.memory import MemoryStore
from tests.shell.shard_bench import ShardBench

# --- a log that is not what it was --------------------------------------------------------------------------------


def cut_tail(bench: ShardBench, kept: int) -> None:
    """The log forgets all but its first entries."""
    stream = bench.log.streams[0]
    for entry_id in list(stream.entries)[kept:]:
        del stream.entries[entry_id]
    stream.last = EntryId(1, kept - 1)


@pytest.mark.parametrize("kept", [1, 2, 300])
def test_a_log_that_lost_its_tail_is_followed_from_what_it_shares_with_the_journal(kept: int) -> None:
    """Loudly; what producers send again is skipped, what is new is applied."""
    bench = ShardBench()
    ids = bench.append(*[1] * 600)
    fields = [bench.entries[entry_id] for entry_id in ids]
    bench.worker(limits=WorkerLimits(commit_transactions_max=100)).run()
    cut_tail(bench, kept)
    for again in fields[kept:]:
        bench.append_fields({**again, b"v": b"1"})
    bench.entries[EntryId(1, 599)] = bench.entries[EntryId(1, 598)]
    bench.append_fields(fields[599])
    bench.append(1)
    bench.worker("second").run()
    assert bench.balance() == 601
    assert bench.store.checkpoint().incarnation == 1
    assert "the log lost its tail: entry 1-599 is not the one that was applied" in bench.lines[0]
    assert not violations(bench.store.snapshot())


def test_a_log_that_shares_nothing_with_the_journal_stops_the_shard() -> None:
    """Its first entry is there, another one than was applied: it was emptied, and what else it held nobody knows."""
    bench = ShardBench()
    ids = bench.append(2, 1)
    fields = [bench.entries[entry_id] for entry_id in ids]
    bench.worker().run()
    cut_tail(bench, 0)
    bench.append_fields({b"hello": b"world"})
    for again in fields:
        bench.append_fields(again)
    with pytest.raises(LogEmptied, match="it holds 1-0 to 1-2"):
        bench.worker("second").run()


def test_a_log_that_ends_where_its_tail_was_lost_is_followed_from_its_end() -> None:
    """Also when no producer has sent anything again yet."""
    bench = ShardBench()
    bench.append(1, 1, 1)
    bench.worker().run()
    cut_tail(bench, 1)
    bench.worker("second").run()
    assert bench.store.checkpoint().id == EntryId(1, 0)
    assert bench.balance() == 3


def test_an_emptied_log_stops_the_shard() -> None:
    """Going on with nothing in common would be guessing."""
    bench = ShardBench()
    bench.append(1, 1)
    bench.worker().run()
    cut_tail(bench, 0)
    with pytest.raises(LogEmptied, match=re.escape("entry 1-1 was applied, but the log holds nothing")):
        bench.worker("second").run()
    assert "it holds no entry" in bench.store.stopped


def test_a_log_that_begins_behind_all_that_was_applied_stops_the_shard() -> None:
    """What lies between is nowhere any more."""
    bench = ShardBench()
    bench.append(1, 1)
    bench.worker().run()
    ids = bench.append(1, 1)
    for entry_id in list(bench.entries):
        if entry_id < ids[1]:
            del bench.entries[entry_id]
    with pytest.raises(LogGap, match=r"0/1-2 to 0/1-2 are no longer in the log.*older"):
        bench.worker("second").run()


@pytest.mark.parametrize(
    ("topology", "said"),
    [
        (None, "the log belongs to no pipeline, the store to bench"),
        (
            Topology("other", 1, 1, 1),
            "shard 0 of 1 of pipeline other, the store to shard 0 of 1 of pipeline bench",
        ),
        (Topology("bench", 2, 1, 1), "shard 0 of 2 of pipeline bench, the store to shard 0 of 1 of pipeline"),
    ],
    ids=["no topology", "another pipeline", "another number of shards"],
)
def test_a_foreign_log_stops_the_shard(topology: Topology | None, said: str) -> None:
    """A store is never fed from another log by mistake."""
    bench = ShardBench()
    bench.append(1)
    bench.log.topology = topology
    with pytest.raises(LogForeign, match=re.escape(said)):
        bench.worker().run()
    assert not bench.store.records
    assert said in bench.store.stopped


def test_a_store_of_another_shard_stops_the_shard() -> None:
    """Files that were exchanged are found out before anything is written."""
    bench = ShardBench()
    bench.append(1)
    other = MemoryStore(Topology("bench", 2, 1, 1), 1)
    with pytest.raises(LogForeign, match="the store to shard 1 of 2"):
        bench.worker(store=other).run()
