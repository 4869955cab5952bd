"""Ids that were sent before, told apart from new ones; against a plain dictionary."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftpipe.core.entry import EntryId
from hftpipe.core.transaction import Batch, Column, Kind
from hftpipe.errors import StoreDamaged, StoreUnavailable
from hftpipe.ports import Movement, Standing
from hftpipe.reception.receipts import Receipts, Status
from hftpipe.reception.repeats import NEW, RecentIds, Repeats

SHARDS = 3


class Shelf:
    """Books that hold some transactions; `fault` is raised instead of an answer of shard 1."""

    def __init__(self, movements: Sequence[Movement] = (), fault: Exception | None = None) -> None:
        self.movements = {(movement.shard, movement.tx): movement for movement in movements}
        self.fault = fault
        self.asked: list[int] = []

    def taken(self, shard: int, txs: Column) -> dict[int, Movement]:
        self.asked += txs.tolist()
        assert (np.diff(txs) > 0).all(), "ids are asked for in ascending order, each once"
        if self.fault is not None and shard == 1:
            raise self.fault
        return {tx: self.movements[shard, tx] for tx in txs.tolist() if (shard, tx) in self.movements}

    def applied(self, shard: int) -> EntryId | None:
        raise NotImplementedError

    def highest(self, shard: int) -> int:
        return max((tx for _, tx in self.movements if tx is not None), default=-1)

    def standing(self, account: int) -> Standing | None:
        raise NotImplementedError

    def history(self, tx: int, count_max: int) -> list[Movement]:
        raise NotImplementedError

    def rows(self, shard: int, entry: EntryId, source: str, positions: Column) -> list[Movement | None]:
        raise NotImplementedError

    def close(self) -> None:
        pass


def movement(
    account: int, tx: int, amount: int = 5, kind: Kind = Kind.DEPOSIT, sequence: int = 7
) -> Movement:
    shard = account % SHARDS
    return Movement(shard, EntryId(1, sequence), "other", 3, 0, kind, account, tx, amount, "applied")


def batch(kinds: str, accounts: Sequence[int], txs: Sequence[int] | None, amounts: Sequence[int]) -> Batch:
    return Batch.of(kinds, accounts, txs, amounts, range(1, len(kinds) + 1))


def repeats(shelf: Shelf | None = None, count_max: int = 1_000) -> Repeats:
    return Repeats(shelf or Shelf(), SHARDS, count_max, seed=42)


def remember(desk: Repeats, appended: Batch, shards: Column, sequences: Column, positions: Column) -> None:
    statuses = np.zeros(len(appended), dtype=np.uint8)
    desk.remember(appended, Receipts(1, statuses, shards, sequences, positions))


def test_new_ids_are_new() -> None:
    found = repeats().sort(batch("DWD", [1, 2, 3], [7, 5, 6], [1, 1, 1]))
    assert found.statuses.tolist() == [Status.DURABLE] * 3


def test_the_same_again_is_a_duplicate_with_the_first_address() -> None:
    desk = repeats()
    first = batch("D", [4], [9], [100])
    remember(desk, first, np.array([1]), np.array([33]), np.array([12]))
    found = desk.sort(first)
    assert found.statuses.tolist() == [Status.DUPLICATE]
    assert [column.tolist() for column in found.first[:3]] == [[1], [33], [12]]


@pytest.mark.parametrize(
    "other",
    [batch("W", [4], [9], [100]), batch("D", [7], [9], [100]), batch("D", [4], [9], [101])],
    ids=["kind", "account", "amount"],
)
def test_the_same_id_with_other_content_is_a_conflict(other: Batch) -> None:
    desk = repeats()
    remember(desk, batch("D", [4], [9], [100]), np.array([1]), np.array([33]), np.array([12]))
    assert desk.sort(other).statuses.tolist() == [Status.CONFLICT]


def test_what_was_applied_is_known_from_the_stores_of_any_shard() -> None:
    desk = repeats(Shelf([movement(4, 9, 100)]))
    found = desk.sort(batch("DDD", [4, 5, 6], [9, 10, 11], [100, 1, 1]))
    assert found.statuses.tolist() == [Status.DUPLICATE, Status.DURABLE, Status.DURABLE]
    assert [column.tolist()[0] for column in found.first[:3]] == [1, 7, 0]
    assert desk.sort(batch("D", [5], [9], [100])).statuses.tolist() == [Status.CONFLICT]


@pytest.mark.parametrize("fault", [StoreUnavailable("busy"), StoreDamaged("torn")])
def test_a_store_that_cannot_be_read_holds_nobody_up(fault: Exception) -> None:
    desk = repeats(Shelf([movement(4, 9, 100), movement(5, 8, 100)], fault))
    found = desk.sort(batch("DD", [4, 5], [9, 8], [100, 100]))
    assert found.statuses.tolist() == [Status.DURABLE, Status.DUPLICATE]


def test_disputes_have_no_id_of_their_own() -> None:
    desk = repeats(Shelf([movement(4, 9, 100)]))
    found = desk.sort(batch("PRPC", [4, 4, 4, 4], [9, 9, 9, 9], [0, 0, 0, 0]))
    assert found.statuses.tolist() == [Status.DURABLE] * 4


def test_without_ids_nothing_is_a_repeat() -> None:
    desk = repeats()
    same = batch("DD", [4, 4], None, [1, 1])
    remember(desk, same, np.array([1, 1]), np.array([1, 1]), np.array([1, 2]))
    assert desk.sort(same).statuses.tolist() == [Status.DURABLE] * 2


def test_a_group_that_repeats_itself_points_to_its_first_row() -> None:
    found = repeats().sort(batch("DDPD", [4, 4, 4, 4], [9, 9, 9, 9], [5, 5, 0, 6]))
    assert found.statuses.tolist() == [Status.DURABLE, Status.DUPLICATE, Status.DURABLE, Status.CONFLICT]
    assert found.within.tolist() == [NEW, 0, NEW, 0]


def test_an_entry_that_waits_in_the_log_is_known() -> None:
    desk = repeats()
    desk.warm(batch("DDPW", [4, 4, 4, 7], [9, 9, 9, 3], [5, 6, 0, 1]), 1, 20)
    desk.warm(batch("D", [4], [9], [8]), 1, 21)
    found = desk.sort(batch("DDW", [4, 4, 7], [9, 10, 3], [5, 5, 1]))
    assert found.statuses.tolist() == [Status.DUPLICATE, Status.DURABLE, Status.DUPLICATE]
    assert found.first.sequences.tolist() == [20, 0, 20]


def test_the_latest_ids_stay_and_memory_is_bounded() -> None:
    desk = repeats(count_max=100)
    for start in range(0, 1_000, 10):
        ids = np.arange(start, start + 10)
        remember(desk, batch("D" * 10, ids.tolist(), ids.tolist(), [1] * 10), ids, ids, ids)
    known = desk.sort(batch("D" * 1_000, list(range(1_000)), list(range(1_000)), [1] * 1_000))
    told = np.flatnonzero(known.statuses == Status.DUPLICATE)
    assert 50 <= len(told) <= 101
    assert told.tolist() == list(range(1_000 - len(told), 1_000))


def test_a_group_larger_than_the_memory_is_remembered_in_part() -> None:
    recent = RecentIds(10, seed=1)
    ids = np.arange(100)
    zeros = np.zeros(100, dtype=np.int64)
    from hftpipe.reception.repeats import First

    recent.add(ids, First(ids, zeros, zeros, zeros, zeros, zeros))
    places, first = recent.find(ids)
    assert 5 <= len(places) <= 10
    assert sorted(places.tolist()) == list(range(100 - len(places), 100))
    assert sorted(first.shards.tolist()) == sorted(places.tolist())
    assert recent.forgotten == 99 - len(places)


def test_the_stores_are_asked_only_for_ids_that_may_be_there() -> None:
    shelf = Shelf([movement(4, 9, 100)])
    desk = repeats(shelf, count_max=30)
    desk.trust()
    desk.sort(batch("DD", [4, 5], [10, 11], [1, 1]))
    assert shelf.asked == []
    ids = np.arange(100, 140)
    remember(desk, batch("D" * 40, ids.tolist(), ids.tolist(), [1] * 40), ids, ids, ids)
    desk.sort(batch("DD", [4, 5], [100, 150], [1, 1]))
    assert set(shelf.asked) == {100}
    desk.meet_others()
    desk.sort(batch("D", [4], [1_000], [1]))
    assert 1_000 in shelf.asked


rows = st.tuples(st.sampled_from("DWPRC"), st.integers(0, 5), st.integers(0, 12), st.integers(1, 2)).map(
    lambda row: row if row[0] in "DW" else (*row[:3], 0)
)


@settings(deadline=None)
@given(
    st.lists(st.lists(rows, min_size=1, max_size=8), max_size=12),
    st.dictionaries(st.integers(0, 12), st.integers(0, 5)),
)
def test_every_row_is_told_what_a_dictionary_would_tell(
    groups: list[list[tuple[str, int, int, int]]], applied: Mapping[int, int]
) -> None:
    desk = repeats(Shelf([movement(account, tx, 1) for tx, account in applied.items()]))
    model: dict[int, tuple[str, int, int, tuple[int, int]]] = {
        tx: ("D", account, 1, (account % SHARDS, 7)) for tx, account in applied.items()
    }
    for number, group in enumerate(groups):
        kinds, accounts, txs, amounts = zip(*group, strict=True)
        whole = batch("".join(kinds), accounts, txs, amounts)
        found = desk.sort(whole)
        new = np.flatnonzero(found.statuses == Status.DURABLE)
        within = found.within if len(found.within) else np.full(len(group), NEW)
        for row, (kind, account, tx, amount) in enumerate(group):
            if kind not in "DW":
                assert found.statuses[row] == Status.DURABLE
                continue
            address = (account % SHARDS, 100 + number)
            first = model.setdefault(tx, (kind, account, amount, address))
            fresh = found.statuses[row] == Status.DURABLE
            assert fresh == (
                first[3] == address and first == (kind, account, amount, address) and within[row] == NEW
            )
            if not fresh:
                same = first[:3] == (kind, account, amount)
                assert found.statuses[row] == (Status.DUPLICATE if same else Status.CONFLICT)
                if within[row] == NEW:
                    assert (found.first.shards[row], found.first.sequences[row]) == first[3]
                else:
                    assert txs[within[row]] == tx
        appended = whole.pick(new)
        remember(
            desk,
            appended,
            appended.accounts % SHARDS,
            np.full(len(new), 100 + number),
            np.arange(len(new)) + 1,
        )
