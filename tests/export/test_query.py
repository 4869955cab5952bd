"""SQL over all shards, live: the same answers as from a snapshot, and nothing is changed."""

import json
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hftpipe.cli.main import main
from hftpipe.errors import Interrupted, JournalDamaged, StoreDamaged, UsageError
from hftpipe.export.query import answered
from hftpipe.export.snapshot import take_snapshot
from hftpipe.export.statement import judge
from hftpipe.export.telling import Telling
from hftpipe.store.sqlite import shard_path
from tests.export.written_home import SILENT, WrittenHome, batch, varied_home

Rows = list[tuple[object, ...]]

STATEMENTS = [
    "select * from balances order by account",
    "select * from transactions order by shard, number, row",
    "select * from entries order by shard, number",
    "select * from disputes order by shard, tx",
    "select * from sources order by shard, source",
    "select * from dead order by shard",
    "select * from shards order by shard",
    "select * from balances_decimal order by account",
    "select * from transactions_decimal order by shard, number, row",
    "select * from disputes_decimal order by shard, tx",
    "select kind, outcome, count(*), sum(amount) from transactions group by 1, 2 order by 1, 2",
    "select count(*) from transactions",
    "select locked, count(*) from transactions join balances using (account) group by 1",
    "select count(*) from transactions natural join balances",
    "select total from balances where account = 2",
    "with t as (select account, count(*) as n from transactions group by 1) "
    "select max(n), (select count(*) from dead) from t join balances b on b.account = t.account where total > 0",
]


@pytest.fixture(scope="module", params=[3, 12], ids=["attached", "copied"])
def home(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> WrittenHome:
    """As many shards as SQLite attaches, and more."""
    return varied_home(tmp_path_factory.mktemp("home"), request.param)


@pytest.fixture(scope="module")
def file(home: WrittenHome, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A snapshot of it."""
    path = tmp_path_factory.mktemp("out") / "books.db"
    take_snapshot(home.folder, path, SILENT, force=False, with_transactions=True)
    return path


def asked(home: WrittenHome, text: str, **parameters: int | str) -> tuple[list[str], Rows]:
    """Columns and rows."""
    with answered(home.folder, judge(text, parameters), SILENT) as result:
        return list(result.columns), list(result.rows)


@pytest.mark.parametrize("text", STATEMENTS)
def test_the_answer_is_that_of_a_snapshot(home: WrittenHome, file: Path, text: str) -> None:
    """The same names, columns and rows."""
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as connection:
        cursor = connection.execute(text)
        expected = [name for name, *_ in cursor.description], cursor.fetchall()
    assert expected[1]
    assert asked(home, text) == expected


def test_parameters_are_bound(home: WrittenHome) -> None:
    """By name."""
    text = "select account from balances where account = :a"
    assert asked(home, text, a=4)[1] == [(4,)]
    assert asked(home, text, a=4_000)[1] == []


def test_columns_of_the_same_name_are_told_apart(home: WrittenHome) -> None:
    """An object of JSON has each name once."""
    assert asked(home, "select 1 as a, 2 as a, 3 as a_2, x'00ff'") == (
        ["a", "a_2", "a_2_2", "x'00ff'"],
        [(1, 2, 3, "00ff")],
    )


def test_what_is_committed_meanwhile_does_not_show(tmp_path: Path) -> None:
    """Of no shard, while the rows are read."""
    home = varied_home(tmp_path, 2)
    text = "select account, total from balances order by account"
    before = asked(home, text)[1]
    with answered(tmp_path, judge(text, {}), SILENT) as result:
        first = next(result.rows)
        for shard in range(2):
            home.append(shard, 335, batch(shard, 2, "DDD", 336, [3_000, 3_001, 3_002]))
        home.work()
        assert [first, *result.rows] == before
    assert asked(home, text)[1] != before


def test_an_error_while_it_runs_is_the_statements(home: WrittenHome) -> None:
    """Not the databases'."""
    with pytest.raises(UsageError, match="integer overflow"):
        asked(home, "select abs(-9223372036854775807 - 1)")
    with pytest.raises(UsageError, match="malformed JSON"):
        asked(home, "select json_extract('{', '$.a')")


@pytest.mark.parametrize("looks", [0, 2, 6])
def test_an_interrupt_ends_it(home: WrittenHome, looks: int) -> None:
    """A statement that would not end, too."""
    left = iter([False] * looks)
    telling = Telling(lambda _: None, lambda _: None, lambda: next(left, True))
    text = (
        "with recursive c(x) as (select count(*) from transactions union all select x + 1 from c) "
        "select sum(x) from c"
    )
    with pytest.raises(Interrupted), answered(home.folder, judge(text, {}), telling) as result:
        list(result.rows)


def test_a_home_that_holds_nothing_is_refused(tmp_path: Path) -> None:
    """With what to do."""
    for folder in (tmp_path, tmp_path / "none"):
        with (
            pytest.raises(UsageError, match="holds no balances yet"),
            answered(folder, judge("select 1", {}), SILENT),
        ):
            pass


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    """Attached or not, read or decoded."""
    home = varied_home(tmp_path, 2)
    with closing(sqlite3.connect(shard_path(tmp_path, 1))) as connection:
        connection.execute("UPDATE entries SET outcomes = 'x' WHERE number = 1")
        connection.commit()
    with pytest.raises(JournalDamaged, match="record 1 of shard 1"):
        asked(home, "select * from transactions")
    shard_path(tmp_path, 1).write_bytes(b"nonsense" * 1_000)
    with pytest.raises(StoreDamaged, match=r"shard-0001\.db is damaged"):
        asked(home, "select * from balances")


# --- the command ------------------------------------------------------------------------------------------------


@pytest.fixture
def handlers() -> Iterator[None]:
    """The commands set handlers of signals; here they are put back."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def hftpipe(*arguments: str, typed: str = "") -> Result:
    """A command line."""
    return CliRunner().invoke(main, arguments, input=typed)


@pytest.mark.usefixtures("handlers")
def test_the_command_writes_rows(home: WrittenHome) -> None:
    """From its argument or standard input, in any format."""
    place = ("--home", str(home.folder))
    text = "select account, locked from balances where account < :below order by 1"
    given = ("--param", "below=2", *place)
    assert hftpipe("query", text, *given, "--format", "csv").stdout == "account,locked\n0,1\n1,1\n"
    rows = json.loads(hftpipe("query", "-", *given, "--format", "json", typed=text).stdout)
    assert rows == [{"account": 0, "locked": 1}, {"account": 1, "locked": 1}]
    wrong = hftpipe("query", "select * FORM balances", *place)
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert "line 1, column 10" in wrong.stderr
    assert hftpipe("query", "select 1", "--home", "/nowhere").exit_code == 2


@pytest.mark.usefixtures("handlers")
def test_the_command_takes_snapshots(home: WrittenHome, tmp_path: Path) -> None:
    """And says what is in it."""
    target, place = tmp_path / "books.db", ("--home", str(home.folder))
    done = hftpipe("snapshot", str(target), *place)
    assert (done.exit_code, done.stdout) == (0, "")
    assert f"{target}: {home.shards} shards" in done.stderr
    assert hftpipe("snapshot", str(target), *place).exit_code == 2
    assert hftpipe("snapshot", str(target), "--force", "--no-transactions", *place).exit_code == 0
    assert hftpipe("snapshot", str(tmp_path / "other.db"), "--home", "/nowhere").exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["books.db"]
