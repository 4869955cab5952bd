"""`hftpipe replay` beyond balances, as people use it: files, single transactions, other rules, another home."""

import gzip
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from hftpipe.errors import PipelineMismatch
from hftpipe.store.reading import balances, snapshot, store_paths
from hftpipe.wiring.pipeline import Place
from hftpipe.wiring.target import open_target
from tests.system.support import System, transactions

SMALL = """type,client,tx,amount
deposit,1,1,5
withdrawal,1,2,7
deposit,2,3,nonsense
deposit,1,1,2
dispute,1,1,
"""
OVERDRAFT = """from hftpipe.core.rules import Rules

class Rules(Rules):
    def withdraw(self, account, amount):
        if amount > account.available + 100_0000:
            return "beyond_overdraft"
        account.available -= amount
"""


def written(system: System, name: str, text: str | bytes) -> Path:
    path = system.folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def rows_of(out: str) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = orjson.loads(out)
    return rows


def test_a_dry_run_comes_to_what_a_run_comes_to_and_leaves_nothing(system: System) -> None:
    lines = b"".join(transactions(6_000, 60, seed=5)) + b"deposit,1,2,x\n"
    written(system, "file.csv.gz", gzip.compress(lines))
    words = ("--invalid", "invalid.csv", "--strict", "--keep", "kept")
    dry = system.run("replay", "file.csv.gz", *words, code=3)
    assert not system.home.exists()
    assert "read 6,001, invalid 1 (bad_amount 1)" in dry.err
    assert (system.folder / "invalid.csv").read_text().splitlines()[1].split(",")[1:4] == [
        "6002",
        "amount",
        "bad_amount",
    ]
    assert system.run("run", "file.csv.gz").out == dry.out
    assert system.run("replay", "-", feed=lines).out == dry.out
    kept = balances(system.folder / "kept")
    assert len(dry.out.splitlines()) == 1 + sum(1 for _ in kept)
    assert "kept is not empty" in system.run("replay", "file.csv.gz", "--keep", "kept", code=2).err


def test_single_transactions_of_a_file_are_told(system: System) -> None:
    written(system, "small.csv", SMALL)
    told = rows_of(system.run("replay", "small.csv", "--account", 1, "--format", "json").out)
    assert [(row["row"], row["outcome"], row["rule"]) for row in told] == [
        (2, "applied", "deposit: 5.0000 comes in → applied"),
        (3, "insufficient_funds", "withdrawal: 7.0000 wanted, 5.0000 available → insufficient_funds"),
        (5, "duplicate_tx", "deposit: tx 1 was taken before, by 1/1-0, row 2 → duplicate_tx"),
        (6, "applied", "dispute: 5.0000 of tx 1, which was undisputed, is held → applied"),
    ]
    assert [
        told[3][name] for name in ("available_before", "available", "held", "dispute_before", "dispute")
    ] == [*("5.0000", "0.0000", "5.0000", "undisputed", "disputed")]


def test_changed_rules_are_compared_with_the_standard_ones(system: System) -> None:
    written(system, "small.csv", SMALL)
    written(system, "overdraft.py", OVERDRAFT)
    written(system, "broken.py", "class Rules(:\n")
    found = system.run("replay", "small.csv", "--with", "overdraft.py", "--format", "json", code=1)
    (row,) = rows_of(found.out)
    source = row.pop("source")
    assert str(source).endswith("small.csv")
    assert row == {
        **{"entry": "1/1-0", "row": 3, "kind": "withdrawal", "client": 1, "tx": 2, "amount": "7.0000"},
        **{"then": "insufficient_funds", "now": "applied"},
    }
    assert "1 of 4 outcomes differ" in found.err
    assert "Now: available -7.0000, held 5.0000, 0 locked" in found.err
    assert (
        "broken.py:1: invalid syntax" in system.run("replay", "small.csv", "--with", "broken.py", code=2).err
    )
    assert not list(system.folder.glob("__pycache__"))


def test_what_was_recorded_is_appended_to_another_home(systems: Callable[[], System]) -> None:
    system, copy = systems(), systems()
    written(system, "file.csv", b"".join(transactions(6_000, 60, seed=5)))
    system.run("run", "file.csv", "--shards", 2)
    before = {path.name: path.read_bytes() for path in store_paths(system.home)}
    appended = system.run("replay", "--into", copy.home)
    assert "4 entries appended, 0 were there" in appended.err
    copy.drain()
    assert {path.name: path.read_bytes() for path in store_paths(system.home)} == before
    for path in store_paths(system.home):
        there, here = snapshot(path), snapshot(copy.home / path.name)
        assert (there.tables, there.checkpoint) == (here.tables, here.checkpoint)
        assert there.pipeline != here.pipeline
    assert "is what is replayed" in system.run("replay", "--into", system.home, code=2).err
    other = systems()
    other.prepare()
    with (
        pytest.raises(PipelineMismatch, match="holds a pipeline of 4 shards, and what is replayed has 2"),
        open_target(Place(system.home), str(other.home), 2, set()),
    ):
        pass


def test_without_a_terminal_or_a_pipeline_it_says_what_to_do(system: System) -> None:
    assert "--account 42 --format json" in system.run("replay", "--step", code=2).err
    assert "nothing was applied" in system.run("replay", "--into", "there", code=2).err
    assert not system.home.exists()
    assert not (system.folder / "there").exists()
