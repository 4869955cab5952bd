"""What passes by itself is waited out: a busy or full database, a full server or backlog, a server that is away."""

import os
import resource
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.system.raw_log import Feed
from tests.system.support import Running, System, check, kill, transactions, wait_for


def rows_of(system: System, shard: int = 0) -> int:
    totals = system.summaries()[shard].checkpoint.totals
    return totals.applied + totals.refused


def rows_in_all(system: System) -> int:
    return sum(rows_of(system, shard) for shard in system.summaries())


@pytest.fixture
def feed(system: System) -> Feed:
    """A new pipeline with its server."""
    system.prepare()
    return Feed(system.lasting_client())


def written(system: System, rows: int) -> Path:
    """A file of so many transactions."""
    path = system.folder / "input.csv"
    path.write_bytes(b"".join(transactions(rows, 80, seed=21)))
    return path


def assert_ends(process: Running) -> None:
    process.process.terminate()
    assert process.ended() == 0


def test_a_database_locked_by_another_process_holds_its_shard_until_it_is_free(
    system: System, feed: Feed
) -> None:
    """No other shard waits, and nothing is lost."""
    worker = system.start("worker", lease_ms="1000")
    feed.append(1)
    wait_for(lambda: rows_of(system) == feed.row, "the first rows")
    elsewhere = Feed(feed.client, shard=1)
    with closing(sqlite3.connect(system.home / "shard-0000.db", isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        feed.append(3)
        worker.says("shard-0000.db cannot be used now: database is locked. Trying again in ")
        elsewhere.append(3)
        wait_for(lambda: rows_of(system, 1) == elsewhere.row, "another shard")
        assert rows_of(system) == 2
        database.execute("ROLLBACK")
    wait_for(lambda: rows_of(system) == feed.row, f"the rest:\n{worker.text}")
    assert_ends(worker)
    check(system)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """The folder on a disk of its own, if that is permitted here."""
    folder.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not permitted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def resize(folder: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)


def test_a_full_disk_is_waited_out(systems: Callable[[], System]) -> None:
    """The server is elsewhere; the stores' disk fills, and is made larger: the worker goes on by itself."""
    server = systems()
    server.prepare()
    system = systems()
    system.environment["HFTPIPE_REDIS_URL"] = f"unix://{server.home}/redis.sock"
    system.environment["HFTPIPE_PREFIX"] = "books"
    with server.client(), small_disk(system.home, "1m"):
        system.ingest(written(system, 20_000))
        worker = system.start("worker", lease_ms="1000").says("Trying again in ")
        assert "database or disk is full" in worker.text
        resize(system.home, "60m")
        wait_for(lambda: rows_in_all(system) == 20_000, f"the rest:\n{worker.text}")
        assert_ends(worker)
        check(system)
        system.close()


def test_a_limit_on_the_size_of_files_is_waited_out(system: System, feed: Feed) -> None:
    """As a full disk, but told as an I/O error; raised while the worker runs."""
    system.ingest(written(system, 20_000))
    worker = system.start("worker", lease_ms="1000", fault="worker.read:1:stop")
    wait_for(worker.is_stopped, "the stop")
    resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (150_000, resource.RLIM_INFINITY))
    worker.send(signal.SIGCONT).says("Trying again in ")
    assert rows_in_all(system) < 20_000
    check(system)
    resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    wait_for(lambda: rows_in_all(system) == 20_000, f"the rest:\n{worker.text}")
    assert_ends(worker)
    check(system)


def test_a_full_server_makes_ingest_wait_and_no_worker(system: System, feed: Feed) -> None:
    """Out of memory: what is there is applied, nothing is dropped, and ingest goes on when there is room."""
    feed.append(3)
    feed.client.config_set("maxmemory", "1")
    ingest = system.start("ingest", written(system, 3_000)).says("it is full; workers make room")
    system.drain()
    assert rows_of(system) == feed.row
    assert ingest.code is None
    feed.client.config_set("maxmemory", "0")
    assert ingest.ended() == 0
    system.drain()
    assert rows_in_all(system) == feed.row + 3_000
    check(system)


def test_a_full_backlog_makes_ingest_wait_for_a_worker(system: System, feed: Feed) -> None:
    """The cap is in entries of one shard; the other shards' entries wait behind it, in order."""
    with feed.client.pipeline(transaction=False) as pipeline:
        many = Feed(pipeline)
        for row in range(1, 5_001):
            entry = many.entry(row, row)
            pipeline.execute_command(
                "XADD", feed.key, "1-*", *(part for pair in entry.items() for part in pair)
            )
        pipeline.execute()
    ingest = system.start("ingest", written(system, 3_000))
    ingest.says("shard 0 has 5000 entries waiting, its cap. Waiting for its worker")
    assert feed.client.xlen(feed.key) == 5_000
    assert ingest.code is None
    system.drain()
    assert ingest.ended() == 0
    system.drain()
    assert rows_in_all(system) == 8_000


def test_ingest_and_worker_outlast_the_death_of_the_server(system: System, feed: Feed) -> None:
    """Killed with its keeper under both: they start it again, and go on by themselves."""
    path = system.folder / "growing.csv"
    lines = transactions(600, 20, seed=3)
    path.write_bytes(b"".join(lines[:101]))
    ingest, worker = system.start("ingest", "--follow", path), system.start("worker", lease_ms="1000")
    for until in (351, 601):
        wait_for(lambda until=until: rows_in_all(system) >= until - 251, "the rows before")
        system.kill_server(keeper=True)
        with path.open("ab") as file:
            file.writelines(lines[until - 250 : until])
    wait_for(lambda: rows_in_all(system) == 600, f"all rows:\n{ingest.text}\n{worker.text}")
    assert_ends(ingest)
    assert_ends(worker)
    check(system)


def test_a_stalled_server_delays_and_loses_nothing(system: System, feed: Feed) -> None:
    """Stopped in the midst: nobody sends anything twice, or goes on without a reply."""
    pids = system.server_pids()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    ingest = system.start("ingest", written(system, 2_000))
    worker = system.start("worker", lease_ms="1000")
    with pytest.raises(AssertionError, match="waited in vain"):
        wait_for(lambda: ingest.code is not None or worker.code is not None, "an end", 1.5)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    assert ingest.ended() == 0
    wait_for(lambda: rows_in_all(system) == 2_000, f"all rows:\n{worker.text}")
    assert sum(summary.checkpoint.totals.skipped for summary in system.summaries().values()) == 0
    assert_ends(worker)
    check(system)


def test_the_supervisor_gives_no_shard_up_because_the_server_is_away(systems: Callable[[], System]) -> None:
    """Its workers cannot even start for a while: that is no fault of theirs, however often it happens."""
    server, system = systems(), systems()
    server.prepare()
    system.environment["HFTPIPE_REDIS_URL"] = f"unix://{server.home}/redis.sock"
    up = system.start("up", "--workers", 1, lease_ms="1000").says("up: 4 shards, 1 workers")
    wait_for(lambda: owners(system) == 4, f"owners:\n{up.text}")
    server.kill_server(keeper=True)
    kill(pid for pid in system.pids() if pid != up.pid)
    wait_for(lambda: up.text.count("Trying again in ") >= 10, f"six attempts:\n{up.text}")
    assert up.text.count("starting it again in ") <= 1
    assert up.text.count("keeps looking for it") <= 1
    server.prepare()
    feed = Feed(server.lasting_client())
    feed.append(3)
    wait_for(lambda: rows_of(system) == feed.row, f"the rows:\n{up.text}")
    assert_ends(up)


def owners(system: System) -> int:
    """How many shards have an owner."""
    return sum(bool(summary.owner) for summary in system.summaries().values())
