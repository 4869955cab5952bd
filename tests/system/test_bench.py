"""`hftpipe bench` as people use it: a small run beside one design, right or wrong, whole or interrupted."""

import os
import signal
from pathlib import Path

import orjson
import pytest

from tests.system.support import Finished, System, wait_for

DESIGN = '''"""A loop in memory.

Correctness: {correctness}
Rows: 1500
"""

import argparse
import csv
import hashlib
import json
import time

parser = argparse.ArgumentParser()
parser.add_argument("file")
parser.add_argument("--socket")
parser.add_argument("--folder")
options = parser.parse_args()
start = time.perf_counter()
available = {{}}
with open(options.file, newline="") as file:
    rows = list(csv.reader(file))[1:]
for kind, account, _, amount in rows:
    change = int(amount.replace(".", "")) * (1 if kind == "deposit" else -1)
    balance = available.setdefault(int(account), {first})
    available[int(account)] = balance + change if balance + change >= 0 else balance
seconds = time.perf_counter() - start
lines = "".join(f"{{account}},{{balance}}\\n" for account, balance in sorted(available.items()))
digest = hashlib.blake2b(lines.encode(), digest_size=16).hexdigest()
told = {{"design": "loop", "transactions": len(rows), "seconds": seconds, "accounts": len(available), "digest": digest}}
print(json.dumps(told))
'''

WORDS = ("bench", "--quick", "--rows", 2_000, "--only", "throughput")


def designs(system: System, *, first: int = 0) -> Path:
    """A folder with one design; accounts begin with `first`, and only 0 is right."""
    folder = system.folder / "designs"
    folder.mkdir()
    (folder / "loop.py").write_text(DESIGN.format(correctness="loses all", first=first))
    return folder


def bench(system: System, *words: object, code: int | None = 0) -> Finished:
    """A run in the system's own folder; nothing of it is left there."""
    grounds = system.folder / "grounds"
    grounds.mkdir()
    done = system.run(*words, "--folder", grounds, code=code)
    assert not list(grounds.iterdir())
    return done


def test_a_quick_run_gives_a_table_results_and_a_chart(system: System) -> None:
    """Ours under both policies, the design once as it uses no server, and their ratio."""
    results, charts = system.folder / "results.json", system.folder / "charts"
    words = (*WORDS, "--designs", designs(system), "--json", results, "--charts", charts)
    done = bench(system, *words)
    content = orjson.loads(results.read_bytes())
    figures = {(figure["name"], figure["setting"]): figure for figure in content["figures"]}
    assert set(figures) == {
        ("hftpipe run", "always, 2,000 rows"),
        ("hftpipe run", "everysec, 2,000 rows"),
        ("hftpipe run, CPU of all processes", "always, 2,000 rows"),
        ("hftpipe run, CPU of all processes", "everysec, 2,000 rows"),
        ("hftpipe run, its own server", "always, 2,000 rows"),
        ("loop", "no server, 1,000 rows"),
        ("hftpipe run / loop", "always, 2,000 rows"),
    }
    assert all(len(figure["samples"]) == 1 and figure["median"] > 0 for figure in figures.values())
    assert not any(figure["error"] for figure in figures.values())
    assert {"cores", "processor", "Python", "server", "SQLite", "disk"} <= content["machine"].keys()
    assert "hftpipe run / loop" in done.out
    assert "loop: loses all" in done.out
    assert f"SQLite: {content['machine']['SQLite']}" in done.out
    assert [path.name for path in charts.iterdir()] == ["throughput.svg"]


@pytest.mark.slow
def test_a_wrong_design_and_one_that_fails_are_shown_and_end_with_1(system: System) -> None:
    """One that is fast and wrong is no comparison; another's own words are shown; ours is measured to the end."""
    results, folder = system.folder / "results.json", designs(system, first=1)
    (folder / "none.py").write_text('"""Fails.\n\nRows: 1\n"""\nraise SystemExit("no such thing")\n')
    done = bench(system, *WORDS, "--designs", folder, "--json", results, "--format", "json", code=1)
    rows = orjson.loads(done.out)
    wrong = {row["name"] for row in rows if row["error"]}
    assert wrong == {"loop", "none", "hftpipe run / loop", "hftpipe run / none"}
    assert "hftpipe: throughput, loop" in done.err
    assert "no such thing" in done.err
    assert b"wrong balances" in results.read_bytes()
    assert {row["setting"] for row in rows if row["name"] == "hftpipe run"} == {
        "always, 2,000 rows",
        "everysec, 2,000 rows",
    }


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing(system: System, number: signal.Signals) -> None:
    """No folder, no server, no process, and one line that says so."""
    grounds = system.folder / "grounds"
    grounds.mkdir()
    running = system.start("bench", "--only", "throughput", "--rows", 300_000, "--folder", grounds)
    wait_for(lambda: list(grounds.glob("*/server-*/redis.sock")), "its server")
    running.send(number)
    assert running.ended() == 1
    assert "interrupted" in running.text
    assert "Traceback" not in running.text
    assert not list(grounds.iterdir())
    assert not _processes_of(grounds)


def _processes_of(folder: Path) -> list[str]:
    """The command lines of processes that have to do with a folder."""
    mark = os.fsencode(folder)
    found = []
    for process in Path("/proc").iterdir():
        try:
            words = (process / "cmdline").read_bytes()
            environment = (process / "environ").read_bytes()
        except OSError:
            continue
        if process.name != str(os.getpid()) and (mark in words or mark in environment):
            found.append(words.replace(b"\0", b" ").decode())
    return found


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "speed"], "speed"),
        (["--rows", "0"], "0"),
        (["--designs", "."], "holds no design"),
        (["--json", "nowhere/results.json"], "its folder is not there"),
        (["--folder", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_measured_is_refused_at_once(system: System, words: list[str], message: str) -> None:
    """Before anything is started, with a word about it."""
    done = system.run("bench", *words, code=2)
    assert message in done.err
