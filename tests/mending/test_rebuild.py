"""A damaged database made anew from its journal: the same tables, the old file kept, or nothing changed."""

import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from hftpipe.core.snapshot import Snapshot
from hftpipe.errors import MendingRefused
from hftpipe.mending.dead import drop
from hftpipe.mending.rebuild import Rebuilding, Rebuilt, rebuild
from hftpipe.mending.repair import Repairing, accept, examine
from hftpipe.store.dead_letters import DeadBook
from hftpipe.store.reading import snapshot
from hftpipe.store.sqlite import SqliteStore, shard_path
from tests.mending.homes import Killed, MendedHome, dies_at


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


def repair(home: MendedHome) -> None:
    store = home.open_store(0)
    repairing = Repairing(
        0,
        home.topology,
        home.log.mender(0),
        lambda: SqliteStore(shard_path(home.folder, 0)),
        "operator",
        lambda _: True,
        1_000,
        home.clock,
        "ann@host",
    )
    store.close()
    accept(repairing, examine(repairing))


def spoil(home: MendedHome, *statements: str) -> None:
    with closing(sqlite3.connect(shard_path(home.folder, 0), isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def rebuilding(home: MendedHome, point: str = "") -> Rebuilding:
    return Rebuilding(home.folder, ("mended", 0, 2), "ann@host", lambda: home.time_ms, dies_at(point))


def rebuilt(home: MendedHome) -> Rebuilt:
    return rebuild(rebuilding(home), 100)


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


@pytest.mark.parametrize("point", ["rebuild.verified", "rebuild.kept", "rebuild.swapped"])
def test_a_rebuild_that_is_killed_is_finished_by_the_next(home: MendedHome, point: str) -> None:
    """At each moment there is one database, the old or the new one, whole."""
    good = stands(home)
    spoil(home, "DELETE FROM balances")
    with pytest.raises(Killed):
        rebuild(rebuilding(home, point), 100)
    there = stands(home)
    assert there.tables.records == good.tables.records
    assert (there.tables == good.tables) == (point == "rebuild.swapped")
    rebuild(rebuilding(home), 101)
    assert stands(home).tables == good.tables
    assert stands(home).epoch >= 101
    assert not {name for name in files(home) if "rebuil" in name}


def test_a_rebuilt_file_that_is_behind_is_made_again(home: MendedHome) -> None:
    """A worker has gone on with the old one since."""
    with pytest.raises(Killed):
        rebuild(rebuilding(home, "rebuild.verified"), 100)
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
