"""A walk shows every transaction as it was decided, whichever way one came to it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from hftpipe.audit.explain import Explained
from hftpipe.audit.material import Recording, opened
from hftpipe.audit.parallel import Progress
from hftpipe.audit.walk import PLACES_MAX, Walk
from hftpipe.audit.walker import View, Walker
from hftpipe.audit.window import Origin, Window
from hftpipe.core.entry import Entry, EntryId, Foreign
from hftpipe.core.picked_ledger import Wanted
from hftpipe.errors import Interrupted, StoreDamaged, UsageError
from hftpipe.store.sqlite import shard_path
from tests.audit.prepared import SHARDS, Prepared


def recording(prepared: Prepared) -> Recording:
    return Recording(prepared.home, SHARDS, Window(), Origin.JOURNAL)


@contextmanager
def walking(prepared: Prepared, folder: Path, place_transactions: int = 200) -> Iterator[Walk]:
    folder.mkdir()
    with opened(recording(prepared), 0) as material:
        walk = Walk(0, material, folder, lambda _: None, place_transactions)
        yield walk
        walk.close()


@pytest.fixture
def walker(prepared: Prepared, tmp_path: Path) -> Iterator[Walker]:
    walker = Walker(recording(prepared), range(SHARDS), tmp_path, lambda _: None)
    yield walker
    walker.close()


def told(rows: list[Explained]) -> list[tuple[object, ...]]:
    """All but the words: who locked an account is told as far as it was seen."""
    return [(row.address, row.row, row.outcome, row.before, row.after, row.dispute_after) for row in rows]


def test_any_entry_is_the_same_by_any_way(prepared: Prepared, tmp_path: Path) -> None:
    random = Random(7)
    with walking(prepared, tmp_path / "straight") as walk:
        count = walk.material.records
        straight = {number: told(walk.entry(number).rows) for number in range(1, count + 1)}
        assert len(list((tmp_path / "straight").glob("place-*"))) in range(2, PLACES_MAX + 2)
    with walking(prepared, tmp_path / "about", place_transactions=60) as walk:
        walk._remembered.clear()
        for number in [count, 1, count // 2, *random.sample(range(1, count + 1), 12), 2, 1]:
            assert told(walk.entry(number).rows) == straight[number], number
        assert len(list((tmp_path / "about").glob("place-*"))) <= PLACES_MAX + 1


def test_rows_are_found_forward_and_back(prepared: Prepared, tmp_path: Path) -> None:
    with walking(prepared, tmp_path / "walk") as walk:
        places = [
            (number, index, row.account)
            for number in range(1, walk.material.records + 1)
            for index, row in enumerate(walk.entry(number).rows)
        ]
        account = places[len(places) // 2][2]
        expected = [(number, index) for number, index, named in places if named == account]
        wanted = Wanted(accounts={account})
        found, at = [], (1, -1)
        while (next_one := walk.find(wanted, *at)) is not None:
            found.append(at := next_one)
        assert found == expected
        back = [at]
        while (before := walk.find(wanted, *back[-1], is_back=True)) is not None:
            back.append(before)
        assert back[::-1] == expected


def test_it_goes_forward_and_back_through_all_transactions(walker: Walker) -> None:
    views = [walker.begin()]
    while not (view := walker.next()).note:
        views.append(view)
    assert view.note == "this is the last entry of the shard"
    assert len(views) == len({(view.told.number, view.index) for view in views})
    assert [view.told.number for view in views if view.index == 0] == list(range(1, view.records + 1))
    for expected in views[-2::-1]:
        there = walker.previous()
        assert (there.told.number, there.index) == (expected.told.number, expected.index)
    assert walker.previous().note == "this is the first transaction of the shard"
    assert (walker.last().told.number, walker.first().told.number) == (view.records, 1)


def test_it_goes_to_an_entry_an_account_and_an_id(walker: Walker) -> None:
    walker.begin()
    assert address(walker.go("1/1-3")) == "1/1-3"
    assert address(walker.go(" 1-2 ")) == "1/1-2"
    row = walker.go("tx 9000000000000000003").row
    assert row is not None
    assert (row.account, row.tx, row.source) == (6, 9000000000000000003, "disputes")
    there = walker.go("account 5")
    assert there.row is not None
    assert (there.row.account, there.shard) == (5, 1)
    again = walker.go("a5")
    assert (again.told.number, again.index) > (there.told.number, there.index)


def address(view: View) -> str:
    return f"{view.shard}/{view.told.entry.id}"


def test_an_id_of_another_generation_is_not_taken_for_it(prepared: Prepared, tmp_path: Path) -> None:
    """Where the numbers alone would fit."""
    with opened(recording(prepared), 0) as material:

        def entries(first: int, last: int) -> Iterator[Entry | Foreign]:
            for number, entry in enumerate(material.entries(first, last), first):
                yield replace(entry, id=EntryId(1 if number <= 3 else 2, number - 1))

        walk = Walk(0, replace(material, entries=entries), tmp_path, lambda _: None)
        sought = [(1, 2), (1, 3), (2, 2), (2, 3), (2, material.records), (2, -1)]
        assert [walk.number_of(EntryId(*entry_id)) for entry_id in sought] == [3, None, None, 4, None, None]
        walk.close()


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("1-999", "entry 0/1-999 is not among those that are replayed"),
        ("7/1-1", "entry 7/1-1 is one of shard 7, which is not walked"),
        ("nonsense", "is no address of an entry"),
        ("account 999998", "no transaction that is replayed names account 999998"),
        ("tx 123456789", "no transaction that is replayed names tx 123456789"),
    ],
)
def test_where_nothing_is_it_stays(walker: Walker, target: str, told: str) -> None:
    before = walker.begin()
    with pytest.raises(UsageError, match=told):
        walker.go(target)
    assert walker.next().index == before.index + 1


def test_it_keeps_to_one_account_until_told_otherwise(walker: Walker) -> None:
    walker.begin()
    views = [walker.keep_to(4)]
    while not (view := walker.next()).note:
        views.append(view)
    assert {view.row.account for view in views if view.row is not None} == {4}
    assert address(walker.first()) == address(views[0])
    assert (walker.last().index, address(walker.last())) == (views[-1].index, address(views[-1]))
    assert walker.previous().row == views[-2].row
    with pytest.raises(UsageError):
        walker.keep_to(999998)
    assert walker.wanted == Wanted(accounts={4})
    assert walker.keep_to(None).row == views[-2].row
    following = walker.next()
    assert (following.told.number, following.index) == after(views[-2])


def after(view: View) -> tuple[int, int]:
    is_last = view.index + 1 == len(view.told.rows)
    return (view.told.number + 1, 0) if is_last else (view.told.number, view.index + 1)


def test_the_shards_come_in_turn(walker: Walker) -> None:
    assert [walker.begin().shard, walker.next_shard().shard, walker.next_shard().shard] == [0, 1, 0]


def test_a_shard_that_cannot_be_opened_is_passed_over_until_it_can(
    prepared: Prepared, tmp_path: Path
) -> None:
    copied = prepared.copy(tmp_path / "home")
    path = shard_path(copied.home, 1)
    whole = path.read_bytes()
    path.write_bytes(b"nothing of that kind" * 999)
    walker = Walker(recording(copied), range(SHARDS), tmp_path, lambda _: None)
    here = walker.begin()
    for _ in range(2):
        view = walker.next_shard()
        assert (view.shard, view.told) == (0, here.told)
        assert f"shard 1 is passed over: {path} is damaged" in view.note
        with pytest.raises(StoreDamaged):
            walker.go("1/1-3")
    path.write_bytes(whole)
    view = walker.next_shard()
    assert (view.shard, view.note) == (1, "")
    walker.close()


def test_a_walk_that_is_stopped_on_the_way_stands_where_it_did(prepared: Prepared, tmp_path: Path) -> None:
    stopped: list[bool] = []

    def tell(_: Progress) -> None:
        if stopped:
            raise Interrupted("stopped")

    walker = Walker(recording(prepared), [0], tmp_path, tell)
    here = walker.begin()
    stopped.append(True)
    with pytest.raises(Interrupted):
        walker.last()
    stopped.clear()
    assert (walker.next().told.number, walker.previous()) == (here.told.number, here)
    assert walker.last().told.number == here.records
    walker.close()


def test_a_dead_letter_has_no_transactions(walker: Walker) -> None:
    view = walker.begin()
    while view.row is not None:
        view = walker.next_entry()
    assert not view.told.rows
    assert walker.next().row is not None
    assert walker.previous().row is None
