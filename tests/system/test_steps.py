"""Processes killed at chosen steps: whatever was half done is done once after the restart."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.support import System, check, decided, essence, transactions, wait_for

ROWS = 3_000
PARTS = 3

INGEST_POINTS = ["ingest.pre_append", "ingest.post_append"]
WORKER_POINTS = [
    "worker.read",
    "worker.applied",
    "store.in_transaction",
    "worker.committed",
    "worker.acknowledged",
]


@pytest.fixture(scope="module")
def lines() -> list[bytes]:
    """A file with disputes, refusals and ids in no order."""
    return transactions(ROWS, 50, seed=5, random_ids=True)


def write(system: System, lines: list[bytes], part: int) -> Path:
    """The file after its first parts; it grows from part to part."""
    path = system.folder / "input.csv"
    path.write_bytes(b"".join(lines[: 1 + ROWS * part // PARTS]))
    return path


@pytest.fixture(scope="module")
def expected(lines: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> list[tuple[object, ...]]:
    """What an undisturbed system makes of the file."""
    system = System(tmp_path_factory.mktemp("s"))
    try:
        system.ingest(write(system, lines, PARTS))
        system.drain()
        return essence(check(system))
    finally:
        system.close()


def ended_by_fault(system: System, *words: object, fault: str) -> int | None:
    """The exit code of a command that a fault is planted in."""
    process = system.start(*words, fault=fault)
    wait_for(lambda: process.code is not None, f"the end of {words}:\n{process.text}")
    return process.code


@pytest.mark.parametrize("point", INGEST_POINTS)
def test_an_ingest_killed_at_a_step_loses_and_doubles_nothing(
    system: System, lines: list[bytes], expected: list[tuple[object, ...]], point: str
) -> None:
    """Killed in the first append of a file, and in the first that its growth makes necessary."""
    for part in (1, PARTS):
        path = write(system, lines, part)
        assert ended_by_fault(system, "ingest", path, fault=f"{point}:1:kill") == -9
    system.ingest(path)
    system.drain()
    assert essence(check(system)) == expected


@pytest.mark.parametrize("point", INGEST_POINTS)
def test_the_second_of_two_files_is_resumed_too(system: System, lines: list[bytes], point: str) -> None:
    """Killed at the append behind that of the first file: the first is not appended again."""
    first, second = write(system, lines, 1), system.folder / "second.csv"
    second.write_bytes(lines[0] + b"".join(lines[-5:]))
    assert ended_by_fault(system, "ingest", first, second, fault=f"{point}:2:kill") == -9
    assert "durable 5\n" in system.ingest(first, second).err
    system.drain()
    check(system)
    rows = [row for shard in system.snapshots() for row in decided(shard)]
    assert len(rows) == ROWS // PARTS + 5


@pytest.mark.parametrize("point", WORKER_POINTS)
def test_a_worker_killed_at_a_step_loses_and_doubles_nothing(
    system: System, lines: list[bytes], expected: list[tuple[object, ...]], point: str
) -> None:
    """Killed at the first and at later occurrences, with new input between, and finished by a last one."""
    for part in range(1, PARTS + 1):
        system.ingest(write(system, lines, part))
        code = ended_by_fault(system, "worker", "--until-idle", fault=f"{point}:{part}:kill")
        assert code == -9
        check(system)
    system.drain()
    assert essence(check(system)) == expected
    assert {summary.checkpoint.incarnation for summary in system.summaries().values()} == {0}


def test_a_committed_entry_is_not_applied_again(system: System, lines: list[bytes]) -> None:
    """Killed between commit and acknowledgement: the entry is pending, its successor skips it."""
    system.ingest(write(system, lines, 1))
    assert ended_by_fault(system, "worker", "--shard", 0, fault="worker.committed:1:kill") == -9
    before = system.summaries()[0]
    assert before.checkpoint.id.sequence == 0
    assert before.owner
    system.drain("--shard", 0)
    after = system.summaries()[0]
    assert after.checkpoint == before.checkpoint
    assert (after.epoch, after.owner) == (before.epoch + 1, "")
    assert system.statuses()[0]["pending"] == 0


def test_nothing_of_a_commit_that_was_cut_off_can_be_seen(system: System, lines: list[bytes]) -> None:
    """Killed inside the transaction."""
    system.ingest(write(system, lines, 1))
    assert ended_by_fault(system, "worker", "--shard", 0, fault="store.in_transaction:1:kill") == -9
    (cut_off,) = check(system)
    assert not cut_off.tables.records
    assert not cut_off.tables.balances


@pytest.mark.parametrize("point", ["worker.applied", "store.in_transaction", "worker.committed"])
def test_a_passing_fault_is_tried_again(
    system: System, lines: list[bytes], expected: list[tuple[object, ...]], point: str
) -> None:
    """An I/O error, also one behind the commit, whose outcome is then unknown to the worker."""
    system.ingest(write(system, lines, PARTS))
    faults = ",".join(f"{point}:{number}:eio" for number in (1, 2, 4, 7))
    told = system.run("worker", "--until-idle", fault=faults).err
    assert told.count("Trying again in") >= 3
    assert essence(check(system)) == expected


def test_restarting_everything_without_input_changes_nothing(
    systems: Callable[[], System], lines: list[bytes]
) -> None:
    """Worker, server and ingest, twice: the tables stay as they are, byte for byte."""
    system = systems()
    path = write(system, lines, PARTS)
    system.ingest(path)
    system.drain()
    before = [shard.tables for shard in check(system)]
    for _ in range(2):
        system.kill_server(keeper=True)
        assert "durable 0\n" in system.ingest(path).err
        system.drain()
        system.stop_server()
    assert [shard.tables for shard in check(system)] == before
