"""A server that comes back without the end of its log: found by worker and producer, and healed without loss."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.system.raw_log import Feed
from tests.system.support import Running, System, check, essence, transactions, wait_for


@dataclass
class Growing:
    """A file that grows, and the places in the server's file where it may be cut."""

    system: System
    lines: list[bytes] = field(default_factory=lambda: transactions(4_000, 60, seed=11))
    written: int = 0

    @property
    def path(self) -> Path:
        return self.system.folder / "growing.csv"

    def grow(self, rows: int) -> None:
        """Appends lines to the file; the header comes before the first."""
        until = max(self.written, 1) + rows
        with self.path.open("ab") as file:
            file.writelines(self.lines[self.written : until])
        self.written = until

    def ingest(self) -> str:
        """Returns what was said."""
        return self.system.ingest(self.path).err

    def settle(self) -> None:
        """Ingests the rest and applies all."""
        self.grow(len(self.lines) - self.written)
        self.ingest()
        self.system.drain()


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[tuple[object, ...]]]:
    """What a system that nothing happens to makes of the same file."""
    system = System(tmp_path_factory.mktemp("s"))
    try:
        growing = Growing(system)
        growing.settle()
        yield essence(check(system))
    finally:
        system.close()


@pytest.fixture
def growing(system: System) -> Iterator[Growing]:
    """A first part is applied; the server stays."""
    system.prepare()
    growing = Growing(system)
    growing.grow(1_000)
    growing.ingest()
    system.prepare()
    return growing


def server_file(system: System) -> Path:
    """The append-only file that the server writes now."""
    return max((system.home / "redis" / "appendonlydir").glob("*.incr.aof"))


def cut(system: System, size: int) -> None:
    """Kills the server and takes the end of its file away: what a disk that does not honour a flush does."""
    system.kill_server(keeper=True)
    wait_for(lambda: not system.server_pids(), "the end of the server")
    with server_file(system).open("r+b") as file:
        file.truncate(size)


def reports_of(text: str) -> int:
    return text.count("the log lost its tail: entry ")


def incarnations(system: System) -> set[int]:
    """How often the shards' checkpoints went back."""
    return {summary.checkpoint.incarnation for summary in system.summaries().values()}


@pytest.mark.parametrize("first", ["worker", "ingest", pytest.param("other", marks=pytest.mark.slow)])
def test_applied_entries_that_the_log_lost_heal(
    growing: Growing, expected: list[tuple[object, ...]], first: str
) -> None:
    """Whoever comes first finds it: the worker, the same file again, or another source under the same ids."""
    system = growing.system
    size = server_file(system).stat().st_size
    growing.grow(1_000)
    growing.ingest()
    system.drain()
    lost = {shard: summary.checkpoint.id for shard, summary in system.summaries().items()}
    cut(system, size)
    if first == "ingest":
        growing.ingest()
    if first == "other":
        with_other_entries(system)
    told = system.drain().err
    assert reports_of(told) == 4
    assert (
        f"shard 0: the log lost its tail: entry {lost[0]} is not the one that was applied. Going on behind"
        in told
    )
    growing.settle()
    assert incarnations(system) == {1}
    if first != "other":
        assert essence(check(system)) == expected
    check(system)


def with_other_entries(system: System) -> None:
    """Takes the lost ids for entries of another source."""
    system.run("status")
    with system.client() as client:
        for shard in range(4):
            Feed(client, shard=shard, source="other").append(2)


def test_entries_lost_before_they_were_applied_are_sent_again(
    growing: Growing, expected: list[tuple[object, ...]]
) -> None:
    """Only the producer can know: its file is ingested again, and it finds what is missing."""
    system = growing.system
    size = server_file(system).stat().st_size
    growing.grow(1_000)
    growing.ingest()
    cut(system, size)
    growing.settle()
    assert incarnations(system) == {0}
    assert essence(check(system)) == expected


def test_a_torn_command_at_the_end_of_the_file_heals(
    growing: Growing, expected: list[tuple[object, ...]]
) -> None:
    """The server drops half a command by itself."""
    system = growing.system
    growing.grow(1_000)
    growing.ingest()
    cut(system, server_file(system).stat().st_size - 3)
    growing.settle()
    assert essence(check(system)) == expected


def test_a_lost_tail_heals_under_running_processes(
    growing: Growing, expected: list[tuple[object, ...]]
) -> None:
    """A following ingest and a worker reconnect, find it, and mend it without being started again."""
    system = growing.system
    ingest = system.start("ingest", "--follow", growing.path)
    worker = system.start("worker", lease_ms="1000")
    size = server_file(system).stat().st_size
    growing.grow(1_000)
    wait_for(lambda: rows_applied(system) >= 2_000, "the second part")
    cut(system, size)
    growing.grow(1)
    ingest.says("Beginning again at the start of the source; what was applied is skipped")
    wait_for(lambda: reports_of(worker.text) == 4, f"the worker's reports:\n{worker.text}")
    growing.grow(len(growing.lines) - growing.written)
    wait_for(lambda: rows_applied(system) == len(growing.lines) - 1, "the rest")
    assert_ends([ingest, worker])
    assert essence(check(system)) == expected


def rows_of_file(shards: list[tuple[object, ...]]) -> list[object]:
    """What became of the growing file's rows."""
    return [row for *_, rows in shards for row in rows if row[0] == "growing.csv"]  # type: ignore[attr-defined]


def rows_applied(system: System) -> int:
    """Rows that were decided."""
    totals = [summary.checkpoint.totals for summary in system.summaries().values()]
    return sum(total.applied + total.refused for total in totals)


def assert_ends(processes: list[Running]) -> None:
    for process in processes:
        process.process.terminate()
        assert process.ended() == 0
