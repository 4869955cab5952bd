"""One SQLite file of all shards: what it holds, and that it is whole or not there."""

import fcntl
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from hftpipe.core.transaction import Batch
from hftpipe.errors import HftpipeError, Interrupted, JournalDamaged, PipelineMismatch, UsageError
from hftpipe.export.moment import TRIES_MAX, Moment, Shard, begun_together, opened_shard
from hftpipe.export.query import answered
from hftpipe.export.snapshot import take_snapshot
from hftpipe.export.statement import judge
from hftpipe.export.telling import Telling
from hftpipe.store.reading import open_reading
from hftpipe.store.sqlite import shard_path
from tests.export.written_home import SILENT, WrittenHome, batch, varied_home

Rows = list[tuple[object, ...]]

ORACLE = (
    "SELECT {shard}, transaction_log.number, entry, source, row, time_ms, kind, account, tx, amount, outcome "
    "FROM transaction_log JOIN (SELECT number AS n, time_ms FROM entries) ON n = transaction_log.number "
    "WHERE outcome NOT IN ('skipped', 'gap') ORDER BY 2, 5"
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> WrittenHome:
    """Three shards."""
    return varied_home(tmp_path_factory.mktemp("home"), 3)


def taken(home: WrittenHome, target: Path, *, force: bool = False, with_transactions: bool = True) -> Path:
    """A snapshot."""
    take_snapshot(home.folder, target, SILENT, force=force, with_transactions=with_transactions)
    return target


def rows(path: Path, statement: str) -> Rows:
    """What a database answers."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        return connection.execute(statement).fetchall()


def of_all_shards(home: WrittenHome, statement: str) -> Rows:
    """What the shards' own databases answer; `{shard}` is the number of each."""
    found: Rows = []
    for shard in range(home.shards):
        found += rows(shard_path(home.folder, shard), statement.format(shard=shard))
    return found


@pytest.fixture(scope="module")
def file(home: WrittenHome, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A snapshot that nobody changes."""
    return taken(home, tmp_path_factory.mktemp("out") / "books.db")


# --- what it holds ---------------------------------------------------------------------------------------------


def test_every_decided_transaction_has_its_row(home: WrittenHome, file: Path) -> None:
    """The same as the view of each journal tells; what was skipped or is behind a gap was not decided."""
    expected = of_all_shards(home, ORACLE)
    assert rows(file, "SELECT * FROM transactions ORDER BY shard, number, row") == expected
    assert len({row[-1] for row in expected}) >= 3
    assert any(row[8] is None for row in expected)


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        (
            "SELECT shard, account, available, held, locked, last_entry FROM balances",
            "SELECT {shard}, account, available, held, locked, last_entry FROM balances",
        ),
        ("SELECT shard, tx, account, amount, state FROM disputes", "SELECT {shard}, * FROM disputes"),
        ("SELECT shard, source, position FROM sources", "SELECT {shard}, * FROM sources"),
        ("SELECT shard, number, entry, reason, fields FROM dead", "SELECT {shard}, * FROM dead"),
        (
            "SELECT shard, checkpoint, records, applied, refused FROM shards",
            "SELECT {shard}, checkpoint, number, applied, refused FROM shard",
        ),
        (
            "SELECT shard, number, entry, count, digest, hash FROM entries",
            "SELECT {shard}, number, entry, count, digest, hash FROM entries",
        ),
    ],
)
def test_the_other_tables_are_those_of_the_shards(
    home: WrittenHome, file: Path, mine: str, theirs: str
) -> None:
    """With the number of the shard."""
    expected = of_all_shards(home, theirs)
    assert sorted(rows(file, mine)) == sorted(expected)
    assert len(expected) >= home.shards


def test_entries_tell_what_became_of_them(file: Path) -> None:
    """Decided with so many rows skipped and refused, behind a gap, or dead."""
    told = rows(file, "SELECT entry, outcome, skipped FROM entries WHERE shard = 1")
    assert told == [
        ("1-0", "decided", 0),
        ("1-1", "decided", 30),
        ("1-2", "decided", 10),
        ("1-3", "gap", 0),
        ("1-4", "dead", 0),
        ("1-5", "decided", 0),
    ]
    totals = rows(file, "SELECT sum(refused), sum(skipped) FROM entries")
    assert totals == rows(file, "SELECT sum(refused), sum(skipped) FROM shards")


def test_amounts_are_shown_with_four_decimals(file: Path) -> None:
    """Exactly, also below zero."""
    for available, shown in rows(
        file, "SELECT b.available, d.available FROM balances b JOIN balances_decimal d USING (account)"
    ):
        assert isinstance(available, int)
        sign, digits = "-" if available < 0 else "", f"{abs(available):05}"
        assert shown == f"{sign}{digits[:-4]}.{digits[-4:]}"
    assert rows(file, "SELECT DISTINCT time FROM transactions_decimal") == [("2023-11-14T22:13:20.123Z",)]
    assert rows(file, "SELECT count(*) FROM disputes_decimal") == rows(file, "SELECT count(*) FROM disputes")


def test_it_is_a_plain_file_for_its_owner_alone(file: Path) -> None:
    """No write-ahead log: it can be copied. Whole, and every reference leads somewhere."""
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(file.parent.iterdir()) == [file]
    assert rows(file, "PRAGMA journal_mode") == [("delete",)]
    assert rows(file, "PRAGMA integrity_check") == [("ok",)]
    assert rows(file, "PRAGMA foreign_key_check") == []
    assert rows(file, "PRAGMA foreign_key_list(transactions)")


def test_accounts_and_ids_are_found_by_index(file: Path) -> None:
    """Not by reading everything."""
    explained = "EXPLAIN QUERY PLAN SELECT * FROM transactions WHERE {}"
    for condition in ("account = 1", "tx = 1"):
        (plan,) = rows(file, explained.format(condition))
        assert "USING INDEX" in str(plan[3])


def test_transactions_can_be_left_away(home: WrittenHome, tmp_path: Path) -> None:
    """And their view with them."""
    path = taken(home, tmp_path / "small.db", with_transactions=False)
    names = {name for (name,) in rows(path, "SELECT name FROM sqlite_master")}
    assert "balances_decimal" in names
    assert not {name for name in names if "transactions" in str(name)}


def test_a_shard_that_has_applied_nothing_is_there_with_no_rows(tmp_path: Path) -> None:
    """As it is right after a pipeline begins."""
    path = taken(WrittenHome(tmp_path, 2), tmp_path / "books.db")
    assert rows(path, "SELECT shard, checkpoint FROM shards") == [(0, "1--1"), (1, "1--1")]
    assert rows(path, "SELECT count(*) FROM transactions") == [(0,)]


# --- one moment ------------------------------------------------------------------------------------------------


def test_what_is_committed_meanwhile_does_not_show(tmp_path: Path) -> None:
    """Of no shard, however late it is copied."""
    home = varied_home(tmp_path, 3)
    before = of_all_shards(home, "SELECT count(*), max(number) FROM entries")

    def commit_more(_: int) -> None:
        for shard in range(3):
            home.append(shard, 335, batch(shard, 3, "D", 336, [3_000]))
        home.work()

    telling = Telling(commit_more, lambda _: None, lambda: False)
    out = tmp_path / "books.db"
    take_snapshot(home.folder, out, telling, force=False, with_transactions=True)
    assert rows(out, "SELECT count(*), max(number) FROM entries GROUP BY shard") == before
    assert rows(out, "SELECT records FROM shards") == [(number,) for _, number in before]
    assert of_all_shards(home, "SELECT max(number) FROM entries") == [(number + 1,) for _, number in before]


class Commits:
    """A worker that commits to one shard after the other, between two looks, so many times."""

    def __init__(self, home: WrittenHome, count: int) -> None:
        self.home = home
        self.left = count
        self.position = 335

    def one(self) -> None:
        if self.left:
            self.left -= 1
            for shard in range(self.home.shards):
                row = self.position + 1
                self.home.append(shard, self.position, batch(shard, self.home.shards, "D", row, [row * 10]))
            self.position += 1
            self.home.work()


@pytest.mark.parametrize(("commits", "is_one_moment"), [(0, True), (3, True), (TRIES_MAX, False)])
def test_all_shards_are_of_one_moment(tmp_path: Path, commits: int, *, is_one_moment: bool) -> None:
    """Where a shard went on between the first beginning and the last, all are begun again; for ever is said."""
    worker = Commits(varied_home(tmp_path, 2), commits)
    paths = [shard_path(tmp_path, shard) for shard in range(2)]
    connections = [open_reading(path) for path in paths]
    warnings: list[str] = []
    ended: list[int] = []

    def begin() -> list[Shard]:
        found: list[Shard] = []
        for path, connection in zip(paths, connections, strict=True):
            connection.execute("BEGIN")
            found.append(opened_shard(path, connection, "main"))
            if len(found) == 1:
                worker.one()
        return found

    def end() -> None:
        ended.append(worker.left)
        for connection in connections:
            connection.execute("ROLLBACK")

    shards = begun_together(begin, end, warnings.append)
    assert (shards[0].point == shards[1].point) is is_one_moment
    assert len(ended) == min(commits, TRIES_MAX - 1)
    assert len(warnings) == (not is_one_moment)
    for connection in connections:
        connection.close()


@pytest.mark.parametrize("shards", [2, 11])
def test_who_reads_last_folds_the_write_ahead_log_in(tmp_path: Path, shards: int) -> None:
    """A worker that stops meanwhile cannot; whoever copies the database file alone then misses nothing."""
    home = varied_home(tmp_path, shards)
    text = "select account from balances order by account"
    with answered(tmp_path, judge(text, {}), SILENT) as result, Moment(tmp_path, print):
        next(result.rows)
        home.append(0, 335, batch(0, shards, "DDD", 336, [3_000, 3_001, 3_002]))
        home.work()
        assert list(tmp_path.glob("*-wal"))
    assert not list(tmp_path.glob("*-wal"))
    with closing(sqlite3.connect(f"{shard_path(tmp_path, 0).as_uri()}?immutable=1", uri=True)) as connection:
        late = connection.execute("SELECT count(*) FROM transaction_log WHERE row BETWEEN 336 AND 338")
        assert late.fetchall() == [(3,)]


# --- whole, or not there -----------------------------------------------------------------------------------------


def test_a_file_that_is_there_is_replaced_only_by_force(home: WrittenHome, tmp_path: Path) -> None:
    """Whatever it is."""
    target = tmp_path / "books.db"
    target.write_text("precious")
    with pytest.raises(UsageError, match="is there already"):
        taken(home, target)
    assert target.read_text() == "precious"
    assert rows(taken(home, target, force=True), "SELECT count(*) FROM shards") == [(3,)]


@pytest.mark.parametrize("name", ["shard-0001.db", "shard-0099.db", "shard-0001.db-wal", "linked.db"])
def test_a_shards_own_database_is_never_written(home: WrittenHome, tmp_path: Path, name: str) -> None:
    """Under whatever name; not by force either."""
    target = tmp_path / name
    if name == "linked.db":
        target.hardlink_to(shard_path(home.folder, 0))
    before = shard_path(home.folder, 0).read_bytes()
    with pytest.raises(UsageError, match="a shard's own database"):
        taken(home, target, force=True)
    assert shard_path(home.folder, 0).read_bytes() == before


@pytest.mark.parametrize("ending", ["-wal", "-journal"])
def test_what_a_former_database_left_is_not_made_part_of_it(
    home: WrittenHome, tmp_path: Path, ending: str
) -> None:
    """SQLite would take it for the new file's."""
    (tmp_path / f"books.db{ending}").write_bytes(b"pages")
    with pytest.raises(UsageError, match="belongs to a database"):
        taken(home, tmp_path / "books.db", force=True)


def test_a_folder_that_is_not_there_or_is_the_target_is_refused(home: WrittenHome, tmp_path: Path) -> None:
    """Nothing is made."""
    with pytest.raises(UsageError, match="there is no folder"):
        taken(home, tmp_path / "none" / "books.db")
    with pytest.raises(UsageError, match="is a folder"):
        taken(home, tmp_path, force=True)


def test_a_home_that_holds_nothing_is_refused(tmp_path: Path) -> None:
    """Or does not exist."""
    with pytest.raises(UsageError, match="holds no balances yet"):
        take_snapshot(tmp_path / "none", tmp_path / "out.db", SILENT, force=False, with_transactions=True)
    assert not (tmp_path / "out.db").exists()


@pytest.mark.parametrize("when", ["in the middle", "in SQLite"])
def test_an_interrupt_leaves_nothing(home: WrittenHome, tmp_path: Path, when: str) -> None:
    """Between two entries, or inside of a long statement."""
    looks = iter([False] * 3) if when == "in the middle" else iter([])
    telling = Telling(lambda _: None, lambda _: None, lambda: next(looks, True))
    with pytest.raises(Interrupted):
        take_snapshot(home.folder, tmp_path / "books.db", telling, force=False, with_transactions=True)
    assert not list(tmp_path.iterdir())


def in_a_process(
    body: str, home: WrittenHome, target: Path, prepare: Callable[[], None] | None = None
) -> int:
    """Takes a snapshot elsewhere; how that ended. body: what happens when the first rows are written."""
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from hftpipe.export.snapshot import take_snapshot\n"
        "from hftpipe.export.telling import Telling\n"
        f"telling = Telling(lambda _: None, lambda _: {body}, lambda: False)\n"
        "take_snapshot(Path(sys.argv[1]), Path(sys.argv[2]), telling, force=True, with_transactions=True)\n"
    )
    words = [sys.executable, "-c", code, str(home.folder), str(target)]
    return subprocess.run(words, preexec_fn=prepare, capture_output=True, check=False).returncode


def test_a_kill_leaves_what_was_there_and_the_next_one_cleans_up(home: WrittenHome, tmp_path: Path) -> None:
    """A draft of a process that is gone; that of one at work stays."""
    target = tmp_path / "books.db"
    target.write_text("precious")
    assert in_a_process("os.kill(os.getpid(), 9)", home, target) == -signal.SIGKILL
    assert target.read_text() == "precious"
    (abandoned,) = (path for path in tmp_path.iterdir() if path != target)
    at_work = tmp_path / ".books.db.1-00000000.draft"
    with at_work.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        taken(home, target, force=True)
        assert {path.name for path in tmp_path.iterdir()} == {"books.db", at_work.name}
    assert not abandoned.exists()


def test_a_full_disk_leaves_nothing(home: WrittenHome, tmp_path: Path) -> None:
    """Files of this process may not grow beyond some pages."""
    target = tmp_path / "books.db"

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    assert in_a_process("None", home, target, limit) == 1
    assert not list(tmp_path.iterdir())


# --- what is wrong with the home ---------------------------------------------------------------------------------


def test_a_damaged_journal_is_named(tmp_path: Path) -> None:
    """With shard and record; nothing is left."""
    home = varied_home(tmp_path, 2)
    with closing(sqlite3.connect(shard_path(tmp_path, 1))) as connection:
        connection.execute("UPDATE entries SET payload = '{' || payload WHERE number = 1")
        connection.commit()
    with pytest.raises(JournalDamaged, match="record 1 of shard 1"):
        taken(home, tmp_path / "books.db")
    assert not (tmp_path / "books.db").exists()


def test_a_value_that_is_no_integer_is_named(tmp_path: Path) -> None:
    """SQLite would have taken it for what it looks like."""
    home = WrittenHome(tmp_path, 1)
    home.append(0, 0, Batch.of("D", [0], [1], [5], [1]))
    home.work()
    with closing(sqlite3.connect(shard_path(tmp_path, 0))) as connection:
        connection.execute("UPDATE entries SET payload = replace(payload, '[5]', '[\"five\"]')")
        connection.commit()
    with pytest.raises(JournalDamaged, match="record 1 of shard 0"):
        taken(home, tmp_path / "books.db")


def test_shards_of_two_pipelines_are_not_put_together(tmp_path: Path) -> None:
    """Somebody copied a file."""
    home = WrittenHome(tmp_path, 2)
    shard_path(tmp_path, 1).unlink()
    shard_path(tmp_path, 1).write_bytes(shard_path(tmp_path, 0).read_bytes())
    with pytest.raises(PipelineMismatch, match="not two shards of one pipeline"):
        taken(home, tmp_path / "books.db")


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    """And why."""
    home = WrittenHome(tmp_path, 2)
    shard_path(tmp_path, 1).write_bytes(b"nonsense" * 1_000)
    with pytest.raises(HftpipeError, match=r"shard-0001\.db is damaged"):
        taken(home, tmp_path / "books.db")
