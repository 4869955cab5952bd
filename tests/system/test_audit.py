"""Replay and verify on real stores, with a real server: after crashes, beside workers, and where there is nothing."""

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest
import redis

from hftpipe.audit.asking import recorded
from hftpipe.audit.parallel import for_each_shard
from hftpipe.audit.replay import Replay, replayed_balances
from hftpipe.audit.window import Origin, Window
from hftpipe.core.entry import EntryId
from hftpipe.core.snapshot import Snapshot
from hftpipe.errors import UsageError
from hftpipe.store.reading import Balance, balances, snapshot, store_paths
from hftpipe.wiring.pipeline import Place
from tests.system.chaos import Chaos, Traffic
from tests.system.support import SHARDS, System, transactions, wait_for

EVERYTHING = Window()


def tables(home: Path) -> list[Snapshot]:
    return [snapshot(path) for path in store_paths(home)]


def filled(system: System, rows: int = 3_000) -> Path:
    """A file that was ingested and applied."""
    path = system.folder / "file.csv"
    path.write_bytes(b"".join(transactions(rows, 60, seed=5)))
    system.ingest(path)
    system.drain()
    return path


def replayed(
    system: System,
    folder: Path,
    window: Window = EVERYTHING,
    origin: Origin = Origin.AUTO,
    *,
    shards: Sequence[int] = range(SHARDS),
    transactions: int = 100_000,
) -> list[Balance]:
    """The balances that a replay comes to; its stores are kept."""
    folder.mkdir()
    recording, _ = recorded(Place(system.home), shards, window, origin)
    task = Replay(recording, folder, transactions, keeps=True)
    found = for_each_shard(task, shards, processes=0, stopping=lambda: False, tell=lambda _: None)
    return list(replayed_balances(folder, found.values()))


def test_a_replay_of_a_crashed_run_is_the_live_tables(system: System) -> None:
    """Whatever was killed, in whatever pieces it is replayed, by one process or more, from journal or log."""
    sources = [
        Traffic(
            system.folder / f"source-{number}.csv",
            transactions(5_000, 300, seed=number, offset=number << 53, random_ids=True),
        )
        for number in range(2)
    ]
    chaos = Chaos(system, sources, Random(7), 4)
    chaos.run()
    system.ingest(*[source.path for source in sources])
    system.drain()
    live = tables(system.home)
    assert sum(shard.checkpoint.totals.applied for shard in live) > 6_000
    assert "nothing differs" in system.run("verify").err
    system.run("replay", "--keep", system.folder / "command", "--batch", 1)
    replayed(system, system.folder / "journal", transactions=700)
    replayed(system, system.folder / "log", origin=Origin.LOG)
    for folder in ("command", "journal", "log"):
        again = tables(system.folder / folder)
        assert [shard.tables for shard in again] == [shard.tables for shard in live], folder
        assert [shard.checkpoint for shard in again] == [shard.checkpoint for shard in live], folder


def test_where_there_is_nothing_it_is_said(system: System) -> None:
    for command, home in (("verify", system.folder / "none"), ("replay", system.folder)):
        done = system.run(command, "--home", home, code=2)
        assert f"{home} holds no" in done.err
        assert not done.out
    assert not (system.folder / "none").exists()


def test_beside_workers_and_after_them(system: System) -> None:
    """Nothing waits for anything; verify says what is wrong in the log, too, and exits with 1."""
    filled(system)
    worker = system.start("worker")
    wait_for(lambda: all(summary.owner for summary in system.summaries().values()), "workers")
    assert "nothing differs" in system.run("verify").err
    assert system.run("replay", "--format", "csv").out == system.run("balances").out
    worker.kill()
    with system.client() as client:
        spoil(client, system.keys.log(2))
    done = system.run("verify", "--format", "json", code=1)
    (finding,) = orjson.loads(done.out)
    assert finding == {
        "shard": 2,
        "what": "log",
        "where": "2/1-0",
        "there": finding["there"],
        "expected": finding["expected"],
    }
    assert "1 differences, 1 of them shown" in done.err
    assert "nothing differs" in system.run("verify", "--no-log").err


def spoil(client: "redis.Redis", key: str) -> None:
    """The first entry, changed: the stream is written anew."""
    entries: list[tuple[bytes, dict[Any, Any]]] = client.xrange(key)  # type: ignore[assignment]
    client.delete(key)
    for place, (entry_id, fields) in enumerate(entries):
        client.xadd(key, {**fields, b"t": b"1"} if place == 0 else fields, id=entry_id)


def test_a_replay_reads_on_in_the_log(system: System) -> None:
    """What was appended and not applied is decided, too, where it is asked for; and never written to the live store."""
    path = filled(system, 2_000)
    applied = list(balances(system.home))
    with path.open("ab") as file:
        file.writelines(transactions(2_000, 60, seed=6, offset=1 << 40)[1:])
    system.ingest(path)
    with system.client() as client:
        last = EntryId.parse(client.xinfo_stream(system.keys.log(0))["last-generated-id"])
        assert replayed(system, system.folder / "plain") == applied
        ahead = replayed(system, system.folder / "ahead", Window(last=last), shards=[0])
        assert ahead == replayed(system, system.folder / "log", origin=Origin.LOG, shards=[0])
        everything = replayed(system, system.folder / "everything", Window(until_ms=1 << 50))
        assert list(balances(system.home)) == applied
        with pytest.raises(UsageError, match="no entry 0/1-9999"):
            replayed(system, system.folder / "none", Window(last=EntryId(1, 9999)), shards=[0])
    different = system.run("replay", "--to", f"0/{last}", "--diff", code=1)
    assert "balances differ from the live ones" in different.err
    assert f"Up to 0/{last}." in different.err
    system.drain()
    assert list(balances(system.home)) == everything
    with system.client() as client:
        client.xtrim(system.keys.log(0), minid="1-1")
    trimmed = system.run("replay", "--record", "log", "--shard", 0, code=2)
    assert "the log of shard 0 begins with entry 0/1-1" in trimmed.err
