"""From entries to commits: what is journaled, counted and linked, whatever arrives in whatever order."""

from hashlib import blake2b
from typing import NamedTuple

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftpipe.core.commit import Totals
from hftpipe.core.entry import Entry, EntryId, Foreign
from hftpipe.core.journal import GENESIS, deposits_in
from hftpipe.core.ledger import Deposit, Undisputable
from hftpipe.store.memory import MemoryStore

from .driver import TOPOLOGY, Row, Shard, cut, decided, entry_of, foreign_of, told

DEPOSIT: Row = ("D", 1, None, 10)


def shard() -> tuple[Shard, MemoryStore]:
    store = MemoryStore(TOPOLOGY, 0)
    return Shard(store), store


# --- Single cases -----------------------------------------------------------------------------------------------


def test_an_entry_without_anything_special_has_empty_outcomes() -> None:
    """The common case costs two bytes."""
    owner, store = shard()
    owner.commit([entry_of(0, [DEPOSIT, DEPOSIT])])
    assert store.records[0].outcomes == "{}"
    assert store.balances[1] == (20, 0, False, 1)


def test_a_late_duplicate_changes_nothing() -> None:
    """A timed-out append that lands after the rows were sent again: journaled, counted, without effect."""
    owner, store = shard()
    owner.commit([entry_of(0, [DEPOSIT, DEPOSIT]), entry_of(1, [DEPOSIT], first=3)])
    balances = dict(store.balances)
    owner.commit([entry_of(2, [DEPOSIT, DEPOSIT])])
    assert told(store.records[2]) == [("source", 1, "skipped"), ("source", 2, "skipped")]
    assert store.balances == balances
    assert store.sources == {"source": 3}
    assert store.checkpoint().totals == Totals(applied=3, skipped=2)


def test_a_batch_cut_anew_is_applied_from_its_first_new_row() -> None:
    """Rows 1 and 2 were applied; a batch of 2, 3, 4 brings only 3 and 4."""
    owner, store = shard()
    owner.commit([entry_of(0, [DEPOSIT] * 2)])
    owner.commit([entry_of(1, [DEPOSIT] * 3, first=2)])
    assert store.records[1].outcomes == '{"skipped":1}'
    assert store.balances[1][0] == 40


def test_refused_rows_are_counted_from_the_start_of_the_entry() -> None:
    """Also behind skipped ones: an index is a place in the payload."""
    owner, store = shard()
    rows: list[Row] = [("D", 1, 1, 5), ("D", 1, 2, 5), ("W", 1, 3, 99), ("D", 1, 2, 5), ("W", 1, 4, 98)]
    owner.commit([entry_of(0, rows[:2])])
    owner.commit([entry_of(1, rows)])
    assert orjson.loads(store.records[1].outcomes) == {
        "skipped": 2,
        "refused": {"insufficient_funds": [2, 4], "duplicate_tx": [3]},
    }


def test_a_gap_is_left_alone() -> None:
    """Rows before it are missing: nothing of it is applied, the position stays, and it is counted."""
    owner, store = shard()
    owner.commit([entry_of(0, [DEPOSIT]), entry_of(1, [DEPOSIT], first=3)])
    assert store.records[1].outcomes == '{"gap":true}'
    assert store.sources == {"source": 1}
    assert store.balances[1][0] == 10
    assert store.checkpoint().totals == Totals(applied=1, gaps=1)


def test_a_gap_heals_when_the_missing_rows_are_sent_again() -> None:
    """Rows 2 and 3, then, are new."""
    owner, store = shard()
    owner.commit([entry_of(0, [DEPOSIT]), entry_of(1, [DEPOSIT], first=3)])
    owner.commit([entry_of(2, [DEPOSIT] * 2, first=2)])
    assert decided(store.records) == [("source", row, "applied") for row in (1, 2, 3)]


def test_a_gap_of_a_source_never_seen_leaves_no_trace_but_the_journal() -> None:
    """Neither position nor account comes into being."""
    owner, store = shard()
    owner.commit([entry_of(0, [DEPOSIT], first=9)])
    assert (store.sources, store.balances, store.checkpoint().totals) == ({}, {}, Totals(gaps=1))


def test_sources_do_not_touch_each_other() -> None:
    """The same row numbers of another source are other rows."""
    owner, store = shard()
    owner.commit([entry_of(0, [DEPOSIT], source="one"), entry_of(1, [DEPOSIT], source="two")])
    assert store.sources == {"one": 1, "two": 1}
    assert store.balances[1][0] == 20


def test_a_foreign_entry_is_recorded_and_handed_out_as_dead() -> None:
    """In the same commit as its neighbours, which it does not disturb."""
    owner, store = shard()
    foreign = foreign_of(1)
    commit = owner.commit([entry_of(0, [DEPOSIT]), foreign, entry_of(2, [DEPOSIT], first=2)])
    assert commit.dead == [foreign]
    record = store.records[1]
    assert (record.payload, record.source, record.count) == ("", "", 0)
    assert orjson.loads(record.outcomes) == {"dead": foreign.reason}
    assert record.digest == foreign.digest
    assert store.balances[1][0] == 20
    assert store.checkpoint().totals == Totals(applied=2, dead=1)


def test_a_commit_of_a_dead_entry_alone_moves_the_checkpoint() -> None:
    """The shard goes on behind it."""
    owner, store = shard()
    owner.commit([foreign_of(0)])
    checkpoint = store.checkpoint()
    assert (checkpoint.id, checkpoint.number, checkpoint.highest_tx) == (EntryId(1, 0), 1, -1)


def test_a_commit_says_how_far_it_reaches() -> None:
    """Checkpoint before and after, ids by journal number, sources by name."""
    owner, _ = shard()
    first, second = entry_of(0, [("D", 1, 7, 5)]), entry_of(1, [("D", 2, 9, 5), ("W", 2, 8, 99)], first=2)
    commit = owner.post([first, second])
    assert commit.before.number == 0
    assert (commit.after.id, commit.after.digest) == (EntryId(1, 1), second.digest)
    assert (commit.after.number, commit.after.highest_tx) == (2, 9)
    assert [(taken.number, taken.txs.tolist()) for taken in commit.taken] == [(1, [7]), (2, [9, 8])]
    assert commit.positions == {"source": 3}
    assert [(account, named_by) for account, *_, named_by in commit.balances.tolist()] == [(1, 1), (2, 2)]


# --- What a journal record says about its deposits ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "outcomes", "tx", "expected"),
    [
        ([("D", 1, 7, 5)], "{}", 7, Deposit(1, 5)),
        ([("W", 1, 7, 5)], "{}", 7, Undisputable.TAKEN),
        ([("D", 1, 7, 5)], '{"refused":{"account_locked":[0]}}', 7, Undisputable.TAKEN),
        ([("P", 1, 7, 0), ("D", 2, 7, 5)], '{"refused":{"unknown_tx":[0]}}', 7, Deposit(2, 5)),
        ([("D", 1, 7, 5), ("D", 2, 7, 6)], '{"refused":{"duplicate_tx":[1]}}', 7, Deposit(1, 5)),
        ([("D", 9, 7, 1), ("D", 1, 7, 5)], '{"skipped":1}', 7, Deposit(1, 5)),
        ([("D", 1, 5, 5), ("R", 1, 7, 0), ("C", 1, 7, 0), ("W", 1, 7, 5)], "{}", 7, Undisputable.TAKEN),
    ],
)
def test_a_deposit_is_found_where_its_id_was_taken(
    rows: list[Row], outcomes: str, tx: int, expected: Deposit | Undisputable
) -> None:
    """The first deposit or withdrawal of that id behind the skipped rows; disputes that name it do not count."""
    assert deposits_in(entry_of(0, rows).payload, outcomes, [tx]) == {tx: expected}


# --- Any schedule ------------------------------------------------------------------------------------------------

SOURCES = ("one", "two")


class Arrival(NamedTuple):
    """Rows start..stop-1 of a source, or a foreign entry."""

    source: str | None
    start: int = 0
    stop: int = 0


class Schedule(NamedTuple):
    """Both sources' rows with their positions, and all entries in the order of the log."""

    rows: dict[str, list[Row]]
    positions: dict[str, list[int]]
    entries: list[Entry | Foreign]


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    """Pieces of two sources again, late, early and in any cuts, and at last both sources from their start."""
    row = st.tuples(st.sampled_from("DDWPRC"), st.integers(0, 2), st.integers(0, 9), st.integers(1, 9))
    plain = st.lists(row, min_size=1, max_size=12)
    rows: dict[str, list[Row]] = {
        source: [
            (kind, account, tx, amount if kind in "DW" else 0) for kind, account, tx, amount in draw(plain)
        ]
        for source in SOURCES
    }
    steps = {source: draw(st.lists(st.integers(1, 3), min_size=12, max_size=12)) for source in SOURCES}
    positions = {
        source: [sum(steps[source][: index + 1]) for index in range(len(rows[source]))] for source in SOURCES
    }
    edges = st.integers(0, 12)
    drawn = st.builds(Arrival, st.sampled_from([*SOURCES, *SOURCES, None]), edges, edges)
    arrivals = draw(st.lists(drawn, max_size=15))
    for source in SOURCES:
        pieces = cut(len(rows[source]), draw(st.sets(edges)))
        arrivals += [Arrival(source, piece.start, piece.stop) for piece in pieces]
    entries: list[Entry | Foreign] = []
    for arrival in arrivals:
        if arrival.source is None:
            entries.append(foreign_of(len(entries)))
        elif arrival.start < min(arrival.stop, len(rows[arrival.source])):
            numbers = positions[arrival.source]
            entries.append(
                entry_of(
                    len(entries),
                    rows[arrival.source][arrival.start : arrival.stop],
                    positions=numbers[arrival.start : arrival.stop],
                    previous=numbers[arrival.start - 1] if arrival.start else 0,
                    source=arrival.source,
                )
            )
    return Schedule(rows, positions, entries)


def applied(entries: list[Entry | Foreign], commits: set[int], restarts: set[int]) -> MemoryStore:
    owner, store = shard()
    for number, piece in enumerate(cut(len(entries), commits)):
        if number in restarts:
            owner.forget()
        owner.commit(entries[piece.start : piece.stop])
    return store


places = st.sets(st.integers(0, 40))


@settings(deadline=None, max_examples=200)
@given(schedules(), places, places)
def test_each_row_takes_effect_once_and_in_the_order_of_its_source(
    schedule: Schedule, commits: set[int], restarts: set[int]
) -> None:
    """Any resends from any earlier position, in any cuts, with late arrivals and foreign entries between."""
    store = applied(schedule.entries, commits, restarts)
    lines = decided(store.records)
    for source in SOURCES:
        assert [row for name, row, _ in lines if name == source] == schedule.positions[source]
    assert store.sources == {source: schedule.positions[source][-1] for source in SOURCES}


@settings(deadline=None, max_examples=100)
@given(schedules(), places)
def test_the_journal_is_linked_and_the_totals_add_up(schedule: Schedule, commits: set[int]) -> None:
    """Every record covers the one before; every row of every entry is counted once, under one heading."""
    store = applied(schedule.entries, commits, set())
    before = GENESIS
    for number, (record, entry) in enumerate(zip(store.records, schedule.entries, strict=True), 1):
        assert (record.number, record.id, record.digest) == (number, entry.id, entry.digest)
        sealed = f"{before} {number} {record.id} {record.digest} {record.outcomes}"
        assert record.hash == blake2b(sealed.encode(), digest_size=16).hexdigest()
        before = record.hash
    lines = [line for record in store.records for line in told(record)]
    outcomes = [outcome for _, _, outcome in lines]
    checkpoint = store.checkpoint()
    assert (checkpoint.number, checkpoint.hash) == (len(store.records), before)
    assert checkpoint.totals == Totals(
        applied=outcomes.count("applied"),
        refused=sum(outcome not in ("applied", "skipped", "gap") for outcome in outcomes),
        skipped=outcomes.count("skipped"),
        gaps=sum('"gap"' in record.outcomes for record in store.records),
        dead=sum(isinstance(entry, Foreign) for entry in schedule.entries),
    )
    assert store.dead == [entry for entry in schedule.entries if isinstance(entry, Foreign)]


@settings(deadline=None, max_examples=100)
@given(schedules(), places, places, places)
def test_the_size_of_a_commit_and_restarts_change_nothing(
    schedule: Schedule, one: set[int], other: set[int], restarts: set[int]
) -> None:
    """The same log gives the same records, balances, ids, disputes and checkpoint, to the last byte."""
    left, right = applied(schedule.entries, one, set()), applied(schedule.entries, other, restarts)
    assert left.records == right.records
    assert left.balances == right.balances
    assert left.transactions == right.transactions
    assert left.disputes == right.disputes
    assert left.sources == right.sources
    assert left.checkpoint() == right.checkpoint()


@settings(deadline=None, max_examples=50)
@given(schedules(), st.data())
def test_a_change_anywhere_in_the_journal_breaks_its_chain(schedule: Schedule, data: st.DataObject) -> None:
    """Every hash behind it is another one."""
    whole = applied(schedule.entries, set(), set())
    index = data.draw(st.integers(0, len(schedule.entries) - 1))
    entries = [
        *schedule.entries[:index],
        foreign_of(index, {b"other": b"one"}),
        *schedule.entries[index + 1 :],
    ]
    changed = applied(entries, set(), set())
    assert [record.hash for record in whole.records[:index]] == [
        record.hash for record in changed.records[:index]
    ]
    pairs = zip(whole.records[index:], changed.records[index:], strict=True)
    assert all(ours.hash != theirs.hash for ours, theirs in pairs)
