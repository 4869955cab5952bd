"""What every store guarantees, asked of each of them; and what SQLite's adds for files and other processes."""

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftpipe.core.commit import Checkpoint, Totals
from hftpipe.core.entry import Entry, EntryId, Foreign, origin
from hftpipe.core.journal import GENESIS
from hftpipe.core.ledger import Account, Deposit, DisputeState, Facts, Needs, Undisputable
from hftpipe.core.transaction import AMOUNT_MAX, INT64_MAX
from hftpipe.errors import Fenced, StoreDamaged, StoreUnavailable
from hftpipe.ports import Ownership, Store
from hftpipe.store import sqlite as adapter
from hftpipe.store.creation import create
from hftpipe.store.memory import MemoryStore
from hftpipe.store.sqlite import SqliteStore, shard_path

from ..core.driver import TOPOLOGY, Row, Shard, cut, decided, entry_of, foreign_of
from ..core.model import Model

START = Checkpoint(origin(1), "", 0, GENESIS, -1, 0, Totals())
NOTHING = Facts({}, set(), {})


class Planted(Exception):
    """A fault that a test plants."""


class Shelf:
    """A place where one shard's store is kept: opened any number of times, it is the same one."""

    def __init__(self, open_store: Callable[[Callable[[str], None]], Store]) -> None:
        self._open_store = open_store
        self._opened: list[Store] = []
        self.reach: Callable[[str], None] = lambda _: None

    def open(self) -> Store:
        store = self._open_store(self._reached)
        self._opened.append(store)
        return store

    def _reached(self, step: str) -> None:
        self.reach(step)

    def close(self) -> None:
        for store in self._opened:
            store.close()


def _kept_in_memory(_: Path) -> Callable[[Callable[[str], None]], Store]:
    kept: list[MemoryStore] = []

    def open_store(reach: Callable[[str], None]) -> Store:
        kept[:] = kept or [MemoryStore(TOPOLOGY, 0, reach)]
        return kept[0]

    return open_store


def _kept_in_sqlite(folder: Path) -> Callable[[Callable[[str], None]], Store]:
    path = shard_path(folder, 0)
    create(path, TOPOLOGY, 0)
    return lambda reach: SqliteStore(path, reach)


@pytest.fixture(params=[_kept_in_memory, _kept_in_sqlite], ids=["memory", "sqlite"])
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shelf]:
    shelf = Shelf(request.param(tmp_path))
    yield shelf
    shelf.close()


@pytest.fixture
def store(shelf: Shelf) -> Store:
    return shelf.open()


def everything(store: Store) -> tuple[object, ...]:
    """All that can be asked of a store that no more than these tests' accounts, ids and sources are in."""
    needs = Needs.of(range(10), range(20), range(20))
    return (
        store.checkpoint(),
        store.facts(needs),
        store.positions({"source", "one", "two"}),
        store.anchors(1_000, 1_000),
    )


def need(*, accounts: Iterable[int] = (), txs: Iterable[int] = (), disputed: Iterable[int] = ()) -> Needs:
    return Needs.of(accounts, txs, disputed)


# --- A new store -----------------------------------------------------------------------------------------------


def test_a_new_store_stands_before_the_first_entry_and_is_nobodys(store: Store) -> None:
    """Checkpoint at the origin, no facts, no owner."""
    assert store.checkpoint() == START
    assert store.ownership() == Ownership(0, "", 0)
    assert store.facts(need(accounts={1}, txs={1}, disputed={1})) == NOTHING
    assert store.positions({"source"}) == {}
    assert store.anchors(1, 10) == []


def test_a_store_knows_what_it_belongs_to(store: MemoryStore | SqliteStore) -> None:
    """Pipeline, shard, number of shards."""
    assert store.identity() == ("pipeline-1", 0, 1)


# --- Ownership -------------------------------------------------------------------------------------------------


def test_taking_raises_the_epoch_and_names_the_owner(store: Store) -> None:
    """And moves the beat, so that others see it."""
    assert store.take("one", store.ownership()) == 1
    now = store.ownership()
    assert (now.epoch, now.owner) == (1, "one")
    assert now.beat > 0
    assert store.take("two", now) == 2


def test_of_two_that_saw_the_same_one_takes_it(shelf: Shelf) -> None:
    """Compare and set: the second finds another owner than it saw."""
    one, two = shelf.open(), shelf.open()
    seen = one.ownership()
    assert two.ownership() == seen
    assert one.take("one", seen) == 1
    assert two.take("two", seen) is None
    assert two.ownership().owner == "one"


def test_a_beat_between_look_and_take_keeps_the_owner(shelf: Shelf) -> None:
    """An owner that shows life after it was seen stalled is not replaced."""
    owner, standby = shelf.open(), shelf.open()
    epoch = owner.take("owner", owner.ownership())
    assert epoch is not None
    seen = standby.ownership()
    owner.beat(epoch)
    assert standby.take("standby", seen) is None


def test_every_beat_moves_and_so_does_every_commit_and_rewind(store: Store) -> None:
    """Whoever watches sees that the owner lives."""
    shard = Shard(store)
    beats = [store.ownership().beat]
    store.beat(shard.epoch)
    beats.append(store.ownership().beat)
    shard.commit([entry_of(0, [("D", 1, 1, 5)])])
    beats.append(store.ownership().beat)
    store.rewind(shard.epoch, origin(1), "")
    beats.append(store.ownership().beat)
    assert beats == sorted(set(beats))


def test_a_released_store_is_nobodys_and_keeps_its_epoch(store: Store) -> None:
    """The next one takes it at once, with a higher epoch."""
    shard = Shard(store)
    store.release(shard.epoch)
    assert (store.ownership().epoch, store.ownership().owner) == (1, "")
    assert store.take("next", store.ownership()) == 2


def test_releasing_after_a_takeover_changes_nothing(store: Store) -> None:
    """The new owner stays."""
    shard = Shard(store)
    store.take("next", store.ownership())
    before = store.ownership()
    store.release(shard.epoch, stopped="too late")
    assert store.ownership() == before


def test_a_replaced_owner_is_fenced_from_everything_and_changes_nothing(store: Store) -> None:
    """Beat, commit and rewind all find out, and nothing is written."""
    shard = Shard(store)
    shard.commit([entry_of(0, [("D", 1, 1, 5)])])
    late = shard.post([entry_of(1, [("D", 1, 2, 5)], first=2)])
    assert store.take("next", store.ownership()) == 2
    before, ownership = everything(store), store.ownership()
    with pytest.raises(Fenced):
        store.beat(shard.epoch)
    with pytest.raises(Fenced):
        store.commit(shard.epoch, late)
    with pytest.raises(Fenced):
        store.rewind(shard.epoch, origin(1), "")
    assert everything(store) == before
    assert store.ownership() == ownership


def test_a_replaced_owner_is_fenced_too_when_its_successor_has_committed_the_same(shelf: Shelf) -> None:
    """The very entries that it holds are already journaled: still it is Fenced, not told of damage."""
    slow = Shard(shelf.open())
    entries: list[Entry | Foreign] = [entry_of(0, [("D", 1, 1, 5)]), foreign_of(1)]
    late = slow.post(entries)
    next_owner = Shard(shelf.open())
    next_owner.commit(entries)
    before = everything(next_owner.store)
    with pytest.raises(Fenced):
        slow.store.commit(slow.epoch, late)
    assert everything(next_owner.store) == before


# --- Commit ----------------------------------------------------------------------------------------------------


def test_a_commit_is_there_when_the_store_is_opened_again(shelf: Shelf) -> None:
    """All that it holds: checkpoint, balances, ids, disputes, positions, journal."""
    shard = Shard(shelf.open())
    rows: list[Row] = [("D", 1, 1, 500), ("D", 2, 2, 70), ("P", 2, 2, 0), ("W", 1, 3, 501)]
    commit = shard.commit([entry_of(0, rows), foreign_of(1)])
    opened = shelf.open()
    assert opened.checkpoint() == commit.after
    assert opened.facts(need(accounts={1, 2, 3}, txs={1, 2, 3, 4}, disputed={1, 2, 3, 4})) == Facts(
        {1: Account(500), 2: Account(0, 70)},
        {1, 2, 3},
        {1: Deposit(1, 500), 2: Deposit(2, 70, DisputeState.DISPUTED), 3: Undisputable.TAKEN},
    )
    assert opened.positions({"source", "other"}) == {"source": 4}
    assert opened.anchors(9, 9) == [(r.number, r.id, r.digest) for r in reversed(commit.records)]


def test_a_fault_within_the_commit_leaves_nothing_of_it(shelf: Shelf) -> None:
    """All or nothing; and the same entries can be committed afterwards, by one that starts anew."""
    shard = Shard(shelf.open())
    shard.commit([entry_of(0, [("D", 1, 1, 5)])])
    before, ownership = everything(shard.store), shard.store.ownership()
    entries: list[Entry | Foreign] = [
        entry_of(1, [("D", 1, 2, 5), ("P", 1, 1, 0)], first=2, source="source"),
        foreign_of(2),
    ]
    steps: list[str] = []

    def fail(step: str) -> None:
        steps.append(step)
        raise Planted

    shelf.reach = fail
    with pytest.raises(Planted):
        shard.commit(entries)
    assert steps == ["store.in_transaction"]
    assert everything(shard.store) == before
    assert everything(shelf.open()) == before
    assert shard.store.ownership() == ownership
    shelf.reach = lambda _: None
    shard.forget()
    assert shard.commit(entries).after == shard.store.checkpoint()


def test_a_commit_from_another_checkpoint_is_fenced(store: Store) -> None:
    """Whatever the memory of a worker thinks: the same memory is never committed twice."""
    shard = Shard(store)
    commit = shard.commit([entry_of(0, [("D", 1, 1, 5)])])
    before = everything(store)
    with pytest.raises(Fenced):
        store.commit(shard.epoch, commit)
    ahead = replace(commit, before=replace(commit.after, number=7, id=EntryId(1, 6)))
    with pytest.raises(Fenced):
        store.commit(shard.epoch, ahead)
    assert everything(store) == before


def test_a_commit_decided_before_a_rewind_is_fenced(store: Store) -> None:
    """The journal number is the same then, the entry is not."""
    shard = Shard(store)
    shard.commit([entry_of(0, [("D", 1, 1, 5)])])
    late = shard.post([entry_of(1, [("D", 1, 2, 5)], first=2)])
    store.rewind(shard.epoch, origin(1), "")
    before = everything(store)
    with pytest.raises(Fenced):
        store.commit(shard.epoch, late)
    assert everything(store) == before


def test_the_largest_values_come_back_as_they_were(store: Store) -> None:
    """Accounts, ids, rows and balances at the end of 64 bits."""
    shard = Shard(store)
    top = INT64_MAX
    row: Row = ("D", top, top, AMOUNT_MAX)
    shard.commit([entry_of(0, [row], positions=[top], previous=0)])
    known = store.facts(need(accounts={top}, txs={top}, disputed={top}))
    assert known == Facts({top: Account(AMOUNT_MAX)}, {top}, {top: Deposit(top, AMOUNT_MAX)})
    assert store.positions({"source"}) == {"source": top}
    assert store.checkpoint().highest_tx == top


def test_many_commits_add_up(store: Store) -> None:
    """One entry a commit, a hundred times."""
    shard = Shard(store)
    for number in range(100):
        shard.commit([entry_of(number, [("D", 1, number, 5)], first=number + 1)])
    assert store.facts(need(accounts={1})).accounts == {1: Account(500)}
    assert store.checkpoint().totals == Totals(applied=100)


# --- Facts -----------------------------------------------------------------------------------------------------


def test_facts_are_a_copy(store: Store) -> None:
    """What a ledger does with them reaches the store only by a commit."""
    shard = Shard(store)
    shard.commit([entry_of(0, [("D", 1, 1, 5), ("P", 1, 1, 0)])])
    known = store.facts(need(accounts={1}, disputed={1}))
    known.accounts[1].available = 1_000_000
    deposit = known.deposits[1]
    assert isinstance(deposit, Deposit)
    deposit.state = DisputeState.CHARGED_BACK
    assert store.facts(need(accounts={1}, disputed={1})) == Facts(
        {1: Account(0, 5)}, set(), {1: Deposit(1, 5, DisputeState.DISPUTED)}
    )


def test_a_deposit_in_an_entry_with_skipped_rows_is_found(store: Store) -> None:
    """Its place is counted from the start of the payload, skipped rows included."""
    shard = Shard(store)
    rows: list[Row] = [("D", 1, 1, 5), ("D", 1, 2, 6), ("D", 2, 3, 7), ("W", 1, 4, 99), ("D", 1, 5, 8)]
    shard.commit([entry_of(0, rows[:2])])
    shard.commit([entry_of(1, rows)])
    assert store.facts(need(disputed={1, 2, 3, 4, 5})).deposits == {
        1: Deposit(1, 5),
        2: Deposit(1, 6),
        3: Deposit(2, 7),
        4: Undisputable.TAKEN,
        5: Deposit(1, 8),
    }


def test_a_deposit_is_found_where_disputes_and_repetitions_name_the_same_id(store: Store) -> None:
    """Refused disputes before it, a second use behind it, all in one entry."""
    shard = Shard(store)
    rows: list[Row] = [("P", 1, 7, 0), ("R", 1, 7, 0), ("D", 1, 7, 5), ("D", 2, 7, 6), ("W", 1, 7, 1)]
    shard.commit([entry_of(0, rows)])
    assert store.facts(need(txs={7}, disputed={7})) == Facts({}, {7}, {7: Deposit(1, 5)})


def test_withdrawals_and_refused_deposits_cannot_be_disputed(store: Store) -> None:
    """Their ids are taken, by nothing that could be given back."""
    shard = Shard(store)
    rows: list[Row] = [
        ("D", 1, 1, 5),
        ("W", 1, 2, 5),
        ("W", 1, 3, 5),
        ("P", 1, 1, 0),
        ("C", 1, 1, 0),
        ("D", 1, 4, 5),
    ]
    shard.commit([entry_of(0, rows)])
    taken = Undisputable.TAKEN
    assert store.facts(need(disputed={2, 3, 4, 5})).deposits == {2: taken, 3: taken, 4: taken}


@pytest.mark.parametrize(
    ("kinds", "state"),
    [
        ("P", DisputeState.DISPUTED),
        ("PR", DisputeState.RESOLVED),
        ("PRP", DisputeState.DISPUTED),
        ("PC", DisputeState.CHARGED_BACK),
    ],
)
def test_how_a_dispute_stands_is_kept(store: Store, kinds: str, state: DisputeState) -> None:
    """Each step in a commit of its own."""
    shard = Shard(store)
    shard.commit([entry_of(0, [("D", 1, 1, 5)])])
    for number, kind in enumerate(kinds, 1):
        shard.commit([entry_of(number, [(kind, 1, 1, 0)], first=number + 1)])
    assert store.facts(need(disputed={1})).deposits == {1: Deposit(1, 5, state)}
    assert store.facts(need(accounts={1})).accounts[1].locked is (state is DisputeState.CHARGED_BACK)


def test_rows_without_ids_take_none(store: Store) -> None:
    """And are in the journal all the same."""
    shard = Shard(store)
    shard.commit([entry_of(0, [("D", 1, None, 5), ("D", 1, None, 5)])])
    assert store.facts(need(accounts={1}, txs=set(range(9)))) == Facts({1: Account(10)}, set(), {})


@pytest.mark.parametrize(
    "name", ["orders 1.csv", "größe/日本.csv", 'a"b\\c', "%s'--", "a\x00b", "\n", " ", "x" * 5_000]
)
def test_a_source_of_any_name_keeps_its_own_position(store: Store, name: str) -> None:
    """A position that were not found again would let rows take effect twice."""
    shard = Shard(store)
    shard.commit(
        [entry_of(0, [("D", 1, None, 5)], source=name), entry_of(1, [("D", 1, None, 5)], source="a")]
    )
    shard.forget()
    assert store.positions({name, "a", "b"}) == {name: 1, "a": 1}
    shard.commit([entry_of(2, [("D", 1, None, 5)], source=name)])
    assert store.facts(need(accounts={1})).accounts == {1: Account(10)}


# --- Anchors and rewind --------------------------------------------------------------------------------------


def test_anchors_come_newest_first_and_page_by_page(store: Store) -> None:
    """Each page goes on below the last number of the one before."""
    shard = Shard(store)
    commits = [shard.commit([entry_of(number, [("D", 1, None, 5)], first=number + 1)]) for number in range(5)]
    expected = [(commit.after.number, commit.after.id, commit.after.digest) for commit in reversed(commits)]
    assert store.anchors(6, 2) == expected[:2]
    assert store.anchors(4, 2) == expected[2:4]
    assert store.anchors(2, 2) == expected[4:]
    assert store.anchors(1, 2) == []
    assert store.anchors(100, 100) == expected


def test_a_rewind_moves_the_checkpoint_and_nothing_else(store: Store) -> None:
    """Journal, balances and positions stay: the source chain skips what comes again."""
    shard = Shard(store)
    entries = [entry_of(number, [("D", 1, None, 5)], first=number + 1) for number in range(3)]
    shard.commit(entries)
    before, anchors = store.checkpoint(), store.anchors(9, 9)
    store.rewind(shard.epoch, entries[0].id, entries[0].digest)
    assert store.checkpoint() == replace(before, id=entries[0].id, digest=entries[0].digest, incarnation=1)
    assert (store.anchors(9, 9), store.positions({"source"})) == (anchors, {"source": 3})
    shard.forget()
    shard.commit([entries[1]])
    assert store.facts(need(accounts={1})).accounts == {1: Account(15)}
    checkpoint = store.checkpoint()
    assert (checkpoint.id, checkpoint.number, checkpoint.incarnation) == (entries[1].id, 4, 1)
    assert checkpoint.totals == Totals(applied=3, skipped=1)


def test_a_rewind_to_the_start_stands_before_the_first_entry(store: Store) -> None:
    """The origin is written and read like an id."""
    shard = Shard(store)
    shard.commit([entry_of(0, [("D", 1, None, 5)])])
    store.rewind(shard.epoch, origin(1), "")
    assert (store.checkpoint().id, store.checkpoint().digest) == (origin(1), "")


# --- SQLite: files ---------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = shard_path(tmp_path, 3)
    create(path, replace(TOPOLOGY, shards=4), 3)
    return path


def query(path: Path, statement: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


def stopped_reason(path: Path) -> str:
    ((reason,),) = query(path, "SELECT stopped FROM shard")
    return str(reason)


def test_the_reason_of_a_stop_is_kept_until_the_next_owner(path: Path) -> None:
    """`status` shows it."""
    with closing(SqliteStore(path)) as store:
        shard = Shard(store)
        store.release(shard.epoch, stopped="entry 3/1-7 is damaged")
        assert stopped_reason(path) == "entry 3/1-7 is damaged"
        store.take("next", store.ownership())
        assert stopped_reason(path) == ""


def test_a_file_knows_its_shard_and_is_closed_to_others(path: Path) -> None:
    """Mode 0600, whatever the umask; nothing but the file is left in the folder."""
    assert path.name == "shard-0003.db"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]
    with closing(SqliteStore(path)) as store:
        assert store.identity() == ("pipeline-1", 3, 4)


def test_creating_again_leaves_the_file_alone(path: Path) -> None:
    """Also with another pipeline in mind: whoever opens it compares."""
    with closing(SqliteStore(path)) as store:
        Shard(store).commit([entry_of(0, [("D", 1, 1, 5)])])
    create(path, replace(TOPOLOGY, pipeline="other"), 3)
    with closing(SqliteStore(path)) as store:
        assert store.identity() == ("pipeline-1", 3, 4)
        assert store.checkpoint().number == 1


def test_no_new_file_is_made_beside_the_log_of_one_that_was_taken_away(path: Path) -> None:
    """What was committed last to the former one would be taken for the new one's."""
    with closing(SqliteStore(path)) as store:
        Shard(store).commit([entry_of(0, [("D", 1, 1, 5)])])
        kept, log = path.read_bytes(), path.with_name(f"{path.name}-wal").read_bytes()
    path.unlink()
    path.with_name(f"{path.name}-wal").write_bytes(log)
    with pytest.raises(StoreDamaged, match=r"-wal is there without shard-0003\.db"):
        create(path, TOPOLOGY, 3)
    assert not path.exists()
    path.write_bytes(kept)
    with closing(SqliteStore(path)) as store:
        assert store.checkpoint().number == 1


def test_any_number_at_once_create_one_file(tmp_path: Path) -> None:
    """Each with a pipeline of its own in mind; all find the same, and no draft is left."""
    path = shard_path(tmp_path, 0)
    with ThreadPoolExecutor(8) as pool:
        wishes = [replace(TOPOLOGY, pipeline=f"pipeline-{number}") for number in range(8)]
        list(pool.map(lambda wish: create(path, wish, 0), wishes))
    assert list(tmp_path.iterdir()) == [path]
    with closing(SqliteStore(path)) as store:
        assert store.identity()[0] in {wish.pipeline for wish in wishes}
        assert store.checkpoint() == START


def test_a_draft_left_by_a_killed_process_is_in_nobodys_way(tmp_path: Path) -> None:
    """Its name is never that of the file."""
    path = shard_path(tmp_path, 0)
    (tmp_path / "shard-0000.db.1-00000000.new").write_bytes(b"half")
    create(path, TOPOLOGY, 0)
    with closing(SqliteStore(path)) as store:
        assert store.checkpoint() == START


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    """It may be a disk that is not mounted yet."""
    path = shard_path(tmp_path / "absent", 0)
    with pytest.raises(StoreUnavailable, match="absent"):
        create(path, TOPOLOGY, 0)
    with pytest.raises(StoreUnavailable, match="absent"):
        SqliteStore(path)


def test_opening_never_makes_a_file(tmp_path: Path) -> None:
    """An empty store in the place of a lost one would apply everything again."""
    with pytest.raises(StoreUnavailable):
        SqliteStore(shard_path(tmp_path, 0))
    assert list(tmp_path.iterdir()) == []


def test_it_writes_through_to_the_disk(path: Path) -> None:
    """WAL with synchronous=FULL: a commit that returned is durable."""
    with closing(SqliteStore(path)) as store:
        connection = store._connection
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)


# --- SQLite: tables and views --------------------------------------------------------------------------------


def test_every_table_is_strict(path: Path) -> None:
    """Else an overflow becomes a floating-point number, silently."""
    tables = query(
        path, "SELECT name, strict FROM pragma_table_list WHERE type = 'table' AND schema = 'main'"
    )
    strict = {name: bool(flag) for name, flag in tables if not str(name).startswith(("sqlite_", "_sqlite"))}
    assert {
        "shard",
        "balances",
        "entries",
        "id_ranges",
        "late_ids",
        "taken_ids",
        "mentions",
        "disputes",
        "sources",
        "dead",
    } <= strict.keys()
    assert all(strict.values())


@pytest.mark.parametrize("value", ["1.5", "9223372036854775807 + 1", "'many'"])
def test_a_balance_that_is_no_integer_is_refused_by_the_table(path: Path, value: str) -> None:
    """Whoever writes it."""
    with closing(sqlite3.connect(path)) as connection, pytest.raises(sqlite3.IntegrityError):
        connection.execute(f"INSERT INTO balances VALUES (1, {value}, 0, 0, 1)")  # noqa: S608 - ours


KINDS = {"D": "deposit", "W": "withdrawal", "P": "dispute", "R": "resolve", "C": "chargeback"}

ROWS: list[Row] = [
    ("D", 1, 1, 100_000),
    ("W", 1, 2, 65_000),
    ("D", 2, 1, 5),
    ("P", 1, 9, 0),
    ("W", 2, 3, 1),
    ("P", 2, 1, 0),
    ("P", 1, 2, 0),
    ("P", 1, 1, 0),
    ("P", 1, 1, 0),
    ("R", 1, 1, 0),
    ("C", 1, 1, 0),
    ("P", 1, 1, 0),
    ("C", 1, 1, 0),
    ("D", 1, 4, 7),
    ("D", 3, INT64_MAX, AMOUNT_MAX),
]


def test_the_views_tell_every_row_as_the_model_does(tmp_path: Path) -> None:
    """`transaction_log` has a line for each row of each entry; `refusals` those with a reason."""
    path = shard_path(tmp_path, 0)
    create(path, TOPOLOGY, 0)
    model = Model()
    outcomes = [model.tell(*row) for row in ROWS]
    positions = [3 * number for number in range(1, len(ROWS) + 1)]
    with closing(SqliteStore(path)) as store:
        shard = Shard(store)
        shard.commit([entry_of(0, ROWS[:6], positions=positions[:6], previous=0), foreign_of(1)])
        shard.commit([entry_of(2, ROWS[4:10], positions=positions[4:10], previous=positions[3])])
        shard.commit([entry_of(3, ROWS[12:], positions=positions[12:], previous=positions[11])])
        shard.commit([entry_of(4, ROWS[9:], positions=positions[9:], previous=positions[8])])
        shard.commit([entry_of(5, [("D", 1, None, 8), ("D", 4, None, 9)], source="other")])
    written = [
        *((1, "1-0", index, outcomes[index]) for index in range(6)),
        *((3, "1-2", index, "skipped" if index < 6 else outcomes[index]) for index in range(4, 10)),
        *((4, "1-3", index, "gap") for index in range(12, len(ROWS))),
        *((5, "1-4", index, "skipped" if index < 10 else outcomes[index]) for index in range(9, len(ROWS))),
    ]
    expected: list[tuple[object, ...]] = [
        (number, entry, "source", positions[index], KINDS[ROWS[index][0]], *ROWS[index][1:], outcome)
        for number, entry, index, outcome in written
    ]
    expected.append((6, "1-5", "other", 1, "deposit", 1, None, 8, "account_locked"))
    expected.append((6, "1-5", "other", 2, "deposit", 4, None, 9, "applied"))
    columns = "number, entry, source, row, kind, account, tx, amount, outcome"
    told = query(path, f"SELECT {columns} FROM transaction_log ORDER BY number, row")  # noqa: S608 - ours
    assert told == expected
    refused = query(path, f"SELECT {columns} FROM refusals ORDER BY number, row")  # noqa: S608 - ours
    assert refused == [line for line in expected if line[-1] not in ("applied", "skipped", "gap")]
    effective = [outcome for *_, outcome in told if outcome not in ("skipped", "gap")]
    assert effective[: len(ROWS)] == outcomes


def test_the_tables_hold_what_a_store_in_memory_holds(tmp_path: Path) -> None:
    """The same commits, row by row."""
    path = shard_path(tmp_path, 0)
    create(path, TOPOLOGY, 0)
    memory = MemoryStore(TOPOLOGY, 0)
    entries: list[Entry | Foreign] = [
        entry_of(0, ROWS[:5]),
        foreign_of(1),
        entry_of(2, ROWS[3:9], first=4),
        entry_of(3, ROWS[8:], first=9),
    ]
    with closing(SqliteStore(path)) as store:
        for shard in (Shard(memory), Shard(store)):
            shard.commit(entries[:2])
            shard.commit(entries[2:])
        assert store.checkpoint() == memory.checkpoint()
    assert query(path, "SELECT * FROM balances ORDER BY account") == [
        (account, available, held, int(locked), number)
        for account, (available, held, locked, number) in sorted(memory.balances.items())
    ]
    assert dict(query(path, "SELECT tx, entry FROM late_ids")) == memory.late_ids
    taken = {number: tuple(packed) for number, *packed in query(path, "SELECT * FROM taken_ids")}
    assert taken == memory.taken_ids
    assert query(path, "SELECT tx, entry FROM mentions ORDER BY tx, entry") == [
        (tx, number) for tx, numbers in sorted(memory.mentions.items()) for number in numbers
    ]
    assert query(path, "SELECT highest, lowest, entry FROM id_ranges ORDER BY highest") == [
        (highest, lowest, number) for highest, (lowest, number) in sorted(memory.id_ranges.items())
    ]
    assert query(path, "SELECT number, entry, outcomes, digest, hash FROM entries ORDER BY number") == [
        (record.number, str(record.id), record.outcomes, record.digest, record.hash)
        for record in memory.records
    ]
    assert query(path, "SELECT tx, account, amount, state FROM disputes ORDER BY tx") == [
        (tx, deposit.account, deposit.amount, deposit.state.value)
        for tx, deposit in sorted(memory.disputes.items())
    ]
    assert len(decided(memory.records)) == len(ROWS)


row = st.tuples(
    st.sampled_from("DDWPRC"), st.integers(0, 2), st.integers(0, 6), st.sampled_from([1, 2, AMOUNT_MAX])
)


@settings(deadline=None, max_examples=25)
@given(st.lists(row, min_size=1, max_size=30), *[st.sets(st.integers(1, 29))] * 2)
def test_any_rows_are_told_by_the_view_as_by_the_model(
    mixed: list[Row], entries_cut: set[int], commits_cut: set[int]
) -> None:
    """What is kept in a file, and learnt from it between two commits, changes no outcome."""
    rows = [(kind, account, tx, amount if kind in "DW" else 0) for kind, account, tx, amount in mixed]
    model = Model()
    expected = [(position, *row, model.tell(*row)) for position, row in enumerate(rows, 1)]
    entries = [
        entry_of(number, rows[piece.start : piece.stop], first=piece.start + 1)
        for number, piece in enumerate(cut(len(rows), entries_cut))
    ]
    with TemporaryDirectory() as folder:
        path = shard_path(Path(folder), 0)
        create(path, TOPOLOGY, 0)
        for piece in cut(len(entries), commits_cut):
            with closing(SqliteStore(path)) as store:
                Shard(store).commit(entries[piece.start : piece.stop])
        told = query(path, "SELECT row, kind, account, tx, amount, outcome FROM transaction_log ORDER BY row")
        balances = query(path, "SELECT account, available, held, locked FROM balances")
    assert told == [(line[0], KINDS[line[1]], *line[2:]) for line in expected]
    assert {
        account: (Fraction(available, 10_000), Fraction(held, 10_000), bool(locked))
        for account, available, held, locked in balances
    } == {account: model.balance(account) for account in model.accounts()}


def test_a_dead_entry_is_kept_whole(path: Path) -> None:
    """Names and values as text, what is no text escaped."""
    with closing(SqliteStore(path)) as store:
        Shard(store).commit([foreign_of(0, {b"hello": b"w\xc3\xb6rld", b"\xff": b"\x00\xfe"})])
    ((number, entry, reason, fields),) = query(path, "SELECT number, entry, reason, fields FROM dead")
    assert (number, entry, reason) == (1, "1-0", "missing field b")
    assert orjson.loads(str(fields)) == {"hello": "wörld", "\\xff": "\x00\\xfe"}


# --- SQLite: damage and other processes -----------------------------------------------------------------------


def test_a_text_file_is_not_taken_for_a_store(path: Path) -> None:
    """The message names the file."""
    path.write_text("client,available,held\n" * 1_000)
    with pytest.raises(StoreDamaged, match=path.name):
        SqliteStore(path)


def test_an_empty_file_is_not_taken_for_a_store(path: Path) -> None:
    """Nor is it filled."""
    path.write_bytes(b"")
    with pytest.raises(StoreDamaged, match=path.name):
        SqliteStore(path)
    assert path.stat().st_size == 0


def test_a_database_of_something_else_is_not_taken_for_a_store(tmp_path: Path) -> None:
    """Without our version number it is none of ours."""
    path = tmp_path / "shard-0000.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE shard (id INTEGER)")
    with pytest.raises(StoreDamaged, match="schema version 0"):
        SqliteStore(path)


def test_a_schema_of_another_version_is_refused_by_name(path: Path) -> None:
    """Never read as if it were this one."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 2")
    with pytest.raises(StoreDamaged, match="schema version 2"):
        SqliteStore(path)


def test_a_table_that_is_missing_is_damage(path: Path) -> None:
    """The shard stops and says so."""
    with closing(SqliteStore(path)) as store:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("DROP TABLE balances")
        with pytest.raises(StoreDamaged, match="balances"):
            store.facts(need(accounts={1}))


def test_a_missing_row_of_state_is_damage(path: Path) -> None:
    """A store without its one row knows nothing."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM shard")
    with closing(SqliteStore(path)) as store, pytest.raises(StoreDamaged, match=path.name):
        store.checkpoint()


def test_a_damaged_page_is_damage_not_a_passing_fault(path: Path) -> None:
    """To try again would go on for ever."""
    with closing(SqliteStore(path)) as store:
        shard = Shard(store)
        rows: list[Row] = [("D", account, account, 5) for account in range(1_000)]
        shard.commit([entry_of(0, rows)])
    page = 4_096
    content = bytearray(path.read_bytes())
    content[page:] = os.urandom(len(content) - page)
    path.write_bytes(content)

    def use() -> None:
        with closing(SqliteStore(path)) as store:
            store.checkpoint()
            store.facts(need(accounts=set(range(1_000)), disputed=set(range(1_000))))

    with pytest.raises(StoreDamaged, match=path.name):
        use()


HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


def test_a_file_that_another_process_writes_to_is_busy_and_free_again_when_it_ends(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writing fails as a passing fault; reading goes on."""
    monkeypatch.setattr(adapter, "BUSY_TIMEOUT_MS", 50)
    with closing(SqliteStore(path)) as store:
        shard = Shard(store)
        commit = shard.post([entry_of(0, [("D", 1, 1, 5)])])
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        with holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            assert store.checkpoint() == START
            writes: list[Callable[[], object]] = [
                lambda: store.commit(shard.epoch, commit),
                lambda: store.beat(shard.epoch),
                lambda: store.take("next", store.ownership()),
                lambda: store.rewind(shard.epoch, origin(1), ""),
            ]
            for write in writes:
                with pytest.raises(StoreUnavailable, match="locked"):
                    write()
            holder.kill()
        store.commit(shard.epoch, commit)
        assert store.checkpoint() == commit.after
