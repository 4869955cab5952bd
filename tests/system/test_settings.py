"""Settings, wrong usage and secrets: from where a value comes, how a mistake is told, and what nobody may see."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.support import System, wait_for

WRONG = {
    "no command": ["frobnicate"],
    "no file": ["ingest"],
    "a file that is not there": ["ingest", "nowhere.csv"],
    "a folder": ["ingest", "."],
    "an unknown option": ["run", "--fast", "x.csv"],
    "no number": ["worker", "--shard", "three"],
    "a negative shard": ["worker", "--shard", "-1"],
    "a reversed range": ["worker", "--shards", "3-1"],
    "too large a range": ["worker", "--shards", "0-99999999999"],
    "no range": ["worker", "--shards", "all"],
    "no workers": ["up", "--workers", "0"],
    "an unknown format": ["status", "--format", "xml"],
    "an account that is none": ["balances", "--account", "x"],
    "no URL": ["worker", "--redis-url", "localhost:6379"],
    "an empty file": ["ingest", "empty.csv"],
    "a report in no folder": ["ingest", "x.csv", "--invalid", "no/where.csv"],
    "a file as report": ["ingest", "x.csv", "--invalid", "x.csv"],
    "a device as home": ["up", "--home", "/dev/null/home"],
    "a file as home": ["ingest", "x.csv", "--home", "x.csv"],
    "a name for two files": ["ingest", "x.csv", "x.csv", "--source", "both"],
    "a planted fault that is none": ["worker", "--until-idle"],
    "no rows": ["generate", "--accounts", "1"],
    "an unknown kind": ["generate", "--rows", "1", "--accounts", "1", "--kinds", "gift=1"],
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_usage_ends_with_2_and_says_what_is_wrong(system: System, case: str) -> None:
    """No traceback, nothing on stdout."""
    (system.folder / "x.csv").write_text("type,client,tx,amount\ndeposit,1,1,1\n")
    (system.folder / "empty.csv").touch()
    settings = {"fault": "nowhere:1:kill"} if case == "a planted fault that is none" else {}
    told = system.run(*WRONG[case], code=2, **settings)
    assert told.out == ""
    assert told.err.strip().splitlines()[-1].startswith(("hftpipe: ", "Error: "))


def test_another_number_of_shards_is_refused(system: System) -> None:
    """An account's shard depends on it; so does a worker's, which cannot have one that there is not."""
    system.prepare()
    (system.folder / "x.csv").write_text("type,client,tx,amount\n")
    told = system.run("ingest", "x.csv", "--shards", 8, code=2).err
    assert "the pipeline has 4 shards, 8 were asked for" in told
    assert "there is no shard 4: the pipeline has 0 to 3" in system.run("worker", "--shard", 4, code=2).err


def test_every_command_explains_itself(system: System) -> None:
    """`--help` of each, with an example; no command is slow to do so, or touches a home."""
    for command in ("run", "ingest", "worker", "up", "balances", "status", "generate", "redis"):
        assert "Examples:" in system.run(command, "--help").out
    assert not system.home.exists()


def test_settings_come_from_the_file_and_are_outdone_by_variables_and_the_command_line(
    system: System,
) -> None:
    """hftpipe.toml of the folder; HFTPIPE_…; options: each outdoes the one before."""
    (system.folder / "x.csv").write_text("type,client,tx,amount\ndeposit,1,1,1\n")
    settings = system.folder / "hftpipe.toml"
    settings.write_text('shards = 2\n[balances]\nformat = "json"\n[worker]\nuntil-idle = true\n')
    system.ingest("x.csv")
    system.run("worker")
    assert len(system.statuses()) == 2
    assert system.run("balances").out.startswith("[")
    assert system.run("balances", format="csv").out.startswith("client,")
    assert system.run("balances", "--format", "table", format="csv").out.startswith("client  ")
    up = system.start("up").says("up: 2 shards, 2 workers")
    wait_for(lambda: all(each.owner for each in system.summaries().values()), f"owners:\n{up.text}")
    up.process.terminate()
    assert up.ended() == 0


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("speed = 9", "sets speed"),
        ("[worker]\nspeed = 9", "sets speed in [worker]"),
        ("[fly]\nhome = 'x'", "has a table [fly]; there is no such command"),
        ("home = ", "cannot be read as settings"),
        ("workers = 'many'\n", "Invalid value"),
    ],
)
def test_a_mistake_in_the_settings_is_named(system: System, text: str, told: str) -> None:
    """Unknown keys and tables, values that cannot be."""
    (system.folder / "hftpipe.toml").write_text(text)
    assert told in system.run("up", code=2).err


def test_a_password_is_shown_to_nobody(system: System, systems: Callable[[], System]) -> None:
    """Given by variable it stands on no command line of the children, and in no message."""
    server = systems()
    server.prepare()
    secret = f"{os.getpid()}-is-a-word"
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "books", "on", f">{secret}", "~*", "&*", "+@all")
    system.environment["HFTPIPE_REDIS_URL"] = f"unix://books:{secret}@{server.home}/redis.sock"
    up = system.start("up", "--workers", 1).says("up: 4 shards, 1 workers")
    wait_for(lambda: len(system.summaries()) == 4, "the stores")
    assert len(system.pids()) == 2
    for pid in system.pids():
        assert secret.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    server.kill_server(keeper=True)
    up.says("Trying again in ")
    up.says("books:***@")
    assert secret not in up.text
    refused = system.run("status", redis_url=f"unix://books:{secret}x@{server.home}/redis.sock", code=None)
    assert secret not in refused.err + refused.out
    for folder, _, names in os.walk(system.home):
        assert not [name for name in names if secret.encode() in (Path(folder) / name).read_bytes()]


def test_a_server_of_ones_own_needs_no_home_beforehand(system: System, systems: Callable[[], System]) -> None:
    """The folder of the stores is made; `run` without a home leaves no key behind."""
    server = systems()
    server.prepare()
    (system.folder / "x.csv").write_text("type,client,tx,amount\ndeposit,1,1,1\n")
    url = f"unix://{server.home}/redis.sock"
    with server.client() as client:
        keys = set(client.keys())
        balances = system.run("run", "x.csv", redis_url=url, prefix="one").out
        assert balances == "client,available,held,total,locked\n1,1.0000,0.0000,1.0000,false\n"
        assert {key.split(b":")[0].strip(b"{") for key in set(client.keys()) - keys} == {b"one"}
        kept = set(client.keys())
        assert system.run("run", "x.csv", redis_url=url, home="", prefix="two").out == balances
        assert set(client.keys()) == kept
    assert not (system.home / "redis").exists()


def test_a_server_that_loses_what_it_acknowledges_is_refused(
    system: System, systems: Callable[[], System]
) -> None:
    """Each wrong setting is named, with what mends it; or one trusts it."""
    server = systems()
    server.prepare()
    url = f"unix://{server.home}/redis.sock"
    with server.client() as client:
        client.config_set("appendfsync", "everysec")
        told = system.run("worker", "--until-idle", redis_url=url, code=2).err
        assert "appendfsync is everysec, must be always: CONFIG SET appendfsync always" in told
        system.run("worker", "--until-idle", "--trust-server", redis_url=url)
