"""What the books tell of all shards is what their journals say, read row by row."""

import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftpipe.core.entry import Entry, EntryId, Foreign, RawEntry, decode, encode, origin
from hftpipe.core.ledger import Account
from hftpipe.core.transaction import INT64_MAX, Column, Kind
from hftpipe.errors import StoreDamaged, StoreUnavailable
from hftpipe.ports import Books, Movement, Standing
from hftpipe.store import shard_book
from hftpipe.store.books import SqliteBooks
from hftpipe.store.creation import create
from hftpipe.store.sqlite import SqliteStore, shard_path
from tests.core.driver import TOPOLOGY, Row, Shard, batch_of, cut, entry_of, foreign_of

TIME_MS = 1_700_000_000_000
MANY = 1_000


def column(*values: int) -> Column:
    return np.array(values, dtype=np.int64)


# --- the plain model: a fold over the journal -------------------------------------------------------------------


@dataclass(frozen=True)
class Page:
    """A journal record: its number, entry and source, the positions of all its rows, and the movements of those that
    were decided there, or, if it is a gap, of all."""

    number: int
    entry: EntryId
    source: str
    rows: list[int]
    movements: list[Movement]
    is_gap: bool


def pages_of(path: Path, shard: int = 0) -> list[Page]:
    """The whole journal, with nothing but JSON."""
    columns = "number, entry, source, previous, time_ms, payload, outcomes"
    with closing(sqlite3.connect(path)) as connection:
        lines = connection.execute(f"SELECT {columns} FROM entries ORDER BY number").fetchall()  # noqa: S608
    return [page_of(shard, *line) for line in lines]


def page_of(
    shard: int, number: int, entry: str, source: str, previous: int, time_ms: int, payload: str, outcomes: str
) -> Page:
    entry_id, told = EntryId.parse(entry), orjson.loads(outcomes)
    rows: list[int] = []
    movements: list[Movement] = []
    if payload:
        columns = orjson.loads(payload)
        reasons = {index: reason for reason, places in told.get("refused", {}).items() for index in places}
        row = previous
        for index, kind in enumerate(columns["kind"]):
            row += columns["row"][index]
            rows.append(row)
            tx = columns["tx"][index] if columns["tx"] else None
            outcome = "gap" if "gap" in told else reasons.get(index, "applied")
            account, amount = columns["account"][index], columns["amount"][index]
            what = (Kind(kind), account, tx, amount, outcome)
            if index >= told.get("skipped", 0):
                movements.append(Movement(shard, entry_id, source, row, time_ms, *what))
    return Page(number, entry_id, source, rows, movements, "gap" in told)


class Tale:
    """Answers every question by reading the whole journal again."""

    def __init__(self, pages: Sequence[Page]) -> None:
        self.pages = pages
        self.decided = [
            (page.number, movement) for page in pages if not page.is_gap for movement in page.movements
        ]

    def taker(self, tx: int) -> Movement | None:
        moving = (Kind.DEPOSIT, Kind.WITHDRAWAL)
        return next((each for _, each in self.decided if each.tx == tx and each.kind in moving), None)

    def taken(self, txs: Column) -> dict[int, Movement]:
        takers = {tx: self.taker(tx) for tx in txs.tolist()}
        return {tx: taker for tx, taker in takers.items() if taker is not None}

    def history(self, tx: int) -> list[Movement]:
        named = [each for _, each in self.decided if each.tx == tx]
        taker = self.taker(tx)
        return named if taker is None else [taker, *(each for each in named if each is not taker)]

    def mentions(self) -> list[tuple[int, int]]:
        return sorted(
            {
                (each.tx, number)
                for number, each in self.decided
                if each.tx is not None and each is not self.taker(each.tx)
            }
        )


# --- places ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that was never written to: a copy of it is made sooner than a new one."""
    path = shard_path(tmp_path_factory.mktemp("blank"), 0)
    create(path, TOPOLOGY, 0)
    return path


class Place:
    """A home with one shard, its owner, and the books."""

    def __init__(self, home: Path, blank: Path) -> None:
        self.path = shard_path(home, 0)
        shutil.copyfile(blank, self.path)
        self.store = SqliteStore(self.path)
        self.store._connection.execute("PRAGMA synchronous=OFF")
        self.shard = Shard(self.store)
        self.books = SqliteBooks(home, 1)

    def commit(self, *entries: Entry | Foreign) -> None:
        self.shard.commit(entries)

    def rewind(self, entry: Entry | Foreign | None) -> None:
        """The log lost what came behind this entry."""
        if entry is None:
            self.store.rewind(self.shard.epoch, origin(1), "")
        else:
            self.store.rewind(self.shard.epoch, entry.id, entry.digest)
        self.shard.forget()

    def close(self) -> None:
        self.books.close()
        self.store.close()


@pytest.fixture
def place(tmp_path: Path, blank: Path) -> Iterator[Place]:
    with closing(Place(tmp_path, blank)) as place:
        yield place


@contextmanager
def statements(books: SqliteBooks) -> Iterator[list[str]]:
    """What SQLite is asked meanwhile of shard 0, which must have been opened."""
    heard: list[str] = []
    connection = books._open[0][1]._connection
    connection.set_trace_callback(heard.append)
    yield heard
    connection.set_trace_callback(None)


def outcomes(found: Sequence[Movement | None]) -> list[tuple[int, str, str] | None]:
    """Row, entry and outcome of each."""
    return [None if each is None else (each.row, str(each.entry), each.outcome) for each in found]


# --- applied and standing ---------------------------------------------------------------------------------------


def test_a_shard_without_a_store_has_applied_nothing(tmp_path: Path) -> None:
    """Until its worker makes one; nothing is made by looking."""
    with closing(SqliteBooks(tmp_path / "home", 2)) as books:
        assert (books.applied(0), books.standing(1), books.taken(1, column(1))) == (None, None, {})
        assert (books.history(1, MANY), books.rows(0, EntryId(1, 0), "s", column(1, 2))) == ([], [None, None])
        assert list(tmp_path.iterdir()) == []
        (tmp_path / "home").mkdir()
        create(shard_path(tmp_path / "home", 1), replace(TOPOLOGY, shards=2), 1)
        assert (books.applied(1), books.standing(1), books.history(1, MANY)) == (None, None, [])
        with closing(SqliteStore(shard_path(tmp_path / "home", 1))) as store:
            Shard(store).commit([entry_of(0, [("D", 1, 1, 5)])])
            assert (books.applied(0), books.applied(1)) == (None, EntryId(1, 0))


def test_the_last_entry_applied_follows_the_checkpoint(place: Place) -> None:
    """Forth with each commit, dead letters too; and back when the log lost its tail."""
    assert place.books.applied(0) is None
    first = entry_of(0, [("D", 1, 1, 5)])
    place.commit(first)
    assert place.books.applied(0) == EntryId(1, 0)
    place.commit(foreign_of(1), foreign_of(2))
    assert place.books.applied(0) == EntryId(1, 2)
    place.rewind(first)
    assert place.books.applied(0) == EntryId(1, 0)
    place.rewind(None)
    assert place.books.applied(0) is None


def test_to_ask_what_was_applied_is_one_statement(place: Place) -> None:
    """It is asked every few milliseconds."""
    place.books.applied(0)
    with statements(place.books) as heard:
        place.books.applied(0)
    assert len(heard) == 1


def test_an_account_comes_with_the_entry_that_it_stands_at(place: Place) -> None:
    """Also when that entry did not name it; an account never named is not there."""
    place.commit(
        entry_of(0, [("D", 1, 1, 5), ("D", 2, 2, 7), ("P", 2, 2, 0), ("C", 2, 2, 0), ("D", 3, 3, 9)])
    )
    place.commit(foreign_of(1))
    assert place.books.standing(1) == Standing(Account(5), 0, EntryId(1, 1))
    assert place.books.standing(2) == Standing(Account(0, 0, locked=True), 0, EntryId(1, 1))
    place.commit(entry_of(2, [("P", 3, 3, 0)], first=6))
    assert place.books.standing(3) == Standing(Account(0, 9), 0, EntryId(1, 2))
    assert place.books.standing(4) is None
    assert place.books.standing(INT64_MAX) is None


# --- ids ---------------------------------------------------------------------------------------------------------


def test_an_id_above_all_taken_ones_is_one_statement(place: Place) -> None:
    """New ids mostly are: a live source asks for each batch."""
    place.commit(entry_of(0, [("D", 1, 100, 5)]))
    place.books.applied(0)
    with statements(place.books) as heard:
        assert place.books.taken(0, column(101, 102, INT64_MAX)) == {}
    assert len(heard) == 1


def test_the_taker_of_an_id_is_told_whatever_became_of_it(place: Place) -> None:
    """Applied, or refused and still taken; early, late, and beside rows that only name it."""
    place.commit(entry_of(0, [("P", 1, 50, 0), ("D", 1, 50, 5), ("W", 1, 50, 1), ("W", 1, 60, 9)]))
    place.commit(entry_of(1, [("D", 2, 55, 8), ("W", 1, 60, 9), ("D", 1, 70, 2)], first=5))
    told = place.books.taken(0, column(1, 50, 55, 56, 60, 70, 71))
    expected = {
        50: (2, "1-0", Kind.DEPOSIT, 1, 5, "applied"),
        55: (5, "1-1", Kind.DEPOSIT, 2, 8, "applied"),
        60: (4, "1-0", Kind.WITHDRAWAL, 1, 9, "insufficient_funds"),
        70: (7, "1-1", Kind.DEPOSIT, 1, 2, "applied"),
    }
    assert told == {
        tx: Movement(0, EntryId.parse(entry), "source", row, TIME_MS, kind, account, tx, amount, outcome)
        for tx, (row, entry, kind, account, amount, outcome) in expected.items()
    }


def test_an_id_may_be_asked_twice_at_once(place: Place) -> None:
    """It is no sign of damage."""
    place.commit(entry_of(0, [("D", 1, 5, 5), ("D", 1, 6, 5)]))
    assert list(place.books.taken(0, column(5, 5, 6, 7, 7))) == [5, 6]


def test_the_history_of_an_id_begins_with_its_taker(place: Place) -> None:
    """Then all others in their order: the dispute that came too soon, disputes, and repeats that were refused."""
    place.commit(entry_of(0, [("P", 1, 7, 0), ("D", 9, 1, 1)]))
    place.commit(entry_of(1, [("R", 1, 7, 0), ("D", 1, 7, 5), ("P", 1, 7, 0)], first=3))
    place.commit(entry_of(2, [("P", 1, 7, 0), ("D", 2, 7, 6), ("R", 1, 7, 0)], first=5))
    assert outcomes(place.books.history(7, MANY)) == [
        (4, "1-1", "applied"),
        (1, "1-0", "unknown_tx"),
        (3, "1-1", "unknown_tx"),
        (5, "1-1", "applied"),
        (6, "1-2", "duplicate_tx"),
        (7, "1-2", "applied"),
    ]
    assert place.books.history(8, MANY) == []
    whole = place.books.history(7, MANY)
    assert [place.books.history(7, count) for count in range(7)] == [whole[:count] for count in range(7)]


def test_an_id_that_was_only_disputed_has_a_history(place: Place) -> None:
    """Nobody took it, above and below those that are taken."""
    place.commit(entry_of(0, [("D", 1, 5, 1), ("P", 1, 3, 0), ("P", 1, 9, 0)]))
    assert outcomes(place.books.history(3, MANY)) == [(2, "1-0", "unknown_tx")]
    assert outcomes(place.books.history(9, MANY)) == [(3, "1-0", "unknown_tx")]


def test_a_history_goes_shard_by_shard(tmp_path: Path) -> None:
    """The shards that have a store, each with its taker first."""
    for shard in (0, 2):
        path = shard_path(tmp_path, shard)
        create(path, replace(TOPOLOGY, shards=3), shard)
        with closing(SqliteStore(path)) as store:
            rows: list[Row] = [("P", shard, 7, 0), ("D", shard, 7, 5 + shard)]
            Shard(store).commit([entry_of(0, rows)])
    with closing(SqliteBooks(tmp_path, 3)) as books:
        told = [(each.shard, each.kind, each.amount) for each in books.history(7, MANY)]
        standing = books.standing(5)
    assert told == [
        (0, Kind.DEPOSIT, 5),
        (0, Kind.DISPUTE, 0),
        (2, Kind.DEPOSIT, 7),
        (2, Kind.DISPUTE, 0),
    ]
    assert standing is None


# --- rows --------------------------------------------------------------------------------------------------------


def test_rows_are_told_where_they_stand(place: Place) -> None:
    """By their position in the source, as asked; other sources, other positions and dead letters have none."""
    place.commit(
        foreign_of(0),
        entry_of(
            1, [("D", 1, None, 5), ("W", 1, None, 9), ("W", 1, None, 2)], positions=[10, 20, 30], previous=0
        ),
    )
    told = place.books.rows(0, EntryId(1, 1), "source", column(5, 10, 20, 25, 30, 40))
    assert outcomes(told) == [
        None,
        (10, "1-1", "applied"),
        (20, "1-1", "insufficient_funds"),
        None,
        (30, "1-1", "applied"),
        None,
    ]
    assert told[1] == Movement(0, EntryId(1, 1), "source", 10, TIME_MS, Kind.DEPOSIT, 1, None, 5, "applied")
    for entry, source in ((EntryId(1, 1), "other"), (EntryId(1, 0), "source"), (EntryId(1, 0), "")):
        assert place.books.rows(0, entry, source, column(10)) == [None]
    assert place.books.rows(0, EntryId(1, 1), "source", column()) == []


@pytest.mark.parametrize(
    "entry", [EntryId(1, 2), EntryId(1, 10**12), EntryId(1, INT64_MAX - 1), EntryId(2, 1), origin(1)]
)
def test_rows_of_an_entry_that_is_not_applied_are_not_found(place: Place, entry: EntryId) -> None:
    """Not yet there, of another generation, or none at all."""
    assert place.books.rows(0, entry, "source", column(1)) == [None]
    place.commit(foreign_of(0), entry_of(1, [("D", 1, 1, 5)]))
    assert place.books.rows(0, entry, "source", column(1)) == [None]


def test_a_skipped_row_is_told_where_it_was_applied(place: Place) -> None:
    """Under earlier entries of its source, cut in another way, with others between."""
    place.commit(entry_of(0, [("D", 1, 1, 5), ("W", 1, 2, 9)]))
    place.commit(entry_of(1, [("D", 1, 8, 5)], source="other"), entry_of(2, [("D", 1, 3, 5)], first=3))
    rows: list[Row] = [("D", 1, 1, 5), ("W", 1, 2, 9), ("D", 1, 3, 5), ("D", 1, 4, 5)]
    place.commit(entry_of(3, rows), entry_of(4, rows))
    for again in (3, 4):
        assert outcomes(place.books.rows(0, EntryId(1, again), "source", column(1, 2, 3, 4))) == [
            (1, "1-0", "applied"),
            (2, "1-0", "insufficient_funds"),
            (3, "1-2", "applied"),
            (4, "1-3", "applied"),
        ]


def test_only_records_that_may_tell_of_a_row_are_read(place: Place) -> None:
    """Rows that stand nowhere, and those found already, let no record be decoded in vain."""
    place.commit(*(entry_of(number, [("D", 1, number, 5)], first=number + 1) for number in range(50)))
    place.books.applied(0)
    with statements(place.books) as heard:
        told = place.books.rows(0, EntryId(1, 49), "source", column(0, 20, 50, 99))
    assert outcomes(told) == [None, (20, "1-19", "applied"), (50, "1-49", "applied"), None]
    assert sum("payload" in statement for statement in heard) == 2


def test_the_look_back_is_bounded(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that was applied long ago is not found rather than looked for through all the journal."""
    monkeypatch.setattr(shard_book, "LOOK_BACK_RECORDS_MAX", 3)
    place.commit(entry_of(0, [("D", 1, 1, 5)]), foreign_of(1), foreign_of(2))
    place.commit(entry_of(3, [("D", 1, 1, 5)]), entry_of(4, [("D", 1, 1, 5)]))
    assert outcomes(place.books.rows(0, EntryId(1, 3), "source", column(1))) == [(1, "1-0", "applied")]
    assert place.books.rows(0, EntryId(1, 4), "source", column(1)) == [None]


def test_rows_of_a_gap_are_told_as_such(place: Place) -> None:
    """Rows of their source are missing before them: none was decided."""
    place.commit(entry_of(0, [("D", 1, 1, 5)]), entry_of(1, [("D", 1, 3, 5), ("D", 1, 4, 5)], first=3))
    gap = place.books.rows(0, EntryId(1, 1), "source", column(3, 4))
    assert outcomes(gap) == [(3, "1-1", "gap"), (4, "1-1", "gap")]
    assert place.books.taken(0, column(3, 4)) == {}
    assert place.books.history(3, MANY) == []


def test_rows_are_found_after_the_log_lost_its_tail(place: Place) -> None:
    """Again and again: journal numbers then run ahead of entry ids, and an id stands there for several entries."""
    first = entry_of(0, [("D", 1, 100, 5)])
    place.commit(
        first, *(entry_of(number, [("D", 1, 100 + number, 5)], first=number + 1) for number in range(1, 4))
    )
    for turn, source in enumerate("abc", 1):
        place.rewind(first)
        entries = [
            entry_of(number, [("D", 1, 1_000 * turn + number, 5)], first=number, source=source)
            for number in range(1, 3 + turn)
        ]
        place.commit(*entries)
    books = place.books
    assert outcomes(books.rows(0, EntryId(1, 0), "source", column(1))) == [(1, "1-0", "applied")]
    for source, count in (("a", 3), ("b", 4), ("c", 5)):
        for number in range(1, count):
            told = books.rows(0, EntryId(1, number), source, column(number))
            assert outcomes(told) == [(number, f"1-{number}", "applied")], source
    assert outcomes(books.rows(0, EntryId(1, 3), "source", column(4))) == [(4, "1-3", "applied")]
    assert outcomes(books.rows(0, EntryId(1, 2), "a", column(1, 2))) == [
        (1, "1-1", "applied"),
        (2, "1-2", "applied"),
    ]


def test_an_entry_that_was_lost_and_not_given_again_is_found(place: Place) -> None:
    """The checkpoint lies before it, the journal still holds it."""
    entries = [entry_of(number, [("D", 1, number, 5)], first=number + 1) for number in range(4)]
    place.commit(*entries)
    place.rewind(entries[0])
    place.commit(entry_of(1, [("D", 1, 9, 5)], source="a"))
    assert outcomes(place.books.rows(0, EntryId(1, 3), "source", column(4))) == [(4, "1-3", "applied")]


# --- files -------------------------------------------------------------------------------------------------------


def test_a_file_that_was_replaced_or_removed_is_not_read_on(place: Place, tmp_path: Path) -> None:
    """The one that has its name now is; without it the shard has applied nothing."""
    place.commit(entry_of(0, [("D", 1, 1, 5)]))
    assert place.books.applied(0) == EntryId(1, 0)
    place.store.close()
    log, aside = place.path.with_name(f"{place.path.name}-wal"), tmp_path / "aside.db"
    place.path.rename(aside)
    log.rename(f"{aside}-wal")
    assert (place.books.applied(0), place.books.standing(1)) == (None, None)
    create(place.path, TOPOLOGY, 0)
    assert place.books.applied(0) is None
    aside.rename(place.path)
    Path(f"{aside}-wal").rename(log)
    assert place.books.applied(0) == EntryId(1, 0)


def test_who_closes_last_leaves_the_file_alone_whole(place: Place) -> None:
    """The books, too: after a clean stop a copy of the file is a copy of the shard."""
    place.commit(entry_of(0, [("D", 1, 1, 5)]))
    assert place.books.applied(0) == EntryId(1, 0)
    place.store.close()
    place.books.close()
    assert list(place.path.parent.iterdir()) == [place.path]


def test_another_thread_may_go_on_with_the_books(place: Place) -> None:
    """One at a time: a pool does not always give the same one."""
    place.commit(entry_of(0, [("D", 1, 1, 5)]))
    assert place.books.applied(0) == EntryId(1, 0)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(place.books.applied, 0).result() == EntryId(1, 0)
        assert pool.submit(place.books.taken, 0, column(1)).result() == place.books.taken(0, column(1))


def test_the_books_write_nothing(place: Place) -> None:
    """Whatever they are asked to."""
    place.books.applied(0)
    connection = place.books._open[0][1]._connection
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        connection.execute("UPDATE shard SET epoch = 7")


def test_open_books_do_not_hold_up_the_owners_write_ahead_log(place: Place) -> None:
    """After any question it can be folded into the file whole, and begun anew."""
    rows: list[Row] = [("D", 1, tx, 5) for tx in range(1, 50)]
    place.commit(entry_of(0, [*rows, ("P", 1, 7, 0)]), entry_of(1, rows))
    books: Books = place.books
    for _ in range(2):
        books.applied(0)
        books.standing(1)
        books.taken(0, column(7, 8))
        books.history(7, MANY)
        books.rows(0, EntryId(1, 0), "source", column(1, 2))
        books.rows(0, EntryId(1, 1), "source", column(1, 2))
        folded = place.store._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        assert folded == (0, 0, 0)


@pytest.mark.parametrize(("shard", "shards"), [(0, 2), (1, 2), (1, 1)])
def test_the_file_of_another_shard_or_number_of_shards_is_refused(
    tmp_path: Path, shard: int, shards: int
) -> None:
    """Its accounts would be looked for in the wrong place."""
    create(shard_path(tmp_path, shard), replace(TOPOLOGY, shards=shards), shard)
    shard_path(tmp_path, shard).rename(shard_path(tmp_path, 0))
    with closing(SqliteBooks(tmp_path, 1)) as books:
        for _ in range(2):
            with pytest.raises(StoreDamaged, match=f"is shard {shard} of {shards}, and not shard 0 of 1"):
                books.applied(0)


def test_a_schema_of_another_version_is_refused_by_name(place: Place) -> None:
    """As its owner does."""
    place.store._connection.execute("PRAGMA user_version = 2")
    with pytest.raises(StoreDamaged, match="schema version 2; this program reads 4"):
        place.books.applied(0)


def test_a_file_that_is_no_store_is_damage_until_it_is_one(tmp_path: Path) -> None:
    """The same books read it when it was put right."""
    path = shard_path(tmp_path, 0)
    path.write_text("client,available,held\n" * 1_000)
    with closing(SqliteBooks(tmp_path, 1)) as books:
        with pytest.raises(StoreDamaged, match=path.name):
            books.applied(0)
        path.unlink()
        create(path, TOPOLOGY, 0)
        assert books.applied(0) is None


def test_a_home_that_cannot_be_looked_at_is_a_passing_fault(tmp_path: Path) -> None:
    """A file stands where the folder should."""
    (tmp_path / "home").write_bytes(b"")
    with closing(SqliteBooks(tmp_path / "home", 1)) as books, pytest.raises(StoreUnavailable, match="home"):
        books.applied(0)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE entries SET payload = 'x' WHERE number = 2",
        "UPDATE entries SET entry = 'x' WHERE number = 2",
        "UPDATE entries SET outcomes = '' WHERE number = 2",
        "UPDATE entries SET outcomes = '{\"skipped\":1}' WHERE number = 2",
        "UPDATE entries SET payload = replace(payload, '[11]', '[12]') WHERE number = 2",
        "DELETE FROM entries WHERE number = 2",
        "UPDATE taken_ids SET count = 2 WHERE entry = 2",
    ],
)
def test_a_damaged_record_is_damage(place: Place, damage: str) -> None:
    """Never a traceback, and never an id that counts as free."""
    place.commit(entry_of(0, [("D", 1, 10, 1)]), entry_of(1, [("D", 1, 11, 1)], first=2))
    with closing(sqlite3.connect(place.path)) as connection, connection:
        assert connection.execute(damage).rowcount == 1
    with pytest.raises(StoreDamaged, match=r"shard-0000\.db"):
        place.books.taken(0, column(11))
    with pytest.raises(StoreDamaged, match=r"shard-0000\.db"):
        place.books.history(11, MANY)
    assert len(place.books.taken(0, column(10))) == 1


def test_a_checkpoint_that_is_no_entry_id_is_damage(place: Place) -> None:
    """It is not a worker's."""
    place.store._connection.execute("UPDATE shard SET checkpoint = 'x'")
    with pytest.raises(StoreDamaged, match="no entry id"):
        place.books.applied(0)


# --- any history -------------------------------------------------------------------------------------------------


class Producers:
    """Three sources, the last without ids, whose entries overlap, leave gaps, and follow on a log that loses its tail.

    A row of a source is the same whenever it is sent; its position is twice its place, so that some stand for nothing.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows
        self._sent = dict.fromkeys("abc", 0)
        self.log: list[Entry | Foreign] = []

    def send(self, source: str, count: int, back: int, ahead: int) -> None:
        """back: so many rows are sent again. ahead: so many are left out, and not sent later unless sent again."""
        start = max(0, self._sent[source] - back) + ahead
        rows = [self._row(source, place) for place in range(start, start + count)]
        batch = batch_of(rows, [2 * place for place in range(start + 1, start + count + 1)])
        raw = RawEntry(EntryId(1, len(self.log)), encode(source, 2 * start, batch, len(self.log)))
        entry = decode(raw, 0, 1)
        assert isinstance(entry, Entry)
        self.log.append(entry)
        if not ahead:
            self._sent[source] = max(self._sent[source], start + count)

    def bury(self) -> None:
        self.log.append(foreign_of(len(self.log)))

    def lose(self, count: int) -> Entry | Foreign | None:
        """Loses the last entries; what is the last one then. Producers go back by as many rows."""
        del self.log[max(0, len(self.log) - count) :]
        self._sent = {source: max(0, sent - count) for source, sent in self._sent.items()}
        return self.log[-1] if self.log else None

    def _row(self, source: str, place: int) -> Row:
        kind, account, tx, amount = self._rows[(place + 7 * "abc".index(source)) % len(self._rows)]
        return (
            ("D" if kind in "PRC" else kind, account, None, amount + 1)
            if source == "c"
            else (kind, account, tx, amount)
        )


any_row = st.tuples(
    st.sampled_from("DDDWPPRC"), st.integers(0, 3), st.integers(0, 30), st.integers(1, 9)
).map(lambda row: (row[0], row[1], row[2], row[3] if row[0] in "DW" else 0))
any_step = st.one_of(
    st.tuples(
        st.just("send"),
        st.sampled_from("aaabc"),
        st.integers(1, 6),
        st.sampled_from([0, 0, 0, 1, 4]),
        st.sampled_from([0, 0, 0, 1]),
    ),
    st.just(("bury",)),
    st.tuples(st.just("lose"), st.integers(1, 5)),
)


def drive(place: Place, rows: Sequence[Row], steps: Sequence[tuple[Any, ...]], commits_cut: set[int]) -> None:
    """Sends, and commits in some pieces; when the log loses its tail, all that was sent before is applied already."""
    producers, applied = Producers(rows), 0

    def commit() -> None:
        nonlocal applied
        if applied < len(producers.log):
            place.commit(*producers.log[applied:])
        applied = len(producers.log)

    for piece in cut(len(steps), commits_cut):
        for what, *how in steps[piece.start : piece.stop]:
            if what == "lose":
                commit()
                place.rewind(producers.lose(*how))
                applied = len(producers.log)
            else:
                getattr(producers, str(what))(*how)
        commit()


def check(place: Place) -> None:
    """Every question about every id, row and entry that there is, and some beside them."""
    pages = pages_of(place.path)
    tale, books = Tale(pages), place.books
    with closing(sqlite3.connect(place.path)) as connection:
        assert connection.execute("SELECT tx, entry FROM mentions").fetchall() == tale.mentions()
    every = column(*range(33))
    assert books.taken(0, every) == tale.taken(every)
    for tx in range(33):
        assert books.taken(0, column(tx)) == tale.taken(column(tx))
        assert books.history(tx, MANY) == tale.history(tx)
    decided = {(each.source, each.row): each for _, each in tale.decided}
    for page in pages:
        told = books.rows(0, page.entry, page.source, column(*page.rows))
        expected = [decided.get((page.source, row)) for row in page.rows]
        if page.is_gap:  # decided meanwhile, perhaps in another entry of that id, or not
            pairs = zip(told, expected, strict=True)
            assert all(one is not None and (one.outcome == "gap" or one == other) for one, other in pairs)
        else:
            assert told == expected


@settings(deadline=None, max_examples=120)
@given(
    st.lists(any_row, min_size=5, max_size=40),
    st.lists(any_step, min_size=1, max_size=25),
    st.sets(st.integers(1, 24), max_size=8),
)
def test_the_books_tell_what_the_journal_says(
    blank: Path, rows: list[Row], steps: list[tuple[Any, ...]], commits_cut: set[int]
) -> None:
    """Any mix of kinds, repeats and disputes; entries sent again, gaps, dead letters, and a log that loses its tail."""
    with TemporaryDirectory() as folder, closing(Place(Path(folder), blank)) as place:
        drive(place, rows, steps, commits_cut)
        check(place)
