"""Entries that no producer of ours can have made: set aside once, recorded, and the shard goes on."""

from collections.abc import Callable

import orjson
import pytest
import redis

from hftpipe.core.entry import digest_of
from hftpipe.log.keys import Keys
from tests.system.raw_log import Feed, accounts_of
from tests.system.support import System, check

Fields = dict[bytes, bytes]


def signed(fields: Fields) -> Fields:
    """The same with the digest that belongs to it."""
    return {**fields, b"d": digest_of({**fields, b"d": b""}).encode()}


def changed(fields: Fields, **columns: object) -> Fields:
    """Signed, with other columns in the payload."""
    return signed({**fields, b"b": orjson.dumps({**orjson.loads(fields[b"b"]), **columns})})


FOREIGN: dict[str, tuple[Callable[[Fields], Fields], str]] = {
    "no field of ours": (lambda _: {b"hello": b"world"}, "missing field b"),
    "no digest": (lambda ours: {name: ours[name] for name in ours if name != b"d"}, "missing field d"),
    "one field more": (lambda ours: {**ours, b"extra": b"1"}, "unknown field b'extra'"),
    "another version": (lambda ours: signed({**ours, b"v": b"2"}), "unknown version b'2'"),
    "not JSON": (lambda ours: signed({**ours, b"b": b"{"}), "field b is not JSON"),
    "unequal columns": (lambda ours: changed(ours, tx=[1]), "column tx has not n values"),
    "a float": (
        lambda ours: changed(ours, amount=[1.5, 2]),
        "column amount holds something else than integers from 0 to 2^63-1",
    ),
    "another shard's account": (
        lambda ours: changed(ours, account=[next(accounts_of(1))] * 2),
        "an account belongs to another shard",
    ),
    "an unknown column": (lambda ours: changed(ours, note=[1, 2]), "unknown column 'note'"),
    "5 MB": (lambda _: {b"blob": b"x" * 5_000_000}, "missing field b"),
    "no text": (lambda ours: signed({**ours, b"src": b"\xff"}), "field src is not UTF-8"),
}


def test_foreign_entries_are_set_aside_once_and_named(system: System) -> None:
    """All of them between good entries: in the dead letters of log and store with their reason, and in `status`."""
    system.prepare()
    with system.client() as client:
        feed = Feed(client)
        ids = {}
        for make, reason in FOREIGN.values():
            feed.append(1)
            ids[feed.add(make(feed.entry(feed.row + 1, feed.row + 2)))] = reason
        feed.append(1)
        told = system.drain().err
        assert told.count("dead-lettered") == len(FOREIGN)
        for entry_id, reason in ids.items():
            assert f"shard 0: entry 0/{entry_id} is none of ours ({reason}): dead-lettered" in told
        assert_set_aside(system, client, ids)
        assert system.summaries()[0].checkpoint.totals.applied == feed.row
        assert system.statuses()[0]["dead"] == len(FOREIGN)


def assert_set_aside(system: System, client: "redis.Redis", ids: dict[str, str]) -> None:
    """Log and store name the same entries, and a second look at them by the group changes nothing."""
    buried = client.xrange(Keys().dead(0))
    assert {entry_id.decode(): fields[b"reason"].decode() for entry_id, fields in buried} == ids
    before = check(system)
    assert before[0].tables.dead == ids
    client.xgroup_setid(Keys().log(0), "workers", "0")
    system.drain()
    assert [shard.tables for shard in check(system)] == [shard.tables for shard in before]
    assert client.xlen(Keys().dead(0)) == len(ids)


@pytest.mark.parametrize("point", ["worker.applied", "store.in_transaction", "worker.committed"])
def test_a_foreign_entry_is_set_aside_once_however_the_worker_ends(system: System, point: str) -> None:
    """Killed before and after it was recorded."""
    system.prepare()
    with system.client() as client:
        feed = Feed(client)
        feed.append(1)
        entry_id = feed.add({b"hello": b"world"})
        feed.append(1)
        assert system.start("worker", "--shard", 0, fault=f"{point}:1:kill").ended() == -9
        system.drain()
        assert_set_aside(system, client, {entry_id: "missing field b"})
        assert system.summaries()[0].checkpoint.totals.applied == feed.row


def test_a_full_server_does_not_hold_up_a_shard_with_a_foreign_entry(system: System) -> None:
    """The store's record is the one that counts."""
    system.prepare()
    with system.client() as client:
        feed = Feed(client)
        entry_id = feed.add({b"hello": b"world"})
        feed.append(1)
        client.config_set("maxmemory", "1")
        told = system.drain().err
        assert "is kept in the store's dead letters only" in told
        assert system.snapshots()[0].tables.dead == {entry_id: "missing field b"}
        assert system.summaries()[0].checkpoint.totals.applied == feed.row
        check(system)
