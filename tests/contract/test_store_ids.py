"""Ids by range, by late row and by packed column: SQLite answers as the plain dictionary of the memory store does."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftpipe.core.columnar_ledger import ColumnarLedger
from hftpipe.core.entry import Entry, EntryId, Foreign, RawEntry, decode, encode
from hftpipe.core.ledger import Ledger, Needs
from hftpipe.core.snapshot import Tables
from hftpipe.core.transaction import INT64_MAX
from hftpipe.errors import StoreDamaged
from hftpipe.store import reading
from hftpipe.store.creation import create
from hftpipe.store.memory import MemoryStore
from hftpipe.store.sqlite import SqliteStore, shard_path
from tests.core.driver import TOPOLOGY, Row, Shard, batch_of, cut, entry_of, foreign_of

Rows = list[tuple[str, Row]]
"""Source and row."""


@pytest.fixture(scope="module")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that was never written to: a copy of it is made sooner than a new one."""
    path = shard_path(tmp_path_factory.mktemp("blank"), 0)
    create(path, TOPOLOGY, 0)
    return path


@contextmanager
def new_store(blank: Path) -> Iterator[tuple[Path, SqliteStore]]:
    """A store of its own; the disk is not waited for."""
    with TemporaryDirectory() as folder:
        path = shard_path(Path(folder), 0)
        shutil.copyfile(blank, path)
        with closing(SqliteStore(path)) as store:
            store._connection.execute("PRAGMA synchronous=OFF")
            yield path, store


class Twins:
    """Two stores that are fed the same commits."""

    def __init__(self, store: SqliteStore) -> None:
        self.memory, self.sqlite = MemoryStore(TOPOLOGY, 0), store
        self.shard = Shard(self.memory)
        epoch = store.take("owner", store.ownership())
        assert epoch is not None
        self.epoch = epoch

    def commit(self, entries: Sequence[Entry | Foreign]) -> None:
        commit = self.shard.post(entries)
        self.sqlite.commit(self.epoch, commit)
        self.memory.commit(self.shard.epoch, commit)

    def check(self, needs: Needs) -> None:
        """Both know the same."""
        assert self.sqlite.facts(needs) == self.memory.facts(needs)


def entries_of(rows: Rows, sizes: Sequence[int], overlaps: Sequence[int]) -> list[Entry]:
    """The rows as entries: each of one source, with or without ids, some beginning with rows that came before.

    sizes: most rows of an entry. overlaps: so many rows of its source come again before the new ones.
    """
    sent: dict[str, list[Row]] = {}
    made: list[Entry] = []
    start = 0
    while start < len(rows):
        source, (_, _, first_tx, _) = rows[start]
        stop = start
        while (
            stop < min(len(rows), start + sizes[len(made) % len(sizes)])
            and rows[stop][0] == source
            and (rows[stop][1][2] is None) == (first_tx is None)
        ):
            stop += 1
        before = sent.setdefault(source, [])
        again = min(overlaps[len(made) % len(overlaps)], len(before))
        while any((row[2] is None) != (first_tx is None) for row in before[len(before) - again :]):
            again -= 1
        known = len(before) - again
        before += [row for _, row in rows[start:stop]]
        batch = batch_of(before[known:], range(known + 1, len(before) + 1))
        entry = decode(RawEntry(EntryId(1, len(made)), encode(source, known, batch, 0)), 0, 1)
        assert isinstance(entry, Entry)
        made.append(entry)
        start = stop
    return made


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Entry], set[int]]:
    """Entries and the ids in them: rising or in any order, of several sources whose ids lie between each other's."""
    count = draw(st.integers(1, 60))
    order = draw(st.sampled_from(["rising", "random", "interleaved", "apart", "wide"]))
    sources = draw(st.sampled_from(["a", "ab", "abc"]))
    rows: Rows = []
    for number in range(count):
        source = draw(st.sampled_from(sources))
        tx: int | None = {
            "rising": 3 * number,
            "random": draw(st.integers(0, 80)),
            "interleaved": 10 * number + "abc".index(source) if number % 7 else draw(st.integers(0, 600)),
            "apart": 1_000 * "abc".index(source) + number,
            "wide": draw(st.integers(0, INT64_MAX) | st.sampled_from([0, INT64_MAX, 255, 256, 2**32])),
        }[order]
        kind = draw(st.sampled_from("DDDDWPRC"))
        if kind in "PRC":
            used = [row[2] for _, row in rows if row[2] is not None]
            tx = draw(st.sampled_from(used)) if used else tx
        elif draw(st.integers(0, 9)) == 0:
            tx = None
        amount = draw(st.sampled_from([1, 5, 300, 70_000, 2**33])) if kind in "DW" else 0
        rows.append((source, (kind, draw(st.integers(0, 5)), tx, amount)))
    sizes = draw(st.lists(st.sampled_from([1, 1, 2, 5, 60]), min_size=1, max_size=6))
    overlaps = draw(st.lists(st.sampled_from([0, 0, 1, 3]), min_size=1, max_size=4))
    return entries_of(rows, sizes, overlaps), {row[2] for _, row in rows if row[2] is not None}


near = st.integers(-1, 1)
commits = st.sets(st.integers(1, 59))


@st.composite
def asked_of(draw: st.DrawFn, txs: set[int]) -> list[int]:
    """Some ids that were used, some beside them, some anywhere."""
    used = sorted(txs) or [0]
    beside = st.builds(lambda tx, by: min(max(tx + by, 0), INT64_MAX), st.sampled_from(used), near)
    return draw(st.lists(beside | st.integers(0, INT64_MAX) | st.integers(0, 2_100), max_size=12))


@settings(deadline=None, max_examples=70)
@given(histories(), commits, st.data())
def test_facts_are_those_of_a_plain_dictionary(
    blank: Path, history: tuple[list[Entry], set[int]], commits_cut: set[int], data: st.DataObject
) -> None:
    """After each commit, for taken ids, ids between and beyond, few and many at once."""
    entries, txs = history
    with new_store(blank) as (_, store):
        twins = Twins(store)
        for piece in cut(len(entries), commits_cut):
            twins.commit(entries[piece.start : piece.stop])
            asked, disputed = data.draw(asked_of(txs)), data.draw(asked_of(txs))
            twins.check(Needs.of(range(7), asked, disputed))
        around = {tx + by for tx in txs for by in (-1, 0, 1) if 0 <= tx + by <= INT64_MAX}
        twins.check(Needs.of(range(7), around, around))
        for tx in around:
            twins.check(Needs.of((), [tx], [tx]))


def driven(shard: Shard, ledger: Callable[[int], Ledger], entries: list[Entry], pieces: list[range]) -> None:
    """Commits the entries; the shard learns what it needs from its own store."""
    shard.ledger = ledger(shard.store.checkpoint().highest_tx)
    for piece in pieces:
        shard.commit(entries[piece.start : piece.stop])


@settings(deadline=None, max_examples=40)
@given(histories(), commits)
def test_the_tables_do_not_depend_on_the_commits(
    blank: Path, history: tuple[list[Entry], set[int]], commits_cut: set[int]
) -> None:
    """One commit, some, or one an entry; either store, either ledger: equal tables, id_ranges and late_ids among them.

    This is I8.
    """
    entries, _ = history
    plain = Shard()
    driven(plain, Ledger, entries, cut(len(entries), range(1, len(entries))))
    assert isinstance(plain.store, MemoryStore)
    expected: Tables = plain.store.snapshot().tables
    for places in (commits_cut, set[int]()):
        with new_store(blank) as (path, store):
            driven(
                Shard(store),
                lambda highest: ColumnarLedger(highest, accounts_max=2),
                entries,
                cut(len(entries), places),
            )
            assert reading.snapshot(path).tables == expected


# --- many ranges, few ids ----------------------------------------------------------------------------------------


@pytest.fixture
def twins(blank: Path) -> Iterator[Twins]:
    """Two new stores."""
    with new_store(blank) as (_, store):
        yield Twins(store)


@contextmanager
def statements(store: SqliteStore) -> Iterator[list[str]]:
    """What SQLite is asked meanwhile."""
    heard: list[str] = []
    store._connection.set_trace_callback(heard.append)
    yield heard
    store._connection.set_trace_callback(None)


def is_asked_one_by_one(heard: list[str]) -> bool:
    """Whether the range of each id was looked for, because too many lie between."""
    return any("DISTINCT" in statement for statement in heard)


def lone(twins: Twins, ids: Sequence[int]) -> None:
    """An entry for each id, all in one commit."""
    entries = [entry_of(number, [("D", 1, tx, tx + 1)], first=number + 1) for number, tx in enumerate(ids)]
    twins.commit(entries)


@pytest.mark.parametrize(
    "asked",
    [
        [0, 2_990],
        [1, 2_989],
        [5, 2_985],
        [0, 1_000, 2_000, 2_990],
        [0, 7, 1_000, 1_003, 2_990, 3_000, INT64_MAX],
        [2_500, INT64_MAX],
        [0, INT64_MAX],
        [1_990, 1_991, 1_999, 2_000, 2_001, 2_300],
    ],
)
def test_few_ids_among_many_ranges_are_found(twins: Twins, asked: list[int]) -> None:
    """Taken ones, those between two ranges, and those above all."""
    lone(twins, range(0, 3_000, 10))
    with statements(twins.sqlite) as heard:
        twins.check(Needs.of((), asked, asked))
    assert is_asked_one_by_one(heard)
    assert twins.sqlite.facts(Needs.of((), asked)).taken == {tx for tx in asked if tx < 3_000 and not tx % 10}


@pytest.mark.parametrize("ranges", range(5, 12))
@pytest.mark.parametrize("count", [1, 2])
def test_the_number_of_ranges_changes_no_answer(twins: Twins, ranges: int, count: int) -> None:
    """Just below, at and above four ranges an asked id."""
    lone(twins, [10 * number for number in range(ranges)])
    last = 10 * (ranges - 1)
    for first in (0, 1, 10, 19):
        for end in (last - 1, last, last + 1, INT64_MAX):
            asked = [first, end][-count:]
            twins.check(Needs.of((), asked, asked))
    with statements(twins.sqlite) as heard:
        twins.check(Needs.of((), [0, last]))
    assert is_asked_one_by_one(heard) == (ranges > 8)


def test_late_ids_among_many_ranges_are_found(twins: Twins) -> None:
    """Between the lone entries, and within a wide one."""
    entries = [
        *(entry_of(number, [("D", 1, 10 * number, 1)], first=number + 1) for number in range(50)),
        entry_of(50, [("D", 1, 600, 5), ("W", 1, 900, 1), ("D", 1, 700, 6)], first=51),
        entry_of(51, [("D", 2, 650, 7), ("D", 2, 3, 8), ("D", 2, 901, 9), ("D", 2, 899, 1)], first=54),
    ]
    for entry in entries:
        twins.commit([entry])
    everything = Needs.of((), range(1_000), range(1_000))
    twins.check(everything)
    for asked in ([3, 899], [0, 650], [3, 901], [600, 900], [601, 899], [650, 902], [4, 700]):
        with statements(twins.sqlite) as heard:
            twins.check(Needs.of((), asked, asked))
        assert is_asked_one_by_one(heard) == (asked[0] < 10)


def test_a_single_id_is_found_at_both_bounds_of_its_range(twins: Twins) -> None:
    """And not beside them, nor between them where it was not taken."""
    twins.commit([entry_of(0, [("D", 1, 100, 1), ("D", 1, 110, 2)])])
    twins.commit([entry_of(1, [("D", 1, 120, 3), ("D", 1, 111, 4)], first=3)])
    for tx in range(95, 125):
        twins.check(Needs.of((), [tx], [tx]))
        assert twins.sqlite.facts(Needs.of((), [tx])).taken == {tx} & {100, 110, 111, 120}


# --- many rows a statement ------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 199, 200, 250])
def test_any_number_of_late_ids_is_written(blank: Path, count: int) -> None:
    """Whole statements of a hundred rows, and what is left over."""
    with new_store(blank) as (path, store):
        twins = Twins(store)
        twins.commit([entry_of(0, [("D", 1, 10_000, 1)])])
        rows: list[Row] = [("D", 1, tx, tx + 1) for tx in [*reversed(range(0, 2 * count, 2)), 20_000]]
        twins.commit([entry_of(1, rows, first=2), foreign_of(2)])
        assert len(twins.memory.late_ids) == count
        assert reading.snapshot(path).tables == twins.memory.snapshot().tables
        twins.check(Needs.of((), range(2 * count + 2), range(2 * count + 2)))


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 199, 200, 250])
def test_any_number_of_balances_is_written_and_overwritten(blank: Path, count: int) -> None:
    """New ones, and then some new among some that are there."""
    with new_store(blank) as (path, store):
        twins = Twins(store)
        first: list[Row] = [("D", account * 7, account, account + 1) for account in range(count)]
        twins.commit([entry_of(0, first) if first else foreign_of(0)])
        assert len(twins.memory.balances) == count
        assert reading.snapshot(path).tables == twins.memory.snapshot().tables
        second: list[Row] = [("D", account * 5, 1_000 + account, 50) for account in range(count)]
        disputes: list[Row] = [("P", account * 7, account, 0) for account in range(0, count, 3)]
        locks: list[Row] = [("C", account * 7, account, 0) for account in range(0, count, 6)]
        rows = [*second, *disputes, *locks]
        twins.commit([entry_of(1, rows, first=count + 1) if rows else foreign_of(1)])
        assert reading.snapshot(path).tables == twins.memory.snapshot().tables
        twins.check(Needs.of(range(7 * count + 1)))


# --- damage ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE taken_ids SET txs = x'' WHERE entry = 2",
        "UPDATE taken_ids SET txs = x'0102030405' WHERE entry = 2",
        "UPDATE taken_ids SET txs = CAST(txs || x'00' AS BLOB) WHERE entry = 2",
        "UPDATE taken_ids SET accounts = x'01' WHERE entry = 2",
        "UPDATE taken_ids SET amounts = CAST(amounts || amounts || amounts AS BLOB) WHERE entry = 2",
        "UPDATE taken_ids SET count = 5 WHERE entry = 2",
        "UPDATE taken_ids SET count = -3 WHERE entry = 2",
        "UPDATE taken_ids SET count = 0 WHERE entry = 2",
        "UPDATE taken_ids SET others = x'01' WHERE entry = 2",
        "UPDATE taken_ids SET others = x'ffffffffffffffff' WHERE entry = 2",
        "DELETE FROM taken_ids WHERE entry = 2",
    ],
)
@pytest.mark.parametrize(
    "needs",
    [Needs.of(txs=[21]), Needs.of(disputed=[21]), Needs.of(disputed=[5])],
    ids=["in a range", "disputed", "disputed and late"],
)
def test_a_damaged_row_of_taken_ids_stops_the_shard(blank: Path, damage: str, needs: Needs) -> None:
    """As damage of that file, with the record's number; never a traceback, never an id that counts as free."""
    with new_store(blank) as (path, store):
        twins = Twins(store)
        twins.commit([entry_of(0, [("D", 1, 10, 1)])])
        twins.commit([entry_of(1, [("D", 1, 20, 1), ("D", 1, 21, 2), ("D", 1, 5, 3)], first=2)])
        with closing(sqlite3.connect(path)) as connection, connection:
            assert connection.execute(damage).rowcount == 1
        with pytest.raises(StoreDamaged, match=r"shard-0000\.db.*record 2"):
            store.facts(needs)
        twins.check(Needs.of([1], [10], [10]))


def test_a_late_id_that_its_record_does_not_hold_stops_the_shard(blank: Path) -> None:
    """A dispute of it would be refused as unknown, and a deposit as a duplicate."""
    with new_store(blank) as (path, store):
        twins = Twins(store)
        twins.commit([entry_of(0, [("D", 1, 10, 1)])])
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("INSERT INTO late_ids VALUES (3, 1)")
        with pytest.raises(StoreDamaged, match="id 3 is not among those of the record"):
            store.facts(Needs.of(disputed=[3]))


def test_an_id_is_never_filed_as_new_twice(blank: Path) -> None:
    """Even if the highest one that the shard remembers were too low."""
    with new_store(blank) as (path, store):
        twins = Twins(store)
        twins.commit([entry_of(0, [("D", 1, 10, 1)])])
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE shard SET highest_tx = 4")
        owner = Shard(store)
        with pytest.raises(StoreDamaged, match="id 10 would be filed as new, but ids up to 10 are taken"):
            owner.commit([entry_of(1, [("D", 1, 10, 1)], first=2)])
        assert store.checkpoint().number == 1
