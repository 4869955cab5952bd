"""How a producer cuts a source into entries, and how its successor goes on."""

import pytest

from hftpipe.config import IngestLimits
from hftpipe.core.entry import EntryId
from hftpipe.core.transaction import Batch
from hftpipe.errors import LogForeign
from hftpipe.ports import Topology
from tests.shell.producer_desk import Desk, deposits, mark


def appended(desk: Desk, *rows: int) -> None:
    """What a former producer has appended and noted."""
    producer = desk.producer()
    producer.append(deposits(*rows, accounts=range(desk.topology.shards)))
    producer.note(mark(rows[-1]))


# --- cutting ------------------------------------------------------------------------------------------------------


def test_rows_are_cut_into_entries_that_follow_each_other() -> None:
    """Each begins where the one before ended, and none is longer than the bound."""
    desk = Desk()
    desk.producer(limits=IngestLimits(entry_transactions_max=2)).append(deposits(2, 3, 5, 8, 9))
    assert desk.rows() == [(0, [2, 3]), (3, [5, 8]), (8, [9])]


def test_pipelines_are_cut_at_their_bound() -> None:
    """So many entries are sent before their replies are awaited."""
    desk = Desk()
    limits = IngestLimits(entry_transactions_max=1, pipeline_entries_max=3)
    desk.producer(limits=limits).append(deposits(*range(1, 9)))
    assert desk.writer.pipelines == [3, 3, 2]
    assert [rows for _, rows in desk.rows()] == [[row] for row in range(1, 9)]


def test_the_first_entries_of_all_shards_are_sent_together() -> None:
    """Though nothing is known yet of the room in any of them."""
    desk = Desk(shards=4)
    desk.producer().append(deposits(1, 2, 3, 4, accounts=range(4)))
    assert desk.writer.pipelines == [4]


def test_each_shard_has_positions_of_its_own() -> None:
    """A row of another shard is no gap."""
    desk = Desk(shards=2)
    producer = desk.producer()
    producer.append(deposits(1, 2, 3, 4, accounts=[0, 1]))
    producer.append(deposits(5, 6, accounts=[0, 1]))
    assert desk.rows(0) == [(0, [2, 4]), (4, [6])]
    assert desk.rows(1) == [(0, [1, 3]), (3, [5])]


def test_a_batch_without_rows_appends_nothing() -> None:
    """A block may hold invalid rows only."""
    desk = Desk()
    producer = desk.producer()
    producer.append(deposits())
    assert not desk.writer.pipelines
    assert producer.appended_entries == 0


def test_rows_without_transaction_ids_are_appended_as_such() -> None:
    """A source without that column has none in any entry."""
    desk = Desk(shards=2)
    batch = Batch.of("DD", [0, 1], None, [1, 1], [1, 2])
    desk.producer().append(batch)
    assert [entry.batch.txs for shard in (0, 1) for entry in desk.entries(shard)] == [None, None]


def test_a_row_that_was_confirmed_is_not_appended_again() -> None:
    """Whatever a caller hands over a second time."""
    desk = Desk()
    producer = desk.producer()
    producer.append(deposits(1, 2, 3))
    producer.append(deposits(2, 3, 4))
    assert desk.rows() == [(0, [1, 2, 3]), (3, [4])]


# --- resuming -----------------------------------------------------------------------------------------------------


def test_a_new_source_begins_at_its_start() -> None:
    """Nothing was noted, nothing is to be proven."""
    resumption = Desk().producer().resume()
    assert resumption.after is None
    assert not resumption.known


def test_a_successor_goes_on_behind_what_was_noted() -> None:
    """And continues the chain of positions."""
    desk = Desk(shards=2)
    appended(desk, 1, 2, 3)
    producer = desk.producer()
    assert producer.resume().after == mark(3)
    producer.append(deposits(4, 5, accounts=[0, 1]))
    assert [desk.rows(shard)[-1] for shard in (0, 1)] == [(2, [4]), (3, [5])]


def test_advice_that_is_too_low_is_safe() -> None:
    """Rows come again, from the position that was noted with it: the worker skips them."""
    desk = Desk()
    first = desk.producer()
    first.append(deposits(1))
    first.note(mark(1))
    first.append(deposits(2))
    producer = desk.producer()
    assert producer.resume().after == mark(1)
    producer.append(deposits(2, 3))
    assert desk.rows() == [(0, [1]), (1, [2]), (1, [2, 3])]


def test_the_lowest_mark_of_all_shards_counts() -> None:
    """A kill between two notes leaves them apart; both must fit the source."""
    desk = Desk(shards=2)
    appended(desk, 1, 2, 3, 4)
    old = desk.log.streams[1].advice["file"]
    producer = desk.producer()
    producer.resume()
    producer.append(deposits(5, 6, accounts=[0, 1]))
    producer.note(mark(6))
    desk.log.streams[1].advice["file"] = old
    resumption = desk.producer().resume()
    assert resumption.after == mark(4)
    assert set(resumption.known) == {mark(4), mark(6)}


def test_advice_that_is_missing_for_one_shard_begins_at_the_start() -> None:
    """Rows of that shard may be anywhere; what is known of the others is not appended again."""
    desk = Desk(shards=2)
    appended(desk, 1, 2, 3, 4)
    del desk.log.streams[1].advice["file"]
    producer = desk.producer()
    resumption = producer.resume()
    assert resumption.after is None
    assert resumption.known == [mark(4)]
    producer.append(deposits(1, 2, 3, 4, 5, accounts=[0, 1]))
    assert desk.rows(0) == [(0, [2, 4])]
    assert desk.rows(1) == [(0, [1, 3]), (0, [1, 3, 5])]


def test_a_shard_without_rows_so_far_is_noted_too() -> None:
    """Else a source with one account could never be resumed."""
    desk = Desk(shards=4)
    first = desk.producer()
    first.append(deposits(1, 2))
    first.note(mark(2))
    assert desk.producer().resume().after == mark(2)


def test_an_anchor_that_was_applied_and_trimmed_counts_as_there() -> None:
    """Only what is not applied can be lost."""
    desk = Desk()
    appended(desk, 1, 2)
    other = desk.producer("other")
    other.append(deposits(1))
    del desk.log.streams[0].entries[EntryId(1, 0)]
    assert desk.producer().resume().after == mark(2)
    assert not desk.lines


@pytest.mark.parametrize("replaced", [False, True], ids=["gone", "another entry"])
def test_an_anchor_that_was_lost_begins_again_at_the_start(replaced: bool) -> None:
    """It is said, and the old marks must still fit: the chain skips what was applied."""
    desk = Desk()
    appended(desk, 1, 2)
    desk.lose_tail(0)
    if replaced:
        desk.producer("other").append(deposits(7))
    producer = desk.producer()
    resumption = producer.resume()
    assert resumption.after is None
    assert resumption.known == [mark(2)]
    assert "the log lost entries of file that it had confirmed: 0/1-0" in desk.lines[0]
    producer.append(deposits(1, 2))
    assert desk.rows()[-1] == (0, [1, 2])


def test_resuming_waits_out_a_server_that_does_not_answer() -> None:
    """It may be loading its file."""
    desk = Desk()
    appended(desk, 1)
    desk.writer.advice_failing = 2
    assert desk.producer().resume().after == mark(1)
    assert len(desk.lines) == 2
    assert desk.clock.now_ms > 0


@pytest.mark.parametrize(
    ("topology", "said"),
    [(None, "belongs to no pipeline"), (Topology("other", 1, 1, 1), "belongs to pipeline other")],
)
def test_a_log_of_another_pipeline_is_refused(topology: Topology | None, said: str) -> None:
    """Before anything is appended to it."""
    desk = Desk()
    desk.log.topology = topology
    with pytest.raises(LogForeign, match=said):
        desk.producer().resume()
