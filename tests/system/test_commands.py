"""The commands as people use them: what they print, what they remember, and how they end."""

import gzip
import re
import signal
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from tests.system.support import System, check, transactions, wait_for

SMALL = """type,client,tx,amount
deposit,1,1,1.0
deposit,2,2,2.5
withdrawal,1,3,0.25
withdrawal,2,4,9
dispute,2,2,
"""
SMALL_BALANCES = """client,available,held,total,locked
1,0.7500,0.0000,0.7500,false
2,0.0000,2.5000,2.5000,false
"""
MORE = "deposit,3,5,0.0001\nresolve,2,2,\n"
MORE_BALANCES = """client,available,held,total,locked
1,0.7500,0.0000,0.7500,false
2,2.5000,0.0000,2.5000,false
3,0.0001,0.0000,0.0001,false
"""


def small(system: System, name: str = "small.csv", text: str = SMALL) -> Path:
    path = system.folder / name
    path.write_text(text)
    return path


def without_home(system: System) -> System:
    """Commands get no home from the environment."""
    system.environment["HFTPIPE_HOME"] = ""
    return system


# --- the main path ---------------------------------------------------------------------------------------------------


def test_ingest_then_one_worker_needs_nothing_but_a_home(system: System) -> None:
    """As in the exercise: `ingest file.csv`, then `worker --shard 3`; its shard is applied, no other."""
    path = system.folder / "file.csv"
    path.write_bytes(b"".join(transactions(2_000, 40, seed=1)))
    assert "read 2,000, invalid 0, durable 2,000" in system.ingest("file.csv").err
    worker = system.start("worker", "--shard", 3)
    wait_for(lambda: 3 in system.summaries() and system.summaries()[3].checkpoint.number, "shard 3")
    worker.send(signal.SIGINT)
    assert worker.ended() == 0
    states = system.statuses()
    assert [row["backlog"] == 0 for row in states] == [False, False, False, True]
    assert states[3]["applied"] == states[3]["appended"]
    assert states[3]["pending"] == 0
    assert [row["state"] for row in states] == ["stopped: no worker runs"] * 4
    check(system)


def test_run_prints_the_balances_and_leaves_nothing(system: System) -> None:
    """Without a home: exactly the balances on stdout, a summary on stderr, no folder and no process behind."""
    temporary = system.folder / "temporary"
    temporary.mkdir()
    system.environment["TMPDIR"] = str(temporary)
    done = without_home(system).run("run", small(system))
    assert done.out == SMALL_BALANCES
    assert "read 5, invalid 0, applied 4, refused 1 (insufficient_funds 1)" in done.err
    assert not list(temporary.iterdir())
    assert not system.home.exists()


def test_run_with_a_home_goes_on_from_what_is_there(system: System) -> None:
    """Twice the same file adds nothing, a grown file its new rows, a changed one is refused and named."""
    path = small(system)
    assert system.run("run", path).out == SMALL_BALANCES
    again = system.run("run", path)
    assert again.out == SMALL_BALANCES
    assert "read 0, invalid 0, applied 0, refused 0" in again.err
    path.write_text(SMALL + MORE)
    grown = system.run("run", path)
    assert grown.out == MORE_BALANCES
    assert "read 2, invalid 0, applied 2, refused 0" in grown.err
    path.write_text((SMALL + MORE).replace("deposit,1,1,1.0", "deposit,1,1,7.0"))
    refused = system.run("run", path, code=2)
    assert (
        "small.csv has changed since it was last ingested: its lines up to 8 are not the same" in refused.err
    )
    assert refused.out == ""
    assert system.run("balances").out == MORE_BALANCES


def test_run_takes_several_files_of_any_sort(system: System) -> None:
    """CSV, gzip, JSON Lines and standard input, in that order."""
    packed = system.folder / "more.csv.gz"
    packed.write_bytes(gzip.compress(b"type,client,tx,amount\ndeposit,3,5,0.0001\n"))
    lines = small(system, "more.jsonl", '{"type":"resolve","client":2,"tx":2}\n')
    fed = b"type,client,tx,amount\ndeposit,4,6,4\n"
    done = system.run("run", small(system), packed, lines, "-", feed=fed)
    assert done.out == MORE_BALANCES + "4,4.0000,0.0000,4.0000,false\n"
    assert "read 8, invalid 0, applied 7, refused 1" in done.err


def test_invalid_rows_are_told_and_do_not_stop_the_others(system: System) -> None:
    """On stderr, or in a file; `--strict` ends with 3 although all others are applied."""
    path = small(system, text=SMALL + "deposit,x,9,1\ndeposit,1,10,-1\n")
    told = system.run("ingest", path, "--strict", code=3)
    assert "read 7, invalid 2 (bad_account 1, bad_amount 1)" in told.err
    assert f"{path}:7: bad_account account: x" in told.err
    system.drain()
    assert system.run("balances").out == SMALL_BALANCES


def test_each_invalid_row_is_reported_once_however_often_ingest_is_killed(system: System) -> None:
    """The report's file is continued; what a killed ingest may have written is taken back."""
    system.prepare()
    lines = transactions(60_000, 30, seed=4)
    for number in range(100, 60_000, 100):
        lines[number] = b"deposit,x,%d,1\n" % number
    path, report = system.folder / "bad.csv", system.folder / "invalid.csv"
    path.write_bytes(b"".join(lines))
    for fault in ("ingest.pre_append:1:kill", "ingest.post_append:1:kill", "ingest.pre_append:2:kill"):
        assert system.start("ingest", path, "--invalid", report, fault=fault).ended() == -9
    assert system.run("ingest", path, "--invalid", report).code == 0
    header, *rows = report.read_text().splitlines()
    assert header == "source,line,field,reason,content"
    assert [int(row.split(",")[1]) for row in rows] == list(range(101, 60_001, 100))
    assert "durable 0" in system.run("ingest", path, "--invalid", report).err
    assert report.read_text().splitlines() == [header, *rows]


def test_an_interrupted_ingest_goes_on_from_there(system: System) -> None:
    """Ctrl-C ends a following one with 0, and one that waits for a full server with 1 and a word."""
    path = small(system)
    system.prepare()
    following = system.start("ingest", "--follow", path)
    wait_for(lambda: system.backlog() == 2, "both entries")
    following.send(signal.SIGINT)
    assert following.ended() == 0
    assert "durable 5" in following.text
    system.set_server("maxmemory", "1")
    path.write_text(SMALL + MORE)
    waiting = system.start("ingest", path).says("it is full")
    waiting.send(signal.SIGTERM)
    assert waiting.ended() == 1
    assert "The same command goes on from there" in waiting.text
    system.set_server("maxmemory", "0")
    system.ingest(path)
    system.drain()
    assert system.run("balances").out == MORE_BALANCES


def test_an_interrupted_run_prints_no_balances_that_are_not_whole(system: System) -> None:
    """It says so, and fails; with a home the same command goes on from there."""
    path = small(system)
    run = system.start("run", path, fault="ingest.pre_append:1:delay")
    wait_for((system.home / "redis.sock").exists, "the server")
    run.send(signal.SIGINT)
    assert run.ended() == 1
    assert "hftpipe: stopped b" in run.text
    assert system.run("run", path).out == SMALL_BALANCES


# --- status and balances ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["status", "balances"])
def test_an_empty_home_is_named(system: System, command: str) -> None:
    """Nothing is made by looking."""
    told = system.run(command, code=2)
    assert re.fullmatch(f"hftpipe: {system.home} holds no (pipeline|balances) yet. .*\n", told.err)
    assert not system.home.exists()


def test_status_and_balances_in_every_format(system: System) -> None:
    """While workers run, and while nothing does, not even the server."""
    system.run("run", small(system))
    up = system.start("up").says("up: 4 shards, 2 workers")
    wait_for(lambda: all(each.owner for each in system.summaries().values()), "owners")
    assert {row["state"] for row in system.statuses()} == {"running"}
    assert system.run("balances").out == SMALL_BALANCES
    up.process.terminate()
    assert up.ended() == 0
    system.stop_server()
    header, *rows = system.run("status", "--format", "csv").out.splitlines()
    assert header.startswith(
        "shard,state,owner,epoch,standbys,appended,applied,backlog,pending,transactions,"
    )
    assert [row.split(",")[:2] for row in rows] == [
        [str(shard), "stopped: no worker runs"] for shard in range(4)
    ]
    assert len(system.run("status").out.splitlines()) == 5
    assert system.run("balances", "--format", "csv").out == SMALL_BALANCES
    table = system.run("balances", "--format", "table").out.splitlines()
    assert table[0].split() == ["client", "available", "held", "total", "locked"]
    assert table[1].split() == ["1", "0.7500", "0.0000", "0.7500", "false"]
    records = orjson.loads(system.run("balances", "--format", "json", "--account", 2).out)
    assert records == [
        {"client": 2, "available": "0.0000", "held": "2.5000", "total": "2.5000", "locked": False}
    ]


def test_a_damaged_database_stops_its_shard_only(system: System) -> None:
    """It is named by worker and status; the other shards are applied. Also when it is the first one."""
    path = system.folder / "file.csv"
    lines = transactions(400, 40, seed=1)
    path.write_bytes(b"".join(lines[:300]))
    system.ingest(path)
    system.drain()
    path.write_bytes(b"".join(lines))
    system.ingest(path)
    with (system.home / "shard-0000.db").open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 4_000)
    told = system.run("worker", "--until-idle", code=1).err
    assert told.count("shard 0: stopped: ") == 1
    assert "shard-0000.db is damaged or was not made by this version: " in told
    states = system.statuses()
    assert str(states[0]["state"]).startswith("stopped: ")
    assert "is damaged" in str(states[0]["state"])
    assert [row["backlog"] for row in states[1:]] == [0, 0, 0]


def test_two_commands_at_once_start_one_server(system: System) -> None:
    """And make one pipeline."""
    first, second = small(system), small(system, "second.csv", SMALL.replace(",1,1,", ",9,11,"))
    both = [system.start("ingest", path) for path in (first, second)]
    assert [process.ended() for process in both] == [0, 0]
    assert len(system.server_pids()) == 1
    system.drain()
    check(system)
    assert len({summary.pipeline for summary in system.summaries().values()}) == 1


def test_two_runs_beside_each_other_do_not_meet(systems: Callable[[], System]) -> None:
    """Each in a temporary home of its own."""
    several = [without_home(systems()) for _ in range(2)]
    running = [system.start("run", small(system)) for system in several]
    assert [process.ended() for process in running] == [0, 0]
