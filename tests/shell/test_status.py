"""How each shard stands, from stores on disk and what a log would say."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from hftpipe.core.entry import EntryId, encode
from hftpipe.core.transaction import Batch
from hftpipe.log.redis import ShardLog
from hftpipe.owner import describe, new_owner
from hftpipe.ports import Topology
from hftpipe.status import ShardStatus, statuses
from hftpipe.store.creation import create
from hftpipe.store.sqlite import SqliteStore, shard_path
from tests.shell.shard_bench import ShardBench

TOPOLOGY = Topology("bench", 1, 1, 1)
NOW_MS = 1_700_000_060_000
LOG = ShardLog(appended=5, pending=1, dead=0, standbys=0)
STANDBY = ShardLog(appended=5, pending=1, dead=0, standbys=2)


@pytest.fixture
def store(tmp_path: Path) -> SqliteStore:
    """The store of the only shard; closed when nobody needs it any more."""
    path = shard_path(tmp_path, 0)
    create(path, TOPOLOGY, 0)
    return SqliteStore(path)


def taken(store: SqliteStore, owner: str) -> int:
    """The owner takes the shard; the epoch."""
    epoch = store.take(owner, store.ownership())
    assert epoch is not None
    return epoch


def status(
    home: Path, logs: Mapping[int, ShardLog] | None = None, failed: Mapping[int, str] | None = None
) -> ShardStatus:
    """How the only shard stands."""
    (found,) = statuses(home, 1, logs or {}, failed or {}, now_ms=NOW_MS)
    return found


def finished() -> str:
    """An owner on this host whose process is gone."""
    host, pid, _, token = new_owner().split(" ")
    return f"{host} {pid} 1 {token}"


def test_a_shard_whose_owner_lives_is_running(tmp_path: Path, store: SqliteStore) -> None:
    """The owner is shown as host and process."""
    owner = new_owner()
    taken(store, owner)
    store.close()
    found = status(tmp_path)
    assert (found.state, found.owner, found.epoch) == ("running", describe(owner), 1)


def test_a_shard_that_was_released_is_stopped(tmp_path: Path, store: SqliteStore) -> None:
    """No worker runs; that is no fault."""
    store.release(taken(store, new_owner()))
    store.close()
    found = status(tmp_path)
    assert (found.state, found.owner, found.epoch) == ("stopped: no worker runs", "", 1)


def test_a_shard_whose_owner_died_is_stopped(tmp_path: Path, store: SqliteStore) -> None:
    """Whoever owned it is shown all the same."""
    taken(store, finished())
    store.close()
    found = status(tmp_path)
    assert found.state == "stopped: no worker runs"
    assert found.owner


def test_an_owner_on_another_host_is_taken_for_alive(tmp_path: Path, store: SqliteStore) -> None:
    """Nothing else is known of it here."""
    taken(store, "elsewhere 1 2 token")
    store.close()
    assert status(tmp_path).state == "running"


def test_a_shard_that_cannot_go_on_says_why(tmp_path: Path, store: SqliteStore) -> None:
    """Before anything else: it needs a person."""
    store.release(taken(store, new_owner()), stopped="entry 0/1-2 is damaged")
    store.close()
    found = status(tmp_path, {0: STANDBY}, {0: "ended with exit code 1"})
    assert found.state == "stopped: entry 0/1-2 is damaged"


def test_a_shard_that_was_given_up_says_why(tmp_path: Path, store: SqliteStore) -> None:
    """By the supervisor, which alone knows."""
    taken(store, finished())
    store.close()
    assert status(tmp_path, failed={0: "was killed by SIGKILL"}).state == "failed: was killed by SIGKILL"


def test_a_shard_that_only_standbys_wait_for_is_standby(tmp_path: Path, store: SqliteStore) -> None:
    """Its owner is dead, and one of them will take over."""
    taken(store, finished())
    store.close()
    found = status(tmp_path, {0: STANDBY})
    assert (found.state, found.standbys) == ("standby", 2)


def test_a_damaged_store_is_told_and_stops_nothing_else(tmp_path: Path, store: SqliteStore) -> None:
    """The other shards are shown as ever."""
    taken(store, new_owner())
    store.close()
    shard_path(tmp_path, 1).write_bytes(b"this is no database" * 1_000)
    intact, damaged = statuses(tmp_path, 2, {1: LOG}, {}, now_ms=NOW_MS)
    assert intact.state == "running"
    assert damaged.state.startswith("stopped: ")
    assert "is damaged or was not made by this version" in damaged.state
    assert (damaged.appended, damaged.applied) == (5, 0)


def test_a_shard_without_a_store_has_applied_nothing(tmp_path: Path) -> None:
    """It was ingested into, and no worker has run yet."""
    assert status(tmp_path, {0: LOG}) == ShardStatus(
        shard=0,
        state="stopped: no worker runs",
        owner="",
        epoch=0,
        standbys=0,
        appended=5,
        applied=0,
        backlog=5,
        pending=1,
        transactions=0,
        refused=0,
        skipped=0,
        gaps=0,
        dead=0,
        losses=0,
        reach="",
        reach_s=None,
        journal="",
    )


def test_what_only_the_log_knows_is_unknown_without_it(tmp_path: Path, store: SqliteStore) -> None:
    """Not zero."""
    store.close()
    found = status(tmp_path)
    assert (found.standbys, found.appended, found.backlog, found.pending) == (None, None, None, None)


def test_how_far_back_replay_can_go_is_told(tmp_path: Path) -> None:
    """From the log as far as it was not trimmed, from the journal to the beginning."""
    work(tmp_path)
    trimmed = ShardLog(4, 0, 0, 0, EntryId(1, 2), NOW_MS - 61_500)
    found = status(tmp_path, {0: trimmed})
    assert (found.reach, found.reach_s, found.journal) == ("1-2", 61, "1-0")
    unknown = status(tmp_path)
    assert (unknown.reach, unknown.reach_s, unknown.journal) == (None, None, "1-0")


def test_an_entry_from_a_clock_ahead_has_no_negative_age(tmp_path: Path) -> None:
    """Times of append are the producers'."""
    ahead = ShardLog(4, 0, 0, 0, EntryId(1, 2), NOW_MS + 5_000)
    assert status(tmp_path, {0: ahead}).reach_s == 0


def test_a_log_that_lost_its_tail_has_no_negative_backlog(tmp_path: Path) -> None:
    """More was applied than it holds."""
    work(tmp_path)
    found = status(tmp_path, {0: ShardLog(appended=1, pending=0, dead=0, standbys=0)})
    assert (found.applied, found.backlog) == (4, 0)


def test_what_was_done_is_counted(tmp_path: Path) -> None:
    """Rows applied, refused and skipped; entries dead and behind a gap."""
    work(tmp_path)
    found = status(tmp_path)
    assert (found.applied, found.transactions, found.refused) == (4, 2, 1)
    assert (found.skipped, found.gaps, found.dead) == (1, 1, 1)


def work(home: Path) -> None:
    """A worker applies: two rows and a refused one, one of them again, one behind a gap, a foreign entry."""
    bench = ShardBench()
    rows = Batch.of("DWD", [0, 0, 0], [1, 2, 3], [10, 20, 30], [1, 2, 3])
    for fields in (
        encode("file", 0, rows, 0),
        encode("file", 0, rows.slice(0, 1), 0),
        encode("file", 8, Batch.of("D", [0], [9], [1], [9]), 0),
        {b"hello": b"world"},
    ):
        bench.append_fields(fields)
    path = shard_path(home, 0)
    create(path, TOPOLOGY, 0)
    store = SqliteStore(path)
    bench.worker(store=store).run()
