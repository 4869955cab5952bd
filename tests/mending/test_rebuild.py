"""A damaged database made anew from its journal: the same tables, the old file kept, or nothing changed."""

import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from hftpipe.core.snapshot import Snapshot
from hftpipe.errors import MendingRefused, StoreDamaged, StoreUnavailable
from hftpipe.mending.dead import drop
from hftpipe.mending.rebuild import Fence, Rebuilding, Rebuilt, rebuild
from hftpipe.store.dead_letters import DeadBook
from hftpipe.store.reading import snapshot
from hftpipe.store.sqlite import SqliteStore, shard_path
from hftpipe.wiring.mending import rebuild_shard
from hftpipe.wiring.pipeline import Place
from tests.mending.homes import Killed, MendedHome, dies_at, repair


@pytest.fixture
def home(tmp_path: Path) -> MendedHome:
    """Shard 0 has a bit of everything: refusals, a dead letter, a lost tail, an accepted loss, decisions."""
    home = MendedHome(tmp_path)
    for row in range(1, 6):
        home.send(2 * row, row)
    home.add(0, {b"x": b"\xff\\"})
    home.send(2, 5)
    home.work()
    stream = home.log.streams[0]
    for entry_id in list(stream.entries)[5:]:
        del stream.entries[entry_id]
    stream.last = list(stream.entries)[-1]
    home.work()
    for row in range(6, 9):
        home.send(2, row)
    del stream.entries[stream.last.moved(-1)]
    repair(home)
    home.work()
    drop(home.mending(), 0, "1-5")
    return home


def spoil(home: MendedHome, *statements: str) -> None:
    with closing(sqlite3.connect(shard_path(home.folder, 0), isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def rebuilding(home: MendedHome, point: str = "") -> Rebuilding:
    return Rebuilding(home.folder, ("mended", 0, 2), "ann@host", lambda: home.time_ms, dies_at(point))


def rebuilt(home: MendedHome) -> Rebuilt:
    return rebuild(rebuilding(home), Fence(100))


def stands(home: MendedHome) -> Snapshot:
    return snapshot(shard_path(home.folder, 0))


def files(home: MendedHome) -> set[str]:
    """What is in the home, but for what a database has beside it while it is open."""
    return {path.name for path in home.folder.iterdir() if not path.name.endswith(("-wal", "-shm"))}


DAMAGES = {
    "balances": ["UPDATE balances SET available = available + 1 WHERE account = 2"],
    "all but the journal": [
        "DELETE FROM balances",
        "DELETE FROM sources",
        "DELETE FROM taken_ids",
        "DELETE FROM id_ranges",
        "DELETE FROM mentions",
    ],
    "totals and fence": ["UPDATE shard SET applied = 99, gaps = 7, highest_tx = 1, owner = 'x'"],
    "schema": ["DROP TABLE mentions", "DROP VIEW refusals"],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_tables_are_what_the_journal_says(home: MendedHome, damage: str) -> None:
    """Whatever else was damaged; decisions are kept, and this one is added."""
    good = stands(home)
    spoil(home, *DAMAGES[damage])
    done = rebuilt(home)
    again = stands(home)
    assert again.tables == good.tables
    assert again.checkpoint == good.checkpoint
    assert again.epoch == 100
    assert done.records == len(good.tables.records)
    assert done.kept is not None
    assert files(home) == {"shard-0000.db", "shard-0001.db", done.kept.name}
    with DeadBook(shard_path(home.folder, 0)) as book:
        assert [each.action for each in book.decisions()] == ["accepted_loss", "dropped", "rebuilt"]
    home.send(2, 9)
    home.work()
    home.shards()


def test_the_old_file_is_kept_as_it_was(home: MendedHome) -> None:
    """Under a name that nobody takes for a store's."""
    spoil(home, "UPDATE balances SET held = 3")
    spoiled = stands(home)
    kept = rebuilt(home).kept
    assert kept is not None
    assert re.fullmatch(r"shard-0000\.db\.damaged-\d{8}T\d{6}Z-[0-9a-f]{4}", kept.name)
    there = shutil.copy(kept, home.folder / "shard-0009.db")
    assert snapshot(Path(there)) == spoiled


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("DELETE FROM entries WHERE number = 3", "record 3 is missing"),
        ("DELETE FROM entries WHERE number > 4", r"its checkpoint stands at record \d+, and the last is 4"),
        ("UPDATE entries SET time_ms = 1 WHERE number = 2", "record 2 holds content of digest"),
        ("UPDATE entries SET hash = digest WHERE number = 2", r"record 2 .* its hash is another"),
        ("UPDATE entries SET outcomes = '{\"skipped\":1}' WHERE number = 2", "its outcomes are others"),
        ("DELETE FROM dead", "record 6 is a dead letter whose fields are not kept"),
        (
            "UPDATE entries SET outcomes = '{\"lost\":[]}' WHERE substr(outcomes, 1, 8) = '{\"lost\":'",
            r"record \d+ .* not what the ledger makes of it",
        ),
    ],
)
def test_a_journal_that_is_not_whole_is_refused(home: MendedHome, statement: str, why: str) -> None:
    """Nothing is changed, and the record is named."""
    spoil(home, statement)
    before, there = stands(home), files(home)
    with pytest.raises(MendingRefused, match=f"(?s)the journal of shard 0 is not whole.*{why}"):
        rebuilt(home)
    assert stands(home) == before
    assert files(home) == there


@pytest.mark.parametrize("found", [b"INTEGER", b"CREATE VIEW"])
def test_a_schema_that_cannot_be_read_is_refused(home: MendedHome, found: bytes) -> None:
    """SQLite opens such a file, and ends with the first statement."""
    spoil(home, "PRAGMA wal_checkpoint(TRUNCATE)")
    path = shard_path(home.folder, 0)
    content = path.read_bytes()
    assert found in content
    path.write_bytes(content.replace(found, b"}" * len(found)))
    with pytest.raises(StoreDamaged, match="move it away"):
        rebuilt(home)


@pytest.mark.parametrize("point", ["rebuild.verified", "rebuild.kept", "rebuild.swapped"])
def test_a_rebuild_that_is_killed_is_finished_by_the_next(home: MendedHome, point: str) -> None:
    """At each moment there is one database, the old or the new one, whole."""
    good = stands(home)
    spoil(home, "DELETE FROM balances")
    with pytest.raises(Killed):
        rebuild(rebuilding(home, point), Fence(100))
    there = stands(home)
    assert there.tables.records == good.tables.records
    assert (there.tables == good.tables) == (point == "rebuild.swapped")
    rebuild(rebuilding(home), Fence(101))
    assert stands(home).tables == good.tables
    assert stands(home).epoch >= 101
    assert not {name for name in files(home) if "rebuil" in name}


def test_a_rebuilt_file_that_is_behind_is_made_again(home: MendedHome) -> None:
    """A worker has gone on with the old one since."""
    with pytest.raises(Killed):
        rebuild(rebuilding(home, "rebuild.verified"), Fence(100))
    home.send(2, 9)
    home.work()
    good = stands(home)
    rebuilt(home)
    assert stands(home).tables == good.tables


def test_somebody_who_reads_the_old_file_does_not_harm_the_new_one(home: MendedHome) -> None:
    """A connection that is closed afterwards takes no write-ahead log with it."""
    path = shard_path(home.folder, 0)
    reader = sqlite3.connect(path)
    reader.execute("SELECT count(*) FROM entries").fetchone()
    rebuilt(home)
    home.send(2, 9)
    store = SqliteStore(path)
    home.work()
    good = stands(home)
    reader.close()
    store.close()
    assert stands(home) == good
    home.shards()


# --- whoever works on the old one meanwhile --------------------------------------------------------------------


def held(home: MendedHome, store: SqliteStore, reach: Callable[[str], None]) -> Rebuilt:
    """Rebuilds what it has taken, as the command does."""
    epoch = store.take("operator", store.ownership())
    assert epoch is not None
    wanted = replace(rebuilding(home), reach=reach)
    return rebuild(wanted, Fence(epoch, lambda: store.beat(epoch)))


def test_the_old_database_is_kept_from_its_workers(home: MendedHome) -> None:
    """A standby sees somebody at work."""
    with closing(SqliteStore(shard_path(home.folder, 0))) as store:
        before = store.ownership().beat
        beats: list[int] = []
        held(home, store, lambda _: beats.append(store.ownership().beat))
        assert beats[0] > before + 1


@pytest.mark.parametrize("has_committed", [True, False])
def test_a_worker_that_has_taken_the_old_database_keeps_it(home: MendedHome, has_committed: bool) -> None:
    """What it has committed, or will, must not be thrown away with the old file."""

    def standby(point: str) -> None:
        if point == "rebuild.verified":
            with closing(SqliteStore(path)) as other:
                assert other.take("standby", other.ownership())
            if has_committed:
                home.send(2, 9)
                home.work()

    path = shard_path(home.folder, 0)
    with (
        closing(SqliteStore(path)) as store,
        pytest.raises(MendingRefused, match=r"was taken over meanwhile|gone on with it meanwhile"),
    ):
        held(home, store, standby)
    assert not [name for name in files(home) if "damaged" in name]
    assert stands(home).checkpoint.id == home.log.streams[0].last
    good = stands(home)
    rebuilt(home)
    assert stands(home).tables == good.tables


def test_a_worker_of_a_database_that_nobody_holds_is_not_robbed(home: MendedHome) -> None:
    """Too damaged to be held, and yet somebody has committed to it since."""

    def work(point: str) -> None:
        if point == "rebuild.verified":
            home.send(2, 9)
            home.work()

    with pytest.raises(MendingRefused, match="a worker has gone on with it meanwhile"):
        rebuild(replace(rebuilding(home), reach=work), Fence(100))
    assert stands(home).checkpoint.id == home.log.streams[0].last


def test_a_refused_rebuild_gives_the_shard_back_as_it_was(home: MendedHome) -> None:
    """Nobody owns it, and `status` still says why it was stopped."""
    spoil(home, "DELETE FROM entries WHERE number = 3", "UPDATE shard SET stopped = 'it is broken'")
    with pytest.raises(MendingRefused, match="record 3 is missing"):
        rebuild_shard(Place(home.folder), 0)
    with closing(SqliteStore(shard_path(home.folder, 0))) as store:
        assert (store.ownership().owner, store.ownership().stopped) == ("", "it is broken")
    spoil(home, "UPDATE shard SET stopped = ''")
    home.send(2, 9)
    home.work()


def test_a_database_that_cannot_be_opened_now_is_not_taken_for_damaged(home: MendedHome) -> None:
    """A worker may be at work in it."""
    path = shard_path(home.folder, 0)
    path.rename(home.folder / "aside")
    path.mkdir()
    with pytest.raises(StoreUnavailable):
        rebuild_shard(Place(home.folder), 0)


def test_a_standby_of_the_old_file_does_not_take_what_has_another_name(home: MendedHome) -> None:
    """It would commit where nobody looks any more; opened anew, it has the new one."""
    path = shard_path(home.folder, 0)
    with closing(SqliteStore(path)) as waiting:
        seen = waiting.ownership()
        rebuilt(home)
        with pytest.raises(StoreUnavailable, match="another file has its name now"):
            waiting.take("standby", seen)
    home.send(2, 9)
    home.work()
    home.shards()


def test_a_reader_does_not_keep_the_old_file_from_being_locked(home: MendedHome) -> None:
    """Its log cannot be folded in while somebody reads; it is kept, whole, with that."""
    path = shard_path(home.folder, 0)
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM entries").fetchone()
        home.send(2, 9)
        home.work()
        good = stands(home)

        def write(point: str) -> None:
            if point == "rebuild.kept":
                with pytest.raises(sqlite3.OperationalError, match="locked"):
                    spoil(home, "PRAGMA busy_timeout = 1", "BEGIN IMMEDIATE")

        kept = rebuild(replace(rebuilding(home), reach=write), Fence(100)).kept
    assert stands(home).tables == good.tables
    assert kept is not None
    assert kept.with_name(f"{kept.name}-wal").exists()
