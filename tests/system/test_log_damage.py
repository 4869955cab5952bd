"""A log that was damaged, cut, emptied or exchanged: its shard stops and says so; the others go on."""

import re
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
import redis

from hftpipe.log.keys import GROUP
from tests.system.raw_log import Feed
from tests.system.support import Running, System, check, wait_for

ROWS_BEFORE = 6


@pytest.fixture
def client(system: System) -> Iterator["redis.Redis"]:
    """A running server with a new pipeline."""
    system.prepare()
    with system.client() as client:
        yield client


@pytest.fixture
def feed(system: System, client: "redis.Redis") -> Feed:
    """Three entries of shard 0 that were applied; nothing runs but the server."""
    feed = Feed(client)
    feed.append(3)
    system.prepare()
    return feed


def applied(system: System, shard: int = 0) -> int:
    return system.summaries()[shard].checkpoint.totals.applied


def working(system: System) -> Running:
    """A worker that has attached to every shard."""
    worker = system.start("worker", lease_ms="1000")
    wait_for(lambda: all(summary.owner for summary in system.summaries().values()), "an owner of every shard")
    with system.client() as client:
        wait_for(
            lambda: sum(each["name"].startswith("hft:owner") for each in client.client_list()) == 4, "owners"
        )
    return worker


def assert_stopped(system: System, worker: Running, pattern: str) -> None:
    """Shard 0 has stopped for that reason, as `status` shows; the others go on, and the worker ends with 1."""
    wait_for(lambda: system.summaries()[0].stopped, f"the stop of shard 0:\n{worker.text}")
    assert re.fullmatch(pattern, system.summaries()[0].stopped), system.summaries()[0].stopped
    state = system.statuses()[0]["state"]
    assert state == f"stopped: {system.summaries()[0].stopped}"
    with system.client() as client:
        Feed(client, shard=1, source="other").append(1)
    wait_for(lambda: applied(system, 1), "an entry of another shard")
    worker.process.terminate()
    assert worker.ended() == 1
    assert worker.text.count("shard 0: stopped: ") == 1
    check(system)


def delete_unapplied(client: "redis.Redis", feed: Feed) -> None:
    client.xdel(feed.key, "1-4")


def trim_to_last(client: "redis.Redis", feed: Feed) -> None:
    client.xtrim(feed.key, minid="1-5", approximate=False)


def trim_all(client: "redis.Redis", feed: Feed) -> None:
    client.xtrim(feed.key, maxlen=0, approximate=False)


def delete_key(client: "redis.Redis", feed: Feed) -> None:
    client.delete(feed.key)


def make_string(client: "redis.Redis", feed: Feed) -> None:
    client.set(feed.key, "x")


def flip_amount(client: "redis.Redis", feed: Feed) -> None:
    """The last entry once more, worth nine times as much."""
    feed.add({**feed.entry(13, 14), b"b": feed.entry(13, 14)[b"b"].replace(b"10000", b"90000")})


REPAIR = "`hftpipe repair --shard 0` shows what would be given up"
HOLDS_NOTHING = (
    "entry 1-2 was applied, but the log holds nothing of what was applied \\({}\\). "
    "Restore the server's append-only file; if that is gone, " + REPAIR
)
BEGINS_BEHIND = (
    "entries 0/1-3 to 0/1-4 are no longer in the log, and not applied here: "
    "the database is older than the log reaches. Restore a newer copy of it; if there is none, " + REPAIR
)
MISSING = (
    "entries 0/{} to 0/{} were appended and are missing from the log. Restore the server's append-only file; "
    "if that is gone, " + REPAIR
)
DAMAGED = (
    "entry 0/1-6 does not match its digest \\([0-9a-f]{32} written, [0-9a-f]{32} found\\): "
    "it was changed after it was appended. Restore the log from a copy; if there is none, " + REPAIR
)
OTHER_TYPE = "a key of the log holds something else than it must: WRONGTYPE Operation against a key .*"


@pytest.mark.parametrize(
    ("damage", "reason", "rows_applied"),
    [
        (delete_unapplied, MISSING.format("1-4", "1-4"), 8),
        (trim_to_last, BEGINS_BEHIND, 6),
        (trim_all, HOLDS_NOTHING.format("it holds no entry"), 6),
        (delete_key, HOLDS_NOTHING.format("it holds no entry"), 6),
        (make_string, OTHER_TYPE, 6),
        (flip_amount, DAMAGED, 12),
    ],
)
def test_a_damage_found_at_the_start_stops_its_shard_only(
    system: System,
    feed: Feed,
    damage: Callable[["redis.Redis", Feed], None],
    reason: str,
    rows_applied: int,
) -> None:
    """Three entries were applied, three were not: what comes before the damage is applied, and nothing behind."""
    feed.append(3)
    damage(feed.client, feed)
    worker = system.start("worker", lease_ms="1000")
    assert_stopped(system, worker, reason)
    assert applied(system) == rows_applied


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (trim_all, MISSING.format("1-3", "1-5")),
        (delete_key, HOLDS_NOTHING.format("it holds no entry")),
        (make_string, OTHER_TYPE),
    ],
)
def test_a_damage_under_a_working_worker_stops_its_shard_only(
    system: System, feed: Feed, damage: Callable[["redis.Redis", Feed], None], reason: str
) -> None:
    """Appended and damaged in one stroke, so that the worker cannot come between."""
    worker = working(system)
    with feed.client.pipeline(transaction=True) as stroke:
        feed_of_stroke = Feed(stroke, row=feed.row)
        for first in (7, 9, 11):
            entry = feed_of_stroke.entry(first, first + 1)
            stroke.execute_command(
                "XADD", feed.key, "1-*", *(part for pair in entry.items() for part in pair)
            )
        damage(stroke, feed)
        stroke.execute()
    assert_stopped(system, worker, reason)
    assert applied(system) == ROWS_BEFORE


def test_a_damaged_entry_under_a_working_worker_is_named(system: System, feed: Feed) -> None:
    """All before it is applied first."""
    worker = working(system)
    feed.append(3)
    flip_amount(feed.client, feed)
    assert_stopped(system, worker, DAMAGED)
    assert applied(system) == 12


def no_pipeline(system: System) -> set[str]:
    """What each shard says."""
    return {
        f"the log belongs to no pipeline, the store to {summary.pipeline}: the server was emptied, or it is another "
        "server. Start the right one, or restore its append-only file; if that is gone, "
        f"{REPAIR.replace('0', str(shard))}"
        for shard, summary in system.summaries().items()
    }


def test_an_emptied_server_stops_every_shard(system: System, feed: Feed) -> None:
    """FLUSHALL under a worker; and no later command takes the empty server for a new pipeline."""
    worker = working(system)
    feed.client.flushall()
    assert worker.ended() == 1
    assert {summary.stopped for summary in system.summaries().values()} == no_pipeline(system)
    assert_refused(system)
    assert applied(system) == ROWS_BEFORE


def assert_refused(system: System) -> None:
    """Every command that would write says that the server is not the store's."""
    for words in (["worker"], ["ingest", system.folder / "some.csv"], ["up"]):
        (system.folder / "some.csv").write_text("type,client,tx,amount\ndeposit,1,1,1\n")
        told = system.run(*words, code=2).err
        assert re.search(
            r"holds pipeline [0-9a-f]{16}, but the server of .* holds none under the prefix hft", told
        )
        assert "Start the right one, restore its append-only file, or use another --home" in told


def test_a_server_with_an_empty_folder_stops_every_shard(system: System, feed: Feed) -> None:
    """The data folder was lost: the server that is started anew is another one."""
    worker = working(system)
    system.kill_server(keeper=True)
    (system.home / "redis").rename(system.home / "lost")
    assert worker.ended() == 1
    assert {summary.stopped for summary in system.summaries().values()} == no_pipeline(system)
    assert_refused(system)


def test_a_foreign_pipeline_is_refused(system: System, feed: Feed) -> None:
    """Under a worker at its next attach, by every other command at once."""
    worker = working(system)
    feed.client.hset("hft:topology", "pipeline", "another")
    feed.client.client_kill_filter(_type="normal", skipme=True)
    assert worker.ended() == 1
    pipeline = system.summaries()[0].pipeline
    assert system.summaries()[0].stopped == (
        "the log belongs to shard 0 of 4 of pipeline another, "
        f"the store to shard 0 of 4 of pipeline {pipeline}. Use the home and the server that belong together"
    )
    told = system.run("worker", code=2).err
    assert f"holds pipeline {pipeline}, the server of {system.home} pipeline another" in told


def test_a_stopped_shard_goes_on_once_the_log_is_restored(system: System, feed: Feed) -> None:
    """The shard stops again and again until then, and is applied whole afterwards."""
    feed.append(3)
    feed.client.xdel(feed.key, "1-4")
    for _ in range(2):
        assert system.run("worker", "--until-idle", code=1).err.count("missing from the log") == 1
    whole = feed.client.xrange(feed.key)
    group = feed.client.xinfo_groups(feed.key)[0]["last-delivered-id"]
    feed.client.delete(feed.key)
    entries = dict(whole) | {b"1-4": feed.fields[4]}
    for entry_id in sorted(entries):
        feed.client.xadd(feed.key, entries[entry_id], id=entry_id)
    feed.client.xgroup_create(feed.key, GROUP, group)
    system.drain()
    assert applied(system) == 12
    assert not system.summaries()[0].stopped
    check(system)


def test_the_deleted_entry_at_the_checkpoint_is_named(system: System, feed: Feed) -> None:
    """It was applied, but nobody can prove any more that the log is the one it was applied from."""
    feed.client.xdel(feed.key, "1-2")
    feed.append(1)
    told = system.run("worker", "--until-idle", code=1).err
    assert "entries 0/1-2 to 0/1-2 were appended and are missing from the log" in told
    assert applied(system) == ROWS_BEFORE


# --- what heals by itself -------------------------------------------------------------------------------------------


def destroy_group(client: "redis.Redis", key: str) -> None:
    client.xgroup_destroy(key, GROUP)


def rewind_group(client: "redis.Redis", key: str) -> None:
    client.xgroup_setid(key, GROUP, "0")


def forward_group(client: "redis.Redis", key: str) -> None:
    client.xgroup_setid(key, GROUP, "$")


def delete_consumers(client: "redis.Redis", key: str) -> None:
    for consumer in client.xinfo_consumers(key, GROUP):
        client.xgroup_delconsumer(key, GROUP, consumer["name"])


def steal_all(client: "redis.Redis", key: str) -> None:
    """Another consumer takes what is new, and never comes back."""
    client.xreadgroup(GROUP, "thief", {key: ">"}, count=1_000)


@pytest.mark.parametrize("is_working", [False, True], ids=["stopped", "working"])
@pytest.mark.parametrize("trouble", [destroy_group, rewind_group, forward_group, delete_consumers, steal_all])
def test_whatever_becomes_of_the_group_nothing_is_lost_or_doubled(
    system: System, feed: Feed, trouble: Callable[["redis.Redis", str], object], is_working: bool
) -> None:
    """The store's checkpoint is the truth, the group only hands out entries."""
    worker = working(system) if is_working else None
    for _ in range(4):
        feed.append(2)
        trouble(feed.client, feed.key)
        feed.append(2)
    if worker is None:
        system.drain()
    wait_for(lambda: applied(system) == feed.row, f"all rows, not {applied(system)}")
    if worker is not None:
        worker.process.terminate()
        assert worker.ended() == 0
    assert system.summaries()[0].checkpoint.totals.skipped == 0
    assert system.summaries()[0].checkpoint.incarnation == 0
    check(system)


def test_late_duplicates_and_other_cuts_change_nothing(system: System, feed: Feed) -> None:
    """An append that timed out lands after newer ones; and a producer resends in other cuts."""
    feed.append(3)
    for late in feed.fields[1:4]:
        feed.add(late)
    for first, last in [(1, 5), (4, 12), (3, 3), (12, 12)]:
        feed.add(feed.entry(first, last))
    feed.add(feed.entry(11, 15))
    feed.add(feed.entry(14, 16, previous=2))
    system.drain()
    summary = system.summaries()[0]
    assert (
        summary.checkpoint.totals.applied,
        summary.checkpoint.totals.refused,
        summary.checkpoint.totals.gaps,
    ) == (16, 0, 0)
    assert system.snapshots()[0].tables.balances[feed.account][0] == 160_000
    check(system)


def test_rows_behind_a_gap_wait_for_the_rows_before(system: System, feed: Feed) -> None:
    """They are counted and left alone; the producer sends them again, in order."""
    feed.add(feed.entry(9, 10))
    feed.add(feed.entry(7, 10))
    system.drain()
    summary = system.summaries()[0]
    assert (summary.checkpoint.totals.applied, summary.checkpoint.totals.gaps) == (10, 1)
    assert system.statuses()[0]["gaps"] == 1
    check(system)


def test_trimmed_entries_are_not_missed(system: System, feed: Feed) -> None:
    """What was applied may go; the entry at the checkpoint stays."""
    feed.append(5)
    system.drain("--retain", "0")
    assert [entry_id for entry_id, _ in feed.client.xrange(feed.key)] == [b"1-7"]
    feed.append(2)
    system.drain()
    assert applied(system) == feed.row
    ids = [record.id.sequence for record in system.snapshots()[0].tables.records]
    assert all(after == before + 1 for before, after in pairwise(ids))
    check(system)
