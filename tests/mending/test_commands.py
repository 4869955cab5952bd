"""`hftpipe dead` and `hftpipe repair` as a user meets them: a real server, real databases, beside real processes."""

import os
import pty
import re
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import orjson
import pytest

from hftpipe.embedded import socket_path
from hftpipe.log.keys import Keys
from tests.mending.homes import plain
from tests.mending.sites import Site
from tests.system.raw_log import Feed
from tests.system.support import System, transactions, wait_for


@pytest.fixture(scope="module")
def server() -> Iterator[System]:
    """A private server that all share."""
    with TemporaryDirectory(prefix="hft-") as folder:
        system = System(Path(folder))
        try:
            system.prepare()
            yield system
        finally:
            system.close()


@pytest.fixture
def site(server: System) -> Iterator[Site]:
    """A pipeline of 4 shards in which nothing was applied; the server holds nothing else."""
    with server.client() as client, TemporaryDirectory(prefix="hft-") as folder:
        client.flushall()
        site = Site(Path(folder), f"unix://{socket_path(server.home)}", client)
        try:
            yield site
        finally:
            site.close()


@pytest.fixture
def feed(site: Site) -> Feed:
    """Shard 0 has applied three entries of two rows."""
    site.work()
    feed = Feed(site.client)
    feed.append(3)
    site.work()
    return feed


def repair(site: Site, *words: object, shard: int = 0, code: int = 0) -> str:
    return site.run("repair", "--shard", shard, "--yes", *words, code=code).err


# --- dead -----------------------------------------------------------------------------------------------------


def test_dead_letters_beside_a_running_worker(site: Site, feed: Feed) -> None:
    """Listed, shown, retried into two shards, dropped; and the rest is not disturbed."""
    worker = site.start("worker")
    ids = [feed.add(fields) for fields in (plain(8, 1), plain(9, 2), {b"x": b"\xff"})]
    one, two, three = (f"0/{entry}" for entry in ids)
    feed.append(1)
    wait_for(lambda: site.applied() == feed.row, "all rows")
    letters = orjson.loads(site.run("dead", "list", "--format", "json").out)
    assert [letter["entry"] for letter in letters] == [one, two, three]
    assert r"\xff" in site.run("dead", "show", three).out
    assert orjson.loads(site.run("dead", "show", three, "--format", "json").out)["fields"] == {"x": "\\xff"}
    told = site.run("dead", "retry", "--all", code=1).err
    assert f"{one}: appended again as 0/1-7" in told
    assert f"{two}: appended again as 1/1-0" in told
    assert "missing field b; nor has it the plain fields" in told
    assert "1 of 3 were refused" in told
    assert "Add --yes" in site.run("dead", "drop", "--all", code=2).err
    site.run("dead", "drop", three, "--yes")
    assert orjson.loads(site.run("dead", "list", "--format", "json").out) == []
    assert len(orjson.loads(site.run("dead", "list", "--decided", "--format", "json").out)) == 3
    assert not site.client.xlen(Keys().dead(0))
    wait_for(lambda: site.summaries()[1].checkpoint.totals.applied == 1, "the retried letter")
    assert worker.code is None
    worker.process.terminate()
    assert worker.ended() == 0
    site.check()


def test_a_retry_that_is_killed_takes_effect_once(site: Site, feed: Feed) -> None:
    """Run again, it finds out how far it was."""
    entry = f"0/{feed.add(plain(8, 1))}"
    site.work()
    assert site.start("dead", "retry", entry, fault="dead.appended:1:kill").ended() == -9
    assert f"{entry}: appended again as 0/1-4" in site.run("dead", "retry", entry).err
    site.work()
    assert site.check()[0].tables.balances[8][0] == 10_000
    assert feed.client.xlen(feed.key) == 5


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["list"], 0),
        (["show", "0/1-0"], 1),
        (["retry", "--all"], 2),
        (["drop", "--all", "--yes"], 2),
        (["list", "0/1-0"], 2),
        (["show"], 2),
        (["drop", "1-0"], 2),
        (["show", "--all"], 2),
        (["retry", "x"], 2),
    ],
)
def test_a_home_that_is_not_there_and_wrong_usage(tmp_path: Path, words: list[str], code: int) -> None:
    """A clear message, and nothing is made."""
    site = Site(tmp_path, "", None)  # type: ignore[arg-type]
    assert site.run("dead", *words, code=code).err
    assert not site.home.exists()


# --- repair: entries that are gone, or changed ----------------------------------------------------------------


def test_a_file_brings_back_what_was_lost_of_it(site: Site) -> None:
    """A running `ingest --follow` looks back by itself; one that is started later finds it written down."""
    path, lines = site.folder / "rows.csv", transactions(1_200, 40, seed=5)
    path.write_bytes(b"".join(lines[:401]))
    follower = site.start("ingest", "--follow", path)
    wait_for(lambda: site.client.exists(*map(Keys().log, range(4))) == 4, "all shards")
    site.work()
    grow(path, lines[401:801])
    wait_for(lambda: is_noted(site, 801), "the second part")
    lose_newest(site, 0)
    assert "`hftpipe repair --shard 0` shows what would be given up" in site.work(code=1)
    repair(site)
    assert follower.code is None
    grow(path, lines[801:1_001])
    follower.says("perhaps some of")
    wait_for(lambda: is_noted(site, 1_001), "the third part")
    site.work()
    assert decided(site) == 1_000
    follower.kill()
    grow(path, lines[1_001:])
    site.run("ingest", path)
    entry = int(site.client.xinfo_stream(Keys().log(1))["last-generated-id"].split(b"-")[1])
    site.client.xdel(Keys().log(1), f"1-{entry}")
    site.work(code=1)
    repair(site, shard=1)
    assert "entries of shard 1 were given up" in site.run("ingest", path).err
    site.work()
    assert decided(site) == 1_200
    assert "were given up" not in site.run("ingest", path).err
    site.check()
    assert "nothing is wrong" in repair(site)


def grow(path: Path, lines: list[bytes]) -> None:
    with path.open("ab") as file:
        file.writelines(lines)


def is_noted(site: Site, line: int) -> bool:
    """Whether a producer has noted, in all shards, that it has come to that line."""
    notes = [site.client.hvals(Keys().sources(shard)) for shard in range(4)]
    return all(texts and orjson.loads(texts[0])[0] == line for texts in notes)


def lose_newest(site: Site, shard: int) -> None:
    last = site.client.xinfo_stream(Keys().log(shard))["last-generated-id"]
    site.client.xdel(Keys().log(shard), last)


def decided(site: Site) -> int:
    """Rows that were applied or refused, in all shards."""
    totals = [summary.checkpoint.totals for summary in site.summaries().values()]
    return sum(total.applied + total.refused for total in totals)


def test_a_damaged_entry_is_given_up_and_kept_for_a_look(site: Site, feed: Feed) -> None:
    """What is left of it is a dead letter; what a service has sent behind it is applied without it."""
    live = Feed(feed.client, source="serve:here:1")
    live.__dict__["account"] = 8
    live.append(1)
    damaged = live.add({**live.entry(3, 4), b"n": b"3"})
    live.row = 4
    live.append(1)
    assert f"entry 0/{damaged} does not match its digest" in site.work(code=1)
    shown = repair(site)
    assert "it says: 3 transactions, of serve:here:1" in shown
    assert "rows 3 to 4 of serve:here:1 are missing, and cannot be read again" in shown
    site.work()
    assert decided(site) == feed.row + 4
    assert f"0/{damaged}" in site.run("dead", "list").out
    assert "money may be in it" in site.run("dead", "retry", f"0/{damaged}", code=1).err
    site.check()


# --- repair: an emptied log -----------------------------------------------------------------------------------


def test_an_emptied_server_is_repaired_shard_by_shard(site: Site, feed: Feed) -> None:
    """FLUSHALL: ids go on behind what was applied, and the message says which other shards need it."""
    other = Feed(feed.client, shard=1)
    other.append(1)
    site.work()
    feed.client.flushall()
    site.run("worker", code=2)
    shown = repair(site)
    assert "the server was emptied" in shown
    assert "nobody knows how much that is" in shown
    assert "The log of shards 1 lacks entries, too" in shown
    assert "entry 1-0 was applied, but the log holds nothing" in site.work(code=1)
    assert "lacks entries, too" not in repair(site, shard=1)
    feed.append(1)
    other.append(1)
    site.work()
    assert feed.client.xinfo_stream(feed.key)["last-generated-id"] == b"1-3"
    assert site.applied() == feed.row
    site.check()


def test_what_was_sent_to_an_emptied_log_is_applied(site: Site, feed: Feed) -> None:
    """Its ids begin anew, and the checkpoint goes back before them; a repair that is killed is finished by the next."""
    feed.client.delete(feed.key)
    feed.row = 0
    feed.append(2, rows=4)
    assert "holds nothing of what was applied" in site.work(code=1)
    killed = site.start("repair", "--shard", 0, "--yes", fault="store.in_transaction:1:kill")
    assert killed.ended() == -9
    repair(site)
    site.work()
    assert site.applied() == 8
    assert sum("lost" in record.outcomes for record in site.check()[0].tables.records) == 1


# --- repair: asking, refusing ---------------------------------------------------------------------------------


def test_a_person_is_asked(site: Site, feed: Feed) -> None:
    """No is the default; without a terminal, and without --yes, it refuses."""
    feed.append(1)
    feed.client.xdel(feed.key, "1-3")
    assert "Add --yes" in site.run("repair", "--shard", 0, code=2).err
    assert "Nothing was changed" in answered(site, b"\n", 1)
    site.work(code=1)
    assert "shard 0 goes on behind 0/1-3" in answered(site, b"y\n", 0)
    site.work()


def answered(site: Site, answer: bytes, code: int) -> str:
    """What `repair` says to whom answers its question so."""
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "wb", buffering=0) as terminal, os.fdopen(theirs, "rb") as stdin:
        terminal.write(answer)
        running = site.start("repair", "--shard", 0, stdin=stdin)
        assert running.ended() == code
    return running.text


def test_a_running_worker_is_named(site: Site, feed: Feed) -> None:
    """It has to be stopped first."""
    worker = site.start("worker", "--shard", 0, "--lease-ms", 1_000)
    wait_for(lambda: site.summaries()[0].owner, "an owner")
    assert re.search(rf"shard 0 is owned by \S+ pid {worker.pid}, which works on it", repair(site, code=1))
    assert "which works on it" in repair(site, "--rebuild", code=1)
    assert feed.row == site.applied()


def test_repair_of_what_is_not_there(site: Site) -> None:
    """An empty home, a shard too many, a shard without a database."""
    assert "holds nothing that was applied" in repair(site, code=2)
    site.work()
    assert "there is no shard 9" in repair(site, shard=9, code=2)
    (site.home / "shard-0000.db").unlink()
    assert "If nothing was ever applied, `hftpipe worker --shard 0` makes it" in repair(site, code=1)
    assert "nothing can be made of it" in repair(site, "--rebuild", code=1)


def test_a_damaged_database_is_rebuilt(site: Site, feed: Feed) -> None:
    """`repair` alone says how; nothing is given up."""
    path = site.home / "shard-0000.db"
    before = site.check()[0].tables
    content = path.read_bytes()
    path.write_bytes(content.replace(b"CREATE TABLE", b"CREATE TABEL", 1))
    assert "`hftpipe repair --shard 0 --rebuild` makes it anew" in repair(site, code=1)
    path.write_bytes(content)
    told = repair(site, "--rebuild")
    assert "was made anew from 3 journal records; the old one is" in told
    assert site.check()[0].tables == before
    feed.append(1)
    site.work()
    assert site.applied() == feed.row
    site.check()
