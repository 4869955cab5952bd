"""A worker that stood still for longer than its lease: another one takes over, and the first changes nothing more."""

import os
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from hftpipe.store.reading import snapshot
from tests.system.raw_log import Feed
from tests.system.support import Running, System, check, kill, wait_for

LEASE = "500"


def rows_of(system: System, shard: int = 0) -> int:
    return system.summaries()[shard].checkpoint.totals.applied


def owner_is(system: System, worker: Running, shard: int = 0) -> bool:
    """Whether that process owns the shard."""
    return f" {worker.pid} " in system.summaries()[shard].owner


def started(system: System, *words: object, **settings: str) -> Running:
    """A worker that owns shard 0."""
    worker = system.start("worker", *words, lease_ms=LEASE, **settings)
    wait_for(lambda: owner_is(system, worker), f"the owner, but: {worker.text}")
    return worker


def standing_by(system: System, *words: object) -> Running:
    return system.start("worker", *words, lease_ms=LEASE).says("shard 0: standing by: owned by ")


@pytest.fixture
def feed(system: System) -> Feed:
    """A new pipeline; entries are appended as the test wants."""
    system.prepare()
    feed = Feed(system.lasting_client())
    feed.append(2)
    return feed


@pytest.mark.parametrize("point", ["", "worker.read", "worker.applied", "worker.committed"])
def test_a_zombie_changes_no_row_and_ends_as_fenced(system: System, feed: Feed, point: str) -> None:
    """Stopped while it waits, with entries read, decided, or just committed; woken after the takeover."""
    zombie = started(system, "--shard", 0, **({"fault": f"{point}:3:stop"} if point else {}))
    standby = standing_by(system, "--shard", 0)
    if not point:
        wait_for(lambda: rows_of(system) == feed.row, "the first entries")
        wait_for(lambda: stops_between_transactions(system, zombie), "a stop outside of a transaction")
    feed.append(1)
    wait_for(lambda: zombie.is_stopped() or nudge(feed), "the stop")
    epoch = system.summaries()[0].epoch
    wait_for(lambda: owner_is(system, standby), f"the takeover:\n{standby.text}")
    feed.append(3)
    wait_for(lambda: rows_of(system) == feed.row, "all rows")
    before = snapshot(system.home / "shard-0000.db")
    zombie.send(signal.SIGCONT)
    assert zombie.ended() == 4
    assert "shard 0: " in zombie.text
    assert "taken over" in zombie.text
    (after,) = [shard for shard in check(system) if shard.shard == 0]
    assert (after.tables, after.checkpoint) == (before.tables, before.checkpoint)
    assert after.epoch == epoch + 1
    feed.append(1)
    wait_for(lambda: rows_of(system) == feed.row, "what came after the zombie")
    standby.process.terminate()
    assert standby.ended() == 0
    assert system.statuses()[0]["pending"] == 0


def stops_between_transactions(system: System, worker: Running, shard: int = 0) -> bool:
    """Stops it; goes on, and says so, if that was inside a transaction, as each beat is one: nobody could take over."""
    worker.send(signal.SIGSTOP)
    wait_for(worker.is_stopped, "the stop")
    try:
        with closing(sqlite3.connect(system.home / f"shard-{shard:04}.db", timeout=0)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
    except sqlite3.OperationalError:
        worker.send(signal.SIGCONT)
        return False
    return True


def nudge(feed: Feed) -> bool:
    """One more entry, so that a step is reached once more; never true."""
    feed.append(1)
    return False


def stopped_inside(system: System, *words: object) -> Running:
    """A worker that was stopped inside a transaction of shard 0, with the database locked."""
    zombie = started(system, *words, fault="store.in_transaction:1:stop")
    wait_for(zombie.is_stopped, "the stop inside the transaction")
    return zombie


def test_a_worker_stopped_inside_a_transaction_holds_its_own_shard_only(system: System, feed: Feed) -> None:
    """The others go on; when it is killed, the standby has the shard at once, and applies what was cut off."""
    zombie = stopped_inside(system, "--shard", 0)
    other = system.start("worker", lease_ms=LEASE).says("shard 0: standing by: owned by ")
    elsewhere = Feed(feed.client, shard=1)
    elsewhere.append(3)
    wait_for(lambda: rows_of(system, 1) == elsewhere.row, "another shard")
    other.says("database is locked. Trying again in ")
    assert rows_of(system) == 0
    zombie.kill()
    wait_for(lambda: rows_of(system) == feed.row, f"the shard, but: {other.text}")
    assert owner_is(system, other)
    check(system)


def test_a_worker_stopped_inside_a_transaction_commits_before_anyone_else(system: System, feed: Feed) -> None:
    """Woken instead of killed: nobody could take over, so what it commits is right, once."""
    zombie = stopped_inside(system, "--shard", 0)
    standby = standing_by(system, "--shard", 0)
    standby.says("Trying again in ")
    zombie.send(signal.SIGCONT)
    wait_for(lambda: rows_of(system) == feed.row, "the rows")
    feed.append(3)
    wait_for(lambda: rows_of(system) == feed.row, "the rows after")
    check(system)


def children_of(pid: int) -> list[int]:
    """Process ids of a process's children."""
    found = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(word) for children in found for word in children.read_text().split()]


def test_the_supervisor_kills_a_worker_that_stands_still(system: System, feed: Feed) -> None:
    """Wherever it was stopped: no standby could help if that was inside a transaction. Its successor goes on."""
    up = system.start("up", "--workers", 2, lease_ms=LEASE).says("up: 4 shards, 2 workers")
    wait_for(lambda: rows_of(system) == feed.row, f"the first rows:\n{up.text}")
    owner = int(system.summaries()[0].owner.split()[1])
    assert owner in children_of(up.pid)
    os.kill(owner, signal.SIGSTOP)
    feed.append(2)
    up.says(f"shards 0, 2: worker {owner} does not move; killed")
    wait_for(lambda: rows_of(system) == feed.row, f"the rows after the restart:\n{up.text}")
    up.process.terminate()
    assert up.ended() == 0
    check(system)


def test_the_owner_of_a_shard_is_replaced_at_once_when_it_is_dead(
    systems: Callable[[], System],
) -> None:
    """With a lease of an hour: its process is known to be gone."""
    system = systems()
    system.prepare()
    feed = Feed(system.lasting_client())
    owner = system.start("worker", "--shard", 0, lease_ms="3600000")
    wait_for(lambda: owner_is(system, owner), "the owner")
    standby = system.start("worker", "--shard", 0, lease_ms="3600000").says("standing by")
    assert system.statuses()[0]["standbys"] == 1
    kill([owner.pid])
    feed.append(2)
    wait_for(lambda: rows_of(system) == feed.row, f"the takeover:\n{standby.text}")
    check(system)
