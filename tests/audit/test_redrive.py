"""Entries appended once more make the same tables in another pipeline, however often the way there was broken off."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from hftpipe.audit.material import Recording, opened
from hftpipe.audit.redrive import Outside, Redrive
from hftpipe.audit.window import Origin, Window
from hftpipe.config import IngestLimits
from hftpipe.core.entry import EntryId
from hftpipe.errors import Interrupted, LogUnavailable, UsageError
from hftpipe.log.memory import MemoryLog, MemoryLogWriter
from hftpipe.ports import Appended, Outgoing
from hftpipe.store.reading import snapshot
from hftpipe.store.sqlite import shard_path
from tests.audit.prepared import SHARDS, FilePipeline, Prepared
from tests.shell.memory_pipeline import StillClock


class Target(FilePipeline):
    """Another pipeline, and what was said while it was appended to."""

    def __init__(self, home: Path) -> None:
        home.mkdir(exist_ok=True)
        super().__init__(home)
        self.said: list[str] = []
        self.is_stopped = False

    def redrive(
        self,
        prepared: Prepared,
        *,
        window: Window = Window(),  # noqa: B008 - a frozen value
        shards: Sequence[int] = range(SHARDS),
        log: MemoryLogWriter | None = None,
        limits: IngestLimits = IngestLimits(),  # noqa: B008 - a frozen value
    ) -> Redrive:
        recording = Recording(prepared.home, SHARDS, window, Origin.JOURNAL)
        outside = Outside(StillClock(), lambda: 0.5, lambda: self.is_stopped, self.said.append)
        redrive = Redrive(log or self.log.writer(), limits, outside, lambda _: None)
        with ExitStack() as stack:
            redrive.run({shard: stack.enter_context(opened(recording, shard)) for shard in shards})
        return redrive


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return Target(tmp_path / "target")


def assert_same(prepared: Prepared, target: Target, shards: Sequence[int] = range(SHARDS)) -> None:
    for shard in shards:
        there, here = (snapshot(shard_path(home, shard)) for home in (prepared.home, target.home))
        assert there.tables == here.tables
        assert there.checkpoint == here.checkpoint
        assert there.pipeline == here.pipeline  # in memory, all pipelines have the same name


def test_the_tables_are_the_same_byte_for_byte(prepared: Prepared, target: Target) -> None:
    redrive = target.redrive(prepared)
    target.work()
    assert_same(prepared, target)
    assert redrive.appended == sum(
        snapshot(shard_path(prepared.home, shard)).checkpoint.number for shard in range(SHARDS)
    )


def test_done_again_it_adds_nothing(prepared: Prepared, target: Target) -> None:
    first = target.redrive(prepared)
    again = target.redrive(prepared)
    assert (again.appended, again.found) == (0, first.appended)
    target.work()
    assert_same(prepared, target)


def test_what_was_there_is_counted_shard_by_shard(prepared: Prepared, target: Target) -> None:
    """Once each, whatever was appended to another shard, and however often it was looked up anew."""
    target.redrive(prepared, window=Window(last=EntryId(1, 9)), shards=[0])
    there = 10 + target.redrive(prepared, shards=[1]).appended
    assert target.redrive(prepared, log=Faulty(target.log)).found == there


class Faulty(MemoryLogWriter):
    """Fails now and then: before it appends, or when the reply is lost."""

    def __init__(self, log: MemoryLog) -> None:
        super().__init__(log)
        self.calls = 0

    def append(self, entries: Sequence[Outgoing]) -> Appended:
        self.calls += 1
        fault = LogUnavailable("the server is away")
        if self.calls % 3 == 1:
            return Appended([], fault)
        if self.calls % 3 == 2:
            super().append(entries[: len(entries) // 2])
            return Appended([], fault)
        return super().append(entries)


def test_lost_replies_double_nothing(prepared: Prepared, target: Target) -> None:
    target.redrive(prepared, log=Faulty(target.log))
    assert "the server is away. Trying again in" in target.said[0]
    target.work()
    assert_same(prepared, target)


def test_stopped_anywhere_it_goes_on_from_there(prepared: Prepared, target: Target) -> None:
    target.is_stopped = True
    stops = 0
    while True:
        try:
            target.redrive(prepared, limits=IngestLimits(backlog_entries_max=1_000, backlog_share_max=5))
        except Interrupted:
            stops += 1
            target.is_stopped = stops < 4
        else:
            break
    assert stops >= 4
    target.work()
    assert_same(prepared, target)


def test_a_full_backlog_is_waited_for(prepared: Prepared, target: Target) -> None:
    class Working(MemoryLogWriter):
        """Its workers run when somebody has found the backlog full."""

        def backlog(self, shard: int) -> int:
            found = super().backlog(shard)
            assert found <= 8
            if found == 8:
                target.work()
            return found

    target.redrive(
        prepared, log=Working(target.log), limits=IngestLimits(backlog_entries_max=8, backlog_share_max=8)
    )
    assert len([line for line in target.said if "8 entries waiting, its cap" in line]) == 1
    target.work()
    assert_same(prepared, target)


def test_a_part_and_then_the_rest(prepared: Prepared, target: Target) -> None:
    target.redrive(prepared, window=Window(last=EntryId(1, 9)), shards=[1])
    assert target.log.extent(1).last == EntryId(1, 9)
    assert target.log.extent(0).last is None
    target.redrive(prepared, window=Window(first=EntryId(1, 10)), shards=[1])
    target.work()
    assert_same(prepared, target, [1])


def test_entries_of_others_are_not_built_on(prepared: Prepared, target: Target) -> None:
    target.log.append(Outgoing(1, {b"hello": b"world"}))
    with pytest.raises(UsageError, match="others have written there"):
        target.redrive(prepared)
