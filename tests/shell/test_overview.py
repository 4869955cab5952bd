"""One look at a pipeline whose log is away: what its stores say."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import orjson
import pytest
from click.testing import CliRunner, Result

from hftpipe.cli.main import main
from hftpipe.cli.top import _total_row
from hftpipe.core.entry import encode
from hftpipe.core.transaction import Batch
from hftpipe.errors import StoreUnavailable
from hftpipe.owner import is_dead, new_owner
from hftpipe.status import NO_WORKER
from hftpipe.store import gauge
from hftpipe.store.creation import create
from hftpipe.store.gauge import EARLIER, HomeGauge, Reading, accounts_in
from hftpipe.store.sqlite import SqliteStore, shard_path
from hftpipe.telemetry.lookout import FRESH_MS, Lookout
from hftpipe.telemetry.overview import Observer, Overview
from hftpipe.telemetry.rates import rates
from hftpipe.wiring.pipeline import Place
from tests.shell.memory_pipeline import StillClock
from tests.shell.shard_bench import ShardBench


class Books:
    """A home with one shard, and the log that it is fed from."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.bench = ShardBench()
        create(shard_path(home, 0), self.bench.topology, 0)
        self.rows = 0

    def work(self, *kinds: str) -> None:
        """Entries of such transactions of ten, one account and one id each, applied one by one."""
        for letters in kinds:
            rows = list(range(self.rows + 1, self.rows + len(letters) + 1))
            amounts = [0 if letter == "P" else 10 for letter in letters]
            batch = Batch.of(letters, rows, rows, amounts, rows)
            self.bench.append_fields(encode("file", self.rows, batch, 0))
            self.rows += len(letters)
            self.bench.worker(store=SqliteStore(shard_path(self.home, 0))).run()


@pytest.fixture
def books(tmp_path: Path) -> Books:
    """An empty shard."""
    return Books(tmp_path)


def locked(_: object) -> NoReturn:
    """What a store says that another one holds."""
    raise StoreUnavailable("database is locked")


def look(home: Path) -> Overview:
    """The first look of an observer."""
    observer = Observer(Place(home))
    seen = observer.look()
    observer.close()
    return seen


def test_a_home_that_does_not_exist_is_no_error_and_is_not_made(tmp_path: Path) -> None:
    """It says so."""
    seen = look(tmp_path / "none")
    assert (seen.shards, seen.pipeline, seen.server) == ([], "", None)
    assert "holds no pipeline yet" in seen.problem
    assert not (tmp_path / "none").exists()


def test_without_a_log_the_stores_tell_what_they_know(books: Books) -> None:
    """What only the log knows is unknown, not zero."""
    books.work("DDW", "W")
    seen = look(books.home)
    (view,) = seen.shards
    assert (view.applied, view.transactions, view.refused) == (2, 2, 2)
    assert (view.appended, view.backlog, view.backlog_seconds, view.reach) == (None, None, None, None)
    assert view.state == NO_WORKER
    assert seen.transactions_in is None
    assert seen.refused_by_reason == {"insufficient_funds": 2}


def test_a_private_server_that_is_down_is_not_started(books: Books) -> None:
    """Only who works with it starts it."""
    (books.home / "redis").mkdir()
    assert "no server runs" in look(books.home).problem
    assert not (books.home / "keeper.lock").exists()


def test_a_server_that_cannot_be_reached_is_told(books: Books) -> None:
    """With its address, and without its password."""
    place = Place(books.home, "redis://:secret@127.0.0.1:1/0")
    observer = Observer(place)
    seen = observer.look()
    observer.close()
    assert "the log was not asked" in seen.problem
    assert "secret" not in seen.problem
    assert len(seen.shards) == 1


def test_a_look_is_json_as_it_is(books: Books) -> None:
    """For the dashboard and for scripts."""
    books.work("D")
    found = orjson.loads(orjson.dumps(look(books.home)))
    assert found["shards"][0]["transactions"] == 1
    assert found["hottest"] == [[1, 1]]


def test_an_owner_that_lives_runs_the_shard(books: Books) -> None:
    """By its process."""
    store = SqliteStore(shard_path(books.home, 0))
    assert store.take(new_owner(), store.ownership()) == 1
    store.close()
    (view,) = look(books.home).shards
    assert (view.state, view.epoch) == ("running", 1)


def test_a_damaged_store_is_told_and_hides_no_other(tmp_path: Path) -> None:
    """Each shard stands for itself."""
    bench = ShardBench()
    for shard in (0, 1):
        create(shard_path(tmp_path, shard), type(bench.topology)("two", 2, 1, 1), shard)
    observer = Observer(Place(tmp_path))
    assert [view.state for view in observer.look().shards] == [NO_WORKER, NO_WORKER]
    shard_path(tmp_path, 1).unlink()
    shard_path(tmp_path, 1).write_bytes(b"this is no database" * 1_000)
    intact, damaged = observer.look().shards
    observer.close()
    assert intact.state == NO_WORKER
    assert damaged.state.startswith("stopped: ")


def test_a_store_that_cannot_be_read_for_one_look_stands_as_it_stood(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Zeros would look like a counter that began anew, and then like thousands applied at once."""
    books.work("DDW")
    with closing(Observer(Place(books.home))) as observer:
        before = observer.look()
        with monkeypatch.context() as patched:
            patched.setattr(gauge.ShardGauge, "read", locked)
            during = observer.look()
        after = observer.look()
    (seen, unseen, again) = (looked.shards[0] for looked in (before, during, after))
    assert unseen.state.startswith("unreadable: ")
    assert (unseen.transactions, unseen.refused, unseen.applied) == (2, 1, 1)
    assert replace(unseen, state=seen.state) == seen == again
    assert rates(during, after).applied_per_s == rates(before, during).applied_per_s == 0


def test_what_cannot_be_read_now_has_nothing_new(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of the look before are not seen again."""
    books.work("DD")
    with closing(Observer(Place(books.home))) as observer:
        assert observer.look().hottest == [(1, 1), (2, 1)]
        monkeypatch.setattr(gauge.ShardGauge, "read", locked)
        assert observer.look().hottest == []


def test_what_stood_in_another_pipeline_stands_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A home that was made anew, of as many shards, of which one cannot be read at that look."""
    topology = type(ShardBench().topology)
    read = gauge.ShardGauge.read

    def locked_if_second(shard: gauge.ShardGauge) -> Reading:
        found = read(shard)
        return locked(shard) if found.shard else found

    with closing(Observer(Place(tmp_path))) as observer:
        for shard in (0, 1):
            create(shard_path(tmp_path, shard), topology("one", 2, 1, 1), shard)
        assert [view.epoch for view in observer.look().shards] == [0, 0]
        for shard in (0, 1):
            shard_path(tmp_path, shard).unlink()
            create(shard_path(tmp_path, shard), topology("two", 2, 1, 1), shard)
        monkeypatch.setattr(gauge.ShardGauge, "read", locked_if_second)
        seen = observer.look()
    assert seen.pipeline == "two"
    assert [view.epoch for view in seen.shards] == [0, None]


def test_a_store_that_was_never_read_is_unknown(books: Books) -> None:
    """Not empty."""
    path = shard_path(books.home, 0)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA ignore_check_constraints=ON")
        connection.execute("UPDATE shard SET checkpoint = 'nonsense'")
    with closing(Observer(Place(books.home))) as observer:
        observer._shards = 1  # as its log would say
        (view,) = observer.look().shards
    assert view.state.startswith("stopped: ")
    assert (view.transactions, view.applied, view.epoch, view.backlog) == (None,) * 4


@pytest.mark.parametrize("payload", ['{"account":[1,', '{"account":7}', '{"acc', "[]", 3])
def test_a_damaged_payload_hides_nothing_else(books: Books, payload: object) -> None:
    """The accounts of a sample are not worth a look; `hftpipe verify` finds it."""
    books.work("DD")
    with closing(sqlite3.connect(shard_path(books.home, 0))) as connection, connection:
        connection.execute("UPDATE entries SET payload = ?", (payload,))
    seen = look(books.home)
    assert (seen.shards[0].transactions, seen.hottest) == (2, [])


def test_an_owner_that_is_none_of_ours_is_not_known_to_be_dead() -> None:
    """Its lease has to run out."""
    host = new_owner().split(" ")[0]
    assert not is_dead(f"{host} seven 8 9")


def test_a_home_that_is_removed_and_made_anew_is_looked_at_anew(books: Books) -> None:
    """With another number of shards, too."""
    books.work("D")
    observer = Observer(Place(books.home))
    assert observer.look().shards[0].transactions == 1
    for path in books.home.glob("shard-*"):
        path.unlink()
    assert observer.look().shards == []
    for shard in (0, 1, 2):
        create(shard_path(books.home, shard), type(books.bench.topology)("three", 3, 1, 1), shard)
    seen = observer.look()
    observer.close()
    assert (seen.pipeline, len(seen.shards)) == ("three", 3)


# --- counting ---------------------------------------------------------------------------------------------------


def test_refusals_are_counted_as_they_come(books: Books) -> None:
    """From one look to the next, by reason."""
    home = HomeGauge(books.home)
    assert home.read([0])[0][0].refused == {}
    books.work("W", "D", "P")
    assert home.read([0])[0][0].refused == {"insufficient_funds": 1, "unknown_tx": 1}
    books.work("W")
    assert home.read([0])[0][0].refused == {"insufficient_funds": 2, "unknown_tx": 1}
    assert home.read([0])[0][0].refused == {"insufficient_funds": 2, "unknown_tx": 1}
    home.close()


def test_a_long_journal_is_counted_back_a_few_records_a_look(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not counted yet is there under a name of its own: nothing is hidden."""
    monkeypatch.setattr(gauge, "EARLIER_RECORDS_MAX", 2)
    books.work("W", "P", "WW", "W", "D")
    home = HomeGauge(books.home)
    found = [home.read([0])[0][0].refused for _ in range(4)]
    home.close()
    assert found == [
        {"insufficient_funds": 1, EARLIER: 4},
        {"insufficient_funds": 3, "unknown_tx": 1, EARLIER: 1},
        {"insufficient_funds": 4, "unknown_tx": 1},
        {"insufficient_funds": 4, "unknown_tx": 1},
    ]


def test_more_new_records_than_a_look_takes_are_counted_by_the_next(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look is never long."""
    monkeypatch.setattr(gauge, "RECORDS_MAX", 2)
    home = HomeGauge(books.home)
    home.read([0])
    books.work("W", "W", "W", "W", "W")
    found = [home.read([0])[0][0].refused for _ in range(3)]
    home.close()
    assert found == [
        {"insufficient_funds": 2, EARLIER: 3},
        {"insufficient_funds": 4, EARLIER: 1},
        {"insufficient_funds": 5},
    ]


def test_only_accounts_of_new_records_are_hot(books: Books) -> None:
    """An idle pipeline has none."""
    home = HomeGauge(books.home)
    books.work("DD", "D")
    assert sorted(home.read([0])[0][0].accounts) == [1, 2, 3]
    assert list(home.read([0])[0][0].accounts) == []
    books.work("D")
    assert list(home.read([0])[0][0].accounts) == [4]
    home.close()


def test_of_many_rows_a_sample_is_hot(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """Full entries come hundreds a second: to count them all would be felt."""
    monkeypatch.setattr(gauge, "HOT_ROWS_MAX", 3)
    home = HomeGauge(books.home)
    books.work("DDDDD", "DD")
    assert list(home.read([0])[0][0].accounts) == [6, 7, 1]
    home.close()


@pytest.mark.parametrize("blank", ["", " "])
def test_accounts_are_read_from_any_payload_that_the_ledger_accepts(blank: str) -> None:
    """In our own shape, and in another."""
    assert accounts_in(f'{{"kind":"DD","account":{blank}[7,8],"tx":[1,2]}}') == [7, 8]


def test_rates_are_differences_and_never_negative(books: Books) -> None:
    """Also where a copy was restored meanwhile."""
    books.work("DW")
    first = look(books.home)
    books.work("DDW")
    second = look(books.home)
    speed = rates(first, second)
    assert (speed.applied_per_s * speed.seconds, speed.refused_per_s * speed.seconds) == pytest.approx((2, 1))
    assert rates(second, first).applied_per_s == 0
    assert speed.transactions_in_per_s is None


# --- for scripts --------------------------------------------------------------------------------------------------


def once(home: Path, *words: str) -> Result:
    """`hftpipe top --once`, with almost no time between its looks."""
    return CliRunner().invoke(main, ["top", "--home", str(home), "--once", "--interval", "0.1", *words])


def test_a_look_for_scripts_is_a_line_a_shard_and_one_for_all(books: Books) -> None:
    """What could not be asked is told to people."""
    books.work("DDW")
    result = once(books.home, "--format", "csv")
    assert result.exit_code == 0
    head, shard, total = result.stdout.splitlines()
    assert head.startswith("shard,state,owner,in_per_s,applied_per_s,")
    assert shard.startswith("0,stopped: no worker runs,,-,0.0,0.0,-,-,-,-,2,1,0")
    assert total.startswith("all,0 of 1 running,,-,0.0,0.0,-,-,-,-,2,1,0")
    assert "holds no pipeline yet" in result.stderr


def test_as_json_it_is_all_that_is_known(books: Books) -> None:
    """One object: the second look, and the rates between both."""
    books.work("DW")
    found = orjson.loads(once(books.home, "--format", "json").stdout)
    assert found["overview"]["refused_by_reason"] == {"insufficient_funds": 1}
    assert found["rates"]["shards"]["0"]["applied_per_s"] == 0


def test_what_is_known_of_no_shard_is_no_sum(books: Books) -> None:
    """Nor a zero."""
    known = look(books.home)
    (view,) = known.shards
    unknown = replace(view, transactions=None, refused=None, dead=None)
    speed = rates(known, known)
    *_, applied, refused, dead = _total_row(replace(known, shards=[unknown, unknown]), speed)
    assert (applied, refused, dead) == (None, None, None)
    *_, applied, refused, dead = _total_row(replace(known, shards=[unknown, replace(view, refused=3)]), speed)
    assert (applied, refused, dead) == (0, 3, 0)


def test_where_there_is_no_pipeline_it_says_so(tmp_path: Path) -> None:
    """As `status` does."""
    result = once(tmp_path / "none")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "holds no pipeline yet" in result.stderr


def test_where_there_is_no_terminal_top_draws_nothing(books: Books) -> None:
    """It says what to use instead."""
    result = CliRunner().invoke(main, ["top", "--home", str(books.home)])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--once" in result.stderr


def test_those_who_wait_for_a_slow_look_share_it(books: Books) -> None:
    """It was fresh when it ended, however long ago it began."""
    clock = StillClock()

    class Slow(Observer):
        looks = 0

        def look(self) -> Overview:
            Slow.looks += 1
            clock.now_ms += 8 * FRESH_MS
            return super().look()

    with closing(Lookout(Slow(Place(books.home)), clock)) as lookout:
        first = lookout.overview()
        assert lookout.overview() is first
        assert Slow.looks == 1
        clock.now_ms += FRESH_MS
        assert lookout.overview() is not first
