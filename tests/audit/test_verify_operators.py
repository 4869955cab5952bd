"""Verify and those who mend: losses that were accepted, decisions, steps back, a machine without room, a stop."""

import resource
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from hftpipe.audit.decision_check import DecisionCheck
from hftpipe.audit.findings import Findings
from hftpipe.audit.parallel import BYTES_PER_PROCESS_MIN, for_each_shard, worthwhile
from hftpipe.audit.shared_ids import IdFiles, parts_for
from hftpipe.core.entry import EntryId, Lost
from hftpipe.core.taken import Taken
from hftpipe.errors import HftpipeError, ScratchUnavailable
from hftpipe.store.creation import create
from hftpipe.store.reading import open_reading
from hftpipe.store.sqlite import shard_path
from tests.audit.doubled import Doubled
from tests.audit.prepared import FilePipeline, Prepared, named

# --- losses -------------------------------------------------------------------------------------------------------


@pytest.fixture
def waiting(tmp_path: Path) -> Prepared:
    """A home of which nothing is applied."""
    home, path = tmp_path / "home", tmp_path / "source.csv"
    home.mkdir()
    pipeline = FilePipeline(home)
    for number in range(4):
        path.write_bytes(b"type,client,tx,amount\n" + b"deposit,2,%d,1\n" % (number + 1))
        pipeline.ingest(path, source=f"source-{number}")
    create(shard_path(home, 0), pipeline.topology, 0)
    return Prepared(home, pipeline.log)


def test_a_damaged_entry_that_was_given_up_is_well(waiting: Prepared) -> None:
    """The first record of all, the last one, and right behind a loss of several; it is still in the log."""
    waiting.give_up_damaged(EntryId(1, 0))
    assert not waiting.findings()
    for sequence in (1, 2):
        del waiting.log.streams[0].entries[EntryId(1, sequence)]
    waiting.give_up(Lost(EntryId(1, 2), "lost", {}, "", EntryId(1, 1), {}))
    waiting.give_up_damaged(EntryId(1, 3))
    assert not waiting.findings()


def test_a_damaged_entry_that_was_given_up_is_well_between_others(copied: Prepared) -> None:
    copied.give_up_damaged(EntryId(1, 35))
    assert not copied.findings()
    copied.apply()
    assert not copied.findings()
    entries = copied.log.streams[0].entries
    entries[EntryId(1, 35)] = {**entries[EntryId(1, 35)], b"t": b"2"}
    named(copied.findings(), "log", "^0/1-35$", "t=b'2'", "t=b'1'")


# --- steps back ---------------------------------------------------------------------------------------------------


def test_a_log_that_was_put_back_is_well(prepared: Prepared, tmp_path: Path) -> None:
    """It lost its tail, others were applied, and then the former one was found again: ids jump ahead, too."""
    again = prepared.rewound(tmp_path / "home")
    again.log.streams[0] = deepcopy(prepared.log.streams[0])
    again.apply()
    assert not again.findings(asks_log=False)
    again.change("UPDATE shard SET incarnation = 60")
    named(again.findings(asks_log=False), "shard", "incarnation", "60", "at most")


def test_steps_back_that_are_not_to_be_seen_any_more_are_well(prepared: Prepared, tmp_path: Path) -> None:
    """Twice it went back with nothing applied between: the entry ids jump once."""
    again = prepared.rewound(tmp_path / "home")
    again.change("UPDATE shard SET incarnation = 2")
    assert not again.findings(asks_log=False)


# --- decisions ----------------------------------------------------------------------------------------------------

_LOSSES = {35: Lost(EntryId(1, 36), "lost", {}, "", EntryId(1, 35), {})}
_DECIDED = (
    (1, 5, "dropped", "0/1-15", 16, "me", "given up", 2),
    (2, 6, "accepted_loss", "0/1-35", 35, "me", "given up", 3),
    (3, 7, "retried", "0/1-15", 16, "me", "as 1/1-80", 3),
)


@dataclass(frozen=True, slots=True)
class Change:
    """A change of these decisions, and the finding that must name it."""

    statement: str
    where: str
    there: str
    expected: str = ""

    def __str__(self) -> str:
        return self.statement


CHANGES = [
    Change("UPDATE decisions SET number = 4 WHERE number = 3", "^number 3$", "next is number 4"),
    Change(
        "UPDATE decisions SET action = 'droped' WHERE number = 1", "number 1: action", "droped", "dropped"
    ),
    Change("UPDATE decisions SET action = 'rebuilt' WHERE number = 1", "number 1: record", "16", "0"),
    Change("UPDATE decisions SET entry = '0/1-16' WHERE number = 1", "number 1: entry", "0/1-16", "0/1-15"),
    Change("UPDATE decisions SET record = 15 WHERE number = 3", "number 3: record", "15", "dead letter"),
    Change("UPDATE decisions SET entry = '0/1-36' WHERE number = 2", "number 2: entry", "0/1-36", "0/1-35"),
    Change("UPDATE decisions SET record = 16 WHERE number = 2", "number 2: record", "16", "of a loss"),
    Change("UPDATE decisions SET record = 16 WHERE number = 2", "record 35", "nothing", "1-35 to 1-36"),
    Change("DELETE FROM decisions", "record 35", "nothing", "give up 1-35 to 1-36"),
    Change("UPDATE decisions SET epoch = 4 WHERE number = 3", "number 3: epoch", "4", "3 to 3"),
    Change("UPDATE decisions SET epoch = 1 WHERE number = 2", "number 2: epoch", "1", "2 to 3"),
    Change(
        "INSERT INTO decisions SELECT 4, 7, action, entry, record, who, note, 3 FROM decisions WHERE number = 2",
        "number 4: record",
        "35",
        "not accepted yet",
    ),
]


def test_a_changed_decision_is_found_and_named(prepared: Prepared, tmp_path: Path) -> None:
    """All that is bound to the journal, or to the epoch."""
    copied = prepared.copy(tmp_path / "home")
    with copied.shard() as connection:
        connection.executemany("INSERT INTO decisions VALUES (?, ?, ?, ?, ?, ?, ?, ?)", _DECIDED)
    for change in (None, *CHANGES):
        with copied.shard() as connection:
            connection.execute("BEGIN")
            if change is not None:
                assert connection.execute(change.statement).rowcount
            findings = Findings(0)
            DecisionCheck(0, _LOSSES, findings).run(connection, 3)
        if change is None:
            assert not findings.shown
        else:
            named(findings.shown, "decisions", change.where, change.there, change.expected)


def test_decisions_may_be_lost_where_a_database_was_made_anew(copied: Prepared) -> None:
    copied.change("INSERT INTO decisions VALUES (1, 5, 'rebuilt', '', 0, 'me', 'made anew', 0)")
    with closing(open_reading(shard_path(copied.home, 0))) as connection:
        findings = Findings(0)
        DecisionCheck(0, _LOSSES, findings).run(connection, 1)
    assert not findings.shown


def test_a_forgotten_loss_is_named(copied: Prepared) -> None:
    copied.give_up_damaged(EntryId(1, 35))
    copied.change("DELETE FROM decisions")
    named(copied.findings(chosen=[0]), "decisions", "^record 36$", "nothing", "give up 1-35")


# --- the machine --------------------------------------------------------------------------------------------------


@contextmanager
def _files_of(bytes_max: int) -> Iterator[None]:
    """No file can be written behind that: as on a full disk."""
    before, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_max, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, hard))


@pytest.mark.parametrize("bytes_max", [50_000, 90_000])
def test_no_room_to_count_is_no_damage(prepared: Prepared, bytes_max: int) -> None:
    with (
        _files_of(bytes_max),
        pytest.raises(ScratchUnavailable, match=r"no room for scratch stores in .*TMPDIR"),
    ):
        prepared.verified(asks_log=False)


def test_no_folder_for_scratch_stores_is_told(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(prepared.home / "missing"))
    with pytest.raises(ScratchUnavailable, match="TMPDIR"):
        prepared.verified(asks_log=False)


def test_no_room_for_ids_is_told(tmp_path: Path) -> None:
    txs = np.arange(10_000, dtype=np.int64)
    taken = Taken(1, txs, txs, txs, txs)
    with _files_of(1_000), pytest.raises(ScratchUnavailable), closing(IdFiles(tmp_path, 0, 2)) as ids:
        ids.add([taken])


def test_ids_go_somewhere_whatever_a_store_says_of_them() -> None:
    assert [parts_for(ids) for ids in (-(2**62), 0, 2**62)] == [1, 1, 256]


def test_what_is_large_is_done_where_it_can_be_stopped(tmp_path: Path) -> None:
    """In another process, also when there is one shard alone, or one core; a write-ahead log counts, too."""
    small, large = tmp_path / "small.db", tmp_path / "large.db"
    for path, size in ((small, 4_096), (large, BYTES_PER_PROCESS_MIN)):
        with path.open("wb") as file:
            file.truncate(size)
    assert [worthwhile(paths, 1) for paths in ([small], [large], [tmp_path / "missing"])] == [0, 1, 0]
    large.rename(tmp_path / "small.db-wal")
    assert worthwhile([small], 4) == 2
    with pytest.raises(HftpipeError, match="for shard 98 ended with 3"):
        for_each_shard(Doubled(), [98], processes=1, stopping=lambda: False, tell=lambda _: None)


def test_a_stop_is_heard_while_the_log_is_looked_at(prepared: Prepared) -> None:
    def asked(*, asks_log: bool) -> int:
        times = 0

        def stopping() -> bool:
            nonlocal times
            times += 1
            return False

        prepared.verified(asks_log=asks_log, stopping=stopping)
        return times

    assert asked(asks_log=True) > asked(asks_log=False)
