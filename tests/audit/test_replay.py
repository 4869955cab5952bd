"""A replay comes to what is there, in any pieces; it reports what was asked for, and changes nothing."""

import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from itertools import repeat
from pathlib import Path

import pytest

from hftpipe.audit.asking import recorded
from hftpipe.audit.differing import differing
from hftpipe.audit.dryrun import DryRun
from hftpipe.audit.journal import Journal, read_legible
from hftpipe.audit.material import Recording
from hftpipe.audit.parallel import Progress, for_each_shard
from hftpipe.audit.recount import COMMIT_ENTRIES_MAX, COMMIT_TRANSACTIONS, groups
from hftpipe.audit.replay import Replay, Replayed, differences, replayed_balances
from hftpipe.audit.window import Origin, Window, window_of
from hftpipe.cli.replay import folder_for
from hftpipe.core.entry import EntryId, Foreign
from hftpipe.core.recorded import fields_of_entry
from hftpipe.errors import HftpipeError, Interrupted, JournalDamaged, StoreDamaged, UsageError
from hftpipe.invariants import replay
from hftpipe.moments import Address, Instant, Moment, parse_moment
from hftpipe.ports import Outgoing
from hftpipe.store.reading import Balance, snapshot, store_paths
from hftpipe.store.sqlite import shard_path
from hftpipe.wiring.pipeline import Place
from tests.audit.doubled import Doubled
from tests.audit.prepared import SHARDS, Prepared
from tests.core.driver import entry_of

ALL = Window()


def replayed(
    prepared: Prepared,
    folder: Path,
    window: Window = ALL,
    *,
    shards: Sequence[int] = range(SHARDS),
    transactions: int = COMMIT_TRANSACTIONS,
    keeps: bool = False,
    compares: bool = False,
) -> dict[int, Replayed]:
    """What a replay of some shards, from their journals, comes to."""
    folder.mkdir(exist_ok=True)
    recording = Recording(prepared.home, SHARDS, window, Origin.JOURNAL)
    task = Replay(recording, folder, transactions, keeps, compares)
    return {shard: task(shard, lambda _: None) for shard in shards}


def content(home: Path) -> dict[str, bytes]:
    """Every file of a home, but for the index that SQLite makes of a write-ahead log while somebody reads."""
    files = {path.name: path.read_bytes() for path in home.iterdir() if path.is_file()}
    return {name: found for name, found in files.items() if not name.endswith("-shm") and found}


@pytest.mark.parametrize("transactions", [1, 50, 100_000])
def test_a_replay_comes_to_the_live_tables_and_changes_nothing(
    prepared: Prepared, tmp_path: Path, transactions: int
) -> None:
    before = content(prepared.home)
    replayed(prepared, tmp_path / "scratch", transactions=transactions, keeps=True)
    live, again = (
        [snapshot(path) for path in store_paths(home)] for home in (prepared.home, tmp_path / "scratch")
    )
    assert [shard.tables for shard in again] == [shard.tables for shard in live]
    assert [shard.checkpoint for shard in again] == [shard.checkpoint for shard in live]
    assert content(prepared.home) == before


def test_what_is_kept_is_as_a_live_store(prepared: Prepared, tmp_path: Path) -> None:
    """A writer and readers can use it at once."""
    replayed(prepared, tmp_path / "scratch", keeps=True)
    for path in store_paths(tmp_path / "scratch"):
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_what_is_kept_gets_a_folder_of_its_own(tmp_path: Path) -> None:
    """The home of a pipeline that has applied nothing yet holds no store either."""
    home = tmp_path / "home"
    (home / "redis").mkdir(parents=True)
    with pytest.raises(UsageError, match="home is not empty"), folder_for(home):
        pass
    with folder_for(tmp_path / "new") as folder:
        assert folder == tmp_path / "new"
    with folder_for(folder) as again:
        assert again == folder


def test_a_commit_is_bounded_in_entries_too(prepared: Prepared, tmp_path: Path) -> None:
    """However few transactions they have."""
    entry = entry_of(0, [("D", 1, 1, 1)])
    found = groups(repeat(entry, 2 * COMMIT_ENTRIES_MAX + 1), COMMIT_TRANSACTIONS)
    assert [len(group) for group in found] == [COMMIT_ENTRIES_MAX, COMMIT_ENTRIES_MAX, 1]
    shards, fields = 8, fields_of_entry(entry)
    with DryRun(tmp_path, shards, keeps=False) as run:
        run.append([Outgoing(0, fields)] * (COMMIT_ENTRIES_MAX // shards + 1))
        assert run._shards[0].tally.entries == COMMIT_ENTRIES_MAX // shards
        assert run.finish().entries == COMMIT_ENTRIES_MAX // shards + 1


def test_the_processes_of_a_replay_need_no_client_of_the_server() -> None:
    """Each would load it, for nothing."""
    modules = "hftpipe.audit.replay, hftpipe.audit.explain, hftpipe.audit.whatif"
    told = subprocess.run(
        [sys.executable, "-c", f"import sys, {modules}; print('redis' in sys.modules)"],
        capture_output=True,
        check=True,
    )
    assert told.stdout == b"False\n"


@pytest.mark.parametrize("sequence", [0, 7, 15, 34])
def test_a_replay_ends_where_it_is_told_to(prepared: Prepared, tmp_path: Path, sequence: int) -> None:
    """As the plain ledger stands there, entry by entry."""
    result = replayed(prepared, tmp_path / "scratch", Window(last=EntryId(1, sequence)), shards=[0])[0]
    expected = next(
        [Balance(account, *cells[:3]) for account, cells in sorted(store.balances.items())]
        for record, _, store in replay(snapshot(shard_path(prepared.home, 0)))
        if record.id.sequence == sequence
    )
    assert (result.last, result.tally.entries) == (EntryId(1, sequence), sequence + 1)
    assert list(replayed_balances(tmp_path / "scratch", [result])) == expected


def test_a_replay_reports_from_where_it_is_told_to(prepared: Prepared, tmp_path: Path) -> None:
    """What was before is decided all the same."""
    result = replayed(prepared, tmp_path / "scratch", Window(first=EntryId(1, 32)), shards=[0])[0]
    live = snapshot(shard_path(prepared.home, 0)).tables
    named = {account for account, (*_, number) in live.balances.items() if number >= 33}
    assert 0 < len(named) < len(live.balances)
    assert {balance.account for balance in replayed_balances(tmp_path / "scratch", [result])} == named
    assert (result.reported_from, result.tally.entries, result.tally.gaps) == (33, 3, 1)
    assert result.tally.refused.total() + result.tally.applied == sum(
        record.count for record in live.records[32:] if record.outcomes != '{"gap":true}'
    )


def test_a_replay_until_a_time_ends_with_the_last_entry_before(prepared: Prepared, tmp_path: Path) -> None:
    """By the time of its append."""
    with Journal(shard_path(prepared.home, 0), 0, SHARDS) as journal:
        times = {record.id: record.time_ms for page in journal.records(1, 99) for record in page}
    early, late = sorted({each for each in times.values() if each})[:2]
    last = max(entry_id for entry_id, time_ms in times.items() if time_ms == early)
    for until_ms in (early, late - 1):
        result = replayed(prepared, tmp_path / str(until_ms), Window(until_ms=until_ms))[0]
        assert (result.last, result.tally.entries) == (last, last.sequence + 1)
    assert not replayed(prepared, tmp_path / "none", Window(until_ms=early - 1))[0].tally.entries


def test_an_entry_that_is_not_there_is_refused(prepared: Prepared, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="0/1-99 is not in the journal, which ends with 0/1-34"):
        replayed(prepared, tmp_path, Window(last=EntryId(1, 99)))
    with pytest.raises(UsageError, match="0/1-99 is not among the entries"):
        replayed(prepared, tmp_path / "other", Window(first=EntryId(1, 99)))


def test_what_differs_from_the_live_balances_is_told(prepared: Prepared, tmp_path: Path) -> None:
    copied = prepared.copy(tmp_path / "home")
    copied.change("UPDATE balances SET held = held + 1 WHERE account = 4")
    copied.change("DELETE FROM balances WHERE account = 5", shard=1)
    replayed(copied, tmp_path / "scratch", compares=True)
    found = list(differences(tmp_path / "scratch", range(SHARDS)))
    assert [(account, live is None, again is None) for account, live, again in found] == [
        (4, False, False),
        (5, True, False),
    ]
    _, live, again = found[0]
    assert live is not None
    assert again is not None
    assert live[2] == again[2] + 1


def test_a_live_table_that_cannot_be_read_is_named(prepared: Prepared, tmp_path: Path) -> None:
    """And not the scratch store, which is read beside it."""
    copied = prepared.copy(tmp_path / "home")
    with copied.shard() as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'balances'").fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    path = shard_path(copied.home, 0)
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)
    with pytest.raises(StoreDamaged, match=f"{path} is damaged"):
        replayed(copied, tmp_path / "scratch", shards=[0], compares=True)


def test_a_journal_that_was_changed_is_not_replayed(prepared: Prepared, tmp_path: Path) -> None:
    copied = prepared.copy(tmp_path / "home")
    copied.change("UPDATE entries SET position = position + 1 WHERE number = 9")
    with pytest.raises(JournalDamaged, match="journal record 9 of shard 0"):
        replayed(copied, tmp_path / "scratch")
    copied.change("DELETE FROM entries WHERE number = 9")
    with pytest.raises(JournalDamaged, match="record 9 of shard 0 is missing"):
        replayed(copied, tmp_path / "again")


def test_outcomes_that_the_ledger_does_not_come_to_are_told(prepared: Prepared, tmp_path: Path) -> None:
    copied = prepared.copy(tmp_path / "home")
    assert {result.disagrees for result in replayed(copied, tmp_path / "well").values()} == {0}
    copied.change("UPDATE entries SET hash = digest WHERE number = 9")
    assert replayed(copied, tmp_path / "scratch")[0].disagrees == 9


def test_a_dead_letter_is_read_back_byte_by_byte(prepared: Prepared) -> None:
    with Journal(shard_path(prepared.home, 0), 0, SHARDS) as journal:
        dead = [each.entry for page in journal.read() for each in page if isinstance(each.entry, Foreign)]
    assert [dict(foreign.fields) for foreign in dead] == [{b"hello\\": b"w\xffrld", b"\xfe": b"\\x41"}] * 2
    assert read_legible("{}") == {}


def test_nothing_to_replay_is_said(tmp_path: Path, prepared: Prepared) -> None:
    with pytest.raises(UsageError, match="nothing was applied"):
        recorded(Place(tmp_path / "none"), [], ALL, Origin.AUTO)
    with pytest.raises(UsageError, match="the pipeline has 2"):
        recorded(Place(prepared.home), [2], ALL, Origin.AUTO)
    recording, shards = recorded(Place(prepared.home), [], ALL, Origin.AUTO)
    assert (shards, recording.shards, recording.logs) == ([0, 1], 2, None)
    until = recorded(Place(prepared.home), [1], Window(until_ms=5), Origin.AUTO)
    assert (until[0].logs is not None, until[1]) == (True, [1])


# --- what a person says -------------------------------------------------------------------------------------------


def test_an_address_belongs_to_one_shard() -> None:
    first, last = Address(None, EntryId(1, 5)), Address(3, EntryId(1, 9))
    assert window_of([3], first, None, None) == ([3], Window(first=EntryId(1, 5)))
    assert window_of([], None, None, last) == ([3], Window(last=EntryId(1, 9)))
    assert window_of([], first, last, None) == ([3], Window(EntryId(1, 5), EntryId(1, 9)))
    assert window_of([0, 1], None, None, Instant(7)) == ([0, 1], Window(until_ms=7))
    wrong: list[tuple[list[int], Address | None, Address | None, Moment | None]] = [
        ([], first, None, None),
        ([0, 1], first, None, None),
        ([1], None, last, None),
        ([], Address(2, EntryId(1, 1)), last, None),
        ([], None, last, Instant(7)),
        ([3], last, Address(3, EntryId(1, 1)), None),
    ]
    for words in wrong:
        with pytest.raises(UsageError):
            window_of(*words)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("3/1-1042", Address(3, EntryId(1, 1042))),
        ("1-0", Address(None, EntryId(1, 0))),
        ("1700000000", Instant(1_700_000_000_000)),
        ("1700000000.25", Instant(1_700_000_000_250)),
        ("1700000000123", Instant(1_700_000_000_123)),
        ("2023-11-14T22:13:20Z", Instant(1_700_000_000_000)),
        ("2023-11-15 00:13:20+02:00", Instant(1_700_000_000_000)),
    ],
)
def test_a_moment_is_an_address_or_a_time(text: str, moment: Address | Instant) -> None:
    assert parse_moment(text) == moment


@pytest.mark.parametrize("text", ["", "x", "3/", "1-", "-1", "2023-13-01", "1e5", "3/1-2/4", "９", "1" * 30])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no address of an entry"):
        parse_moment(text)


# --- many shards --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("processes", [0, 2])
def test_each_shard_is_worked_on_once(processes: int) -> None:
    told: list[Progress] = []
    found = for_each_shard(
        Doubled(), [4, 5, 6], processes=processes, stopping=lambda: False, tell=told.append
    )
    assert found == {4: 8, 5: 10, 6: 12}
    assert sorted(progress.shard for progress in told) == [4, 5, 6]
    with pytest.raises(UsageError, match="not this one"):
        for_each_shard(Doubled(), [1, 99], processes=processes, stopping=lambda: False, tell=told.append)
    with pytest.raises(Interrupted):
        for_each_shard(Doubled(), [1, 2], processes=processes, stopping=lambda: True, tell=told.append)


def test_a_process_that_dies_is_told() -> None:
    with pytest.raises(HftpipeError, match="for shard 98 ended with 3"):
        for_each_shard(Doubled(), [98, 97], processes=2, stopping=lambda: False, tell=lambda _: None)


def test_tables_are_compared_row_by_row() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        one, other = (
            connection.execute("SELECT value ->> 0, value ->> 1 FROM json_each(?)", (rows,))
            for rows in ("[[1,1],[2,2],[4,4],[5,5]]", "[[1,1],[3,3],[4,0],[5,5],[6,6]]")
        )
        assert list(differing(one, other)) == [
            ((2, 2), None),
            (None, (3, 3)),
            ((4, 4), (4, 0)),
            (None, (6, 6)),
        ]
