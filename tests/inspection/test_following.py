"""What is committed is handed out once, whatever happens to the home meanwhile."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from hftpipe.inspection.following import WAIT_S_MAX, WAIT_S_MIN, HomeFollower, idle_wait_s
from hftpipe.ports import Movement
from hftpipe.store.following import LOOK_BACK_RECORDS_MAX, Sort
from hftpipe.store.sqlite import shard_path
from tests.core.driver import Row
from tests.inspection.prepared import TIME_MS, Books


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Books]:
    """A pipeline of two shards: even accounts are in shard 0."""
    with closing(Books(tmp_path / "home", shards=2)) as books:
        yield books


class Watcher:
    """Follows a home, and keeps what was reported."""

    def __init__(self, books: Books, sort: Sort = Sort(), shards: tuple[int, ...] = ()) -> None:  # noqa: B008
        self.reports: list[str] = []
        self.follower = HomeFollower(books.home, shards, sort, self.reports.append)

    def last(self, count: int) -> list[int | None]:
        return ids(self.follower.last(count))

    def look(self) -> list[int | None]:
        return ids([movement for part in self.follower.look() for movement in part])


def ids(movements: list[Movement]) -> list[int | None]:
    return [movement.tx for movement in movements]


def deposits(first: int, count: int, account: int = 0) -> list[Row]:
    return [("D", account, tx, 1) for tx in range(first, first + count)]


def test_the_last_ones_come_first_and_then_what_is_new(books: Books) -> None:
    """By the time of their append, from all shards; none twice, none left out."""
    books.add(deposits(1, 3), deposits(4, 2))
    books.add(deposits(101, 2, account=1), shard=1)
    watcher = Watcher(books)
    assert watcher.last(4) == [101, 102, 4, 5]
    assert watcher.look() == []
    books.add(*[deposits(10 * number, 2) for number in range(1, 41)])
    books.add(deposits(103, 1, account=1), shard=1)
    found = watcher.look()
    assert sorted(tx for tx in found if tx is not None) == sorted(
        [103, *(10 * number + each for number in range(1, 41) for each in (0, 1))]
    )
    assert watcher.look() == []
    watcher.follower.close()


def test_the_order_of_a_shard_stays_where_its_producers_clocks_do_not_agree(books: Books) -> None:
    """The time of an append is that of whoever appended: what he had 1 s too early was decided when it was decided."""
    late = [books.entry(deposits(tx, 1), time_ms=TIME_MS - 1_000 * tx) for tx in range(1, 4)]
    watcher = Watcher(books)
    assert watcher.last(9) == []
    books.commit(*late)
    books.add(deposits(101, 1, account=1), shard=1)
    assert [tx for tx in watcher.look() if tx != 101] == [1, 2, 3]
    assert [tx for tx in Watcher(books).last(9) if tx != 101] == [1, 2, 3]
    watcher.follower.close()


def test_a_home_and_shards_that_appear_later_are_followed_from_their_beginning(books: Books) -> None:
    """And a home that is not there yet is no error."""
    watcher = Watcher(books)
    assert (watcher.last(10), watcher.look()) == ([], [])
    books.add(deposits(1, 2))
    assert watcher.look() == [1, 2]
    books.add(deposits(101, 1, account=1), shard=1)
    assert watcher.look() == [101]
    assert watcher.reports == []
    watcher.follower.close()


@pytest.mark.parametrize(
    ("sort", "shards", "last", "new"),
    [
        (Sort(account=2), (), [2, 9], [12]),
        (Sort(outcome="applied"), (), [1, 2, 101], [11, 12]),
        (Sort(outcome="refused"), (), [3, 9], [13]),
        (Sort(outcome="insufficient_funds"), (), [3], []),
        (Sort(account=2, outcome="unknown_tx"), (), [9], []),
        (Sort(), (1,), [101], []),
        (Sort(account=1), (0,), [], []),
    ],
)
def test_only_what_is_wanted_is_handed_out(
    books: Books, sort: Sort, shards: tuple[int, ...], last: list[int], new: list[int]
) -> None:
    """Of an account, an outcome, or some shards."""
    books.add([("D", 0, 1, 5), ("D", 2, 2, 5), ("W", 0, 3, 9), ("P", 2, 9, 0)])
    books.add(deposits(101, 1, account=1), shard=1)
    watcher = Watcher(books, sort, shards)
    assert watcher.last(10) == last
    books.add([("D", 0, 11, 5), ("D", 2, 12, 5), ("P", 0, 13, 0)])
    assert watcher.look() == new
    watcher.follower.close()


def test_what_was_skipped_set_aside_or_left_alone_is_not_handed_out(books: Books) -> None:
    """Only what was decided, where it was decided."""
    watcher = Watcher(books)
    assert watcher.last(1) == []
    first, lost, behind = (books.entry(deposits(tx, 2)) for tx in (1, 3, 5))
    books.commit(first, books.foreign(), behind)
    assert lost.position == behind.previous
    assert watcher.look() == [1, 2]
    watcher.follower.close()


def test_the_last_ones_of_a_quiet_account_are_found_far_back(books: Books) -> None:
    """By the columns of accounts, not record by record."""
    books.add(deposits(1, 2, account=2))
    books.commit(*[books.entry(deposits(tx, 1)) for tx in range(10, 10 + LOOK_BACK_RECORDS_MAX)])
    watcher = Watcher(books, Sort(account=2))
    assert watcher.last(10) == [1, 2]
    watcher.follower.close()


def test_a_shard_that_was_replaced_is_followed_on(books: Books, tmp_path: Path) -> None:
    """Another pipeline's from its beginning; the same one's, rebuilt, from where it was."""
    books.add(deposits(1, 2), deposits(3, 1))
    watcher = Watcher(books)
    assert watcher.last(1) == [3]
    books.close()
    for each in books.home.glob("shard-0000.db*"):  # with the write-ahead log, which the watcher holds
        each.rename(tmp_path / each.name)
    assert watcher.look() == []
    with closing(Books(books.home, shards=2)) as rebuilt:
        rebuilt.add(deposits(1, 2), deposits(3, 1), deposits(4, 1))
        assert watcher.look() == [4]
    for each in books.home.glob("shard-0000.db*"):
        each.unlink()
    with closing(Books(books.home, shards=2, pipeline="another")) as other:
        other.add(deposits(1, 1))
        assert watcher.look() == [1]
    assert watcher.reports == []
    watcher.follower.close()


def test_a_damaged_shard_is_reported_once_and_the_others_go_on(books: Books) -> None:
    """And it is followed again when it can be read again."""
    books.add(deposits(1, 1))
    books.add(deposits(101, 1, account=1), shard=1)
    watcher = Watcher(books)
    assert watcher.last(10) == [1, 101]
    books.add(deposits(2, 1))
    books.add(deposits(102, 1, account=1), shard=1)
    with closing(sqlite3.connect(shard_path(books.home, 0))) as connection:
        with connection:
            connection.execute("UPDATE entries SET digest = payload, payload = 'x' WHERE number = 2")
        assert (watcher.look(), watcher.look()) == ([102], [])
        assert len(watcher.reports) == 1
        assert "shard 0 cannot be followed now" in watcher.reports[0]
        with connection:
            connection.execute("UPDATE entries SET payload = digest WHERE number = 2")
    assert watcher.look() == [2]
    watcher.follower.close()


def test_an_idle_follower_looks_seldom_where_a_look_takes_long() -> None:
    """A hundredth of the time, between bounds."""
    assert idle_wait_s(0.0) == WAIT_S_MIN
    assert idle_wait_s(0.01) == pytest.approx(1.0)
    assert idle_wait_s(60.0) == WAIT_S_MAX
