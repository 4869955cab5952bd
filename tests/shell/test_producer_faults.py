"""What a producer does when the log fails, forgets or is full."""

import pytest

from hftpipe.config import IngestLimits
from hftpipe.core.entry import EntryId
from hftpipe.errors import Interrupted, TailLost
from tests.shell.producer_desk import Desk, deposits, mark

# --- faults -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unconfirmed", [0, 1, 2], ids=["not written", "one written", "all written"])
@pytest.mark.parametrize("cut", [0, 1, 2])
def test_behind_the_first_failed_entry_all_is_sent_again(cut: int, unconfirmed: int) -> None:
    """What became of it is unknown; the chain skips what was written twice."""
    desk = Desk()
    desk.writer.cuts = [cut]
    desk.writer.unconfirmed = unconfirmed
    producer = desk.producer(limits=IngestLimits(entry_transactions_max=1))
    producer.append(deposits(1, 2, 3))
    wanted = [(0, [1]), (1, [2]), (2, [3])]
    assert desk.rows() == wanted[: cut + unconfirmed] + wanted[cut:]
    assert producer.appended_entries == 3


def test_faults_are_waited_out_for_longer_and_longer() -> None:
    """From `retry_first_ms` to `retry_max_ms`; each one is said."""
    desk = Desk()
    desk.writer.cuts = [0] * 12
    desk.producer().append(deposits(1))
    assert len(desk.lines) == 12
    assert desk.clock.now_ms > 3 * IngestLimits().retry_max_ms
    assert desk.rows() == [(0, [1])]


def test_a_file_source_asks_to_begin_again_when_the_log_lost_its_tail() -> None:
    """Found out at the next fault: what had been confirmed is no longer there."""
    desk = Desk()
    producer = desk.producer()
    producer.append(deposits(1, 2))
    desk.lose_tail(0)
    desk.writer.cuts = [0]
    with pytest.raises(TailLost, match=r"0/1-0 to 0/1-0 \(up to row 2\)") as lost:
        producer.append(deposits(3))
    producer.begin_again(lost.value)
    producer.append(deposits(1, 2, 3))
    assert desk.rows() == [(0, [1, 2, 3])]


def test_a_live_source_reports_the_lost_range_and_goes_on() -> None:
    """It cannot be read again; its next rows come as if first, so that they are no gap, and none is applied twice."""
    desk = Desk()
    producer = desk.producer("live", resumable=False)
    producer.append(deposits(1))
    producer.append(deposits(2))
    desk.lose_tail(1)
    desk.writer.cuts = [0]
    producer.append(deposits(3))
    producer.append(deposits(4))
    assert [(entry.source, entry.previous, entry.position) for entry in desk.entries()] == [
        ("live", 0, 1),
        ("live", 0, 3),
        ("live", 3, 4),
    ]
    assert "lost entries of live that it had confirmed: 0/1-1 to 0/1-1 (up to row 2)" in desk.lines[-1]
    assert "They cannot be read again; going on behind them" in desk.lines[-1]


def test_a_live_source_goes_on_as_if_first_behind_a_loss_that_was_accepted() -> None:
    """The store may have gone back: what it had confirmed looks trimmed, and rows behind it would be left alone."""
    desk = Desk(shards=2)
    desk.log.mender(0).announce_loss(7)
    producer = desk.producer("live", resumable=False)
    producer.append(deposits(1, 2, accounts=(0, 1)))
    producer.check()
    assert not producer.losses
    desk.log.mender(0).announce_loss(8)
    desk.lose_tail(0, shard=1)
    desk.writer.cuts = [0]
    producer.append(deposits(3, 4, accounts=(0, 1)))
    producer.check()
    assert [rows for rows, _ in desk.rows(0)] == [0, 0]
    assert [rows for rows, _ in desk.rows(1)] == [0]
    assert producer.losses == 2
    assert any("entries of shard 0 were given up" in line for line in desk.lines)
    assert "1/1-0 to 1/1-0 (up to row 1)" in desk.lines[-1]


def test_a_loss_that_was_accepted_concerns_who_has_appended_nothing_there() -> None:
    """What he knows of other sources may be in it."""
    desk = Desk()
    producer = desk.producer("live", resumable=False)
    producer.check()
    desk.log.mender(0).announce_loss(8)
    producer.check()
    assert producer.losses == 1


def test_a_live_source_notes_nothing() -> None:
    """Nobody can go on from there."""
    desk = Desk()
    producer = desk.producer("live", resumable=False)
    producer.append(deposits(1))
    producer.note(mark(1))
    assert not desk.log.streams[0].advice


# --- backlog ------------------------------------------------------------------------------------------------------


def test_at_the_cap_of_the_backlog_the_source_waits_and_says_so_once() -> None:
    """Nothing is dropped: it goes on when the worker has made room."""
    desk = Desk()
    reader = desk.log.reader(0, "worker")
    looks = []

    def work_at_last() -> None:
        looks.append(len(desk.log.streams[0].entries))
        if len(looks) % 6 == 0:
            reader.attach(EntryId(1, -1))
            reader.read(0, 0, [entry.id for entry in reader.read(1_000, 0, [], None)], None)

    desk.writer.before_backlog = work_at_last
    limits = IngestLimits(entry_transactions_max=1, backlog_entries_max=4)
    desk.producer(limits=limits).append(deposits(*range(1, 9)))
    assert [rows for _, rows in desk.rows()] == [[row] for row in range(1, 9)]
    assert looks == [0, 4, 4, 4, 4, 4]
    assert desk.lines == [
        "shard 0 has 4 entries waiting, its cap. Waiting for its worker (`hftpipe worker`, if none runs)"
    ]
    assert desk.clock.now_ms == 4 * limits.backlog_poll_ms


def test_the_backlog_is_looked_at_after_each_share() -> None:
    """So that many producers together pass the cap by no more than their shares."""
    desk = Desk()
    looks = []
    desk.writer.before_backlog = lambda: looks.append(len(desk.log.streams[0].entries))
    limits = IngestLimits(entry_transactions_max=1, backlog_share_max=3)
    desk.producer(limits=limits).append(deposits(*range(1, 9)))
    assert looks == [0, 3, 6]


def test_told_to_stop_while_it_waits_a_producer_says_what_is_left() -> None:
    """Not all is durable: the same command goes on from there."""
    desk = Desk()
    desk.stopping = lambda: desk.clock.now_ms > 0
    limits = IngestLimits(entry_transactions_max=1, backlog_entries_max=2)
    with pytest.raises(Interrupted, match="not all of it is durable"):
        desk.producer(limits=limits).append(deposits(1, 2, 3))
    assert len(desk.rows()) == 2
    assert desk.clock.now_ms == limits.backlog_poll_ms


def test_told_to_stop_while_the_server_is_away_a_producer_ends_within_one_wait() -> None:
    """However long the server stays away."""
    desk = Desk()
    desk.stopping = lambda: desk.clock.now_ms > 0
    desk.writer.cuts = [0] * 100
    with pytest.raises(Interrupted):
        desk.producer().append(deposits(1))
    assert len(desk.lines) == 1


def test_an_id_that_does_not_rise_shows_an_emptied_log() -> None:
    """No connection broke, so nobody looked for what was confirmed; the ids themselves tell."""
    desk = Desk()
    producer = desk.producer()
    producer.append(deposits(1))
    producer.append(deposits(2))
    desk.lose_tail(0)
    with pytest.raises(TailLost, match="gave id 1-0 after 1-1: its log was emptied") as lost:
        producer.append(deposits(3))
    producer.begin_again(lost.value)
    producer.append(deposits(1, 2, 3))
    assert desk.rows()[-1] == (0, [1, 2, 3])
