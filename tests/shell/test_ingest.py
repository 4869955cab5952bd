"""Ingesting files into a log in memory: again, grown, killed at any point, and with a log that forgets."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftpipe.config import IngestLimits
from hftpipe.core.entry import EntryId
from hftpipe.errors import Interrupted, LogUnavailable, SourceRefused
from hftpipe.ingest import Summary
from hftpipe.invalid_report import InvalidFile
from hftpipe.invariants import violations
from hftpipe.log.memory import MemoryLog, MemoryLogWriter
from hftpipe.ports import Appended, Outgoing
from hftpipe.validation import Invalid
from tests.shell.memory_pipeline import MemoryPipeline

HEADER = "type,client,tx,amount\n"
SMALL = IngestLimits(entry_transactions_max=2, pipeline_entries_max=2)


class Killed(BaseException):
    """The process is gone; nothing behind this happens."""


class MortalWriter(MemoryLogWriter):
    """A log's writer that is killed with its process after so many writes, inside a pipeline as well."""

    def __init__(self, log: MemoryLog, writes: int) -> None:
        super().__init__(log)
        self._left = writes

    def append(self, entries: Sequence[Outgoing]) -> Appended:
        return Appended([entry_id for entry in entries for entry_id in self._append_one(entry)])

    def note(self, source: str, advice: Mapping[int, bytes]) -> None:
        for shard, text in advice.items():
            self._live()
            super().note(source, {shard: text})

    def _append_one(self, entry: Outgoing) -> list[EntryId]:
        self._live()
        return super().append([entry]).ids

    def _live(self) -> None:
        if self._left == 0:
            raise Killed
        self._left -= 1


class BreakingWriter(MemoryLogWriter):
    """A log's writer whose connection breaks off before the pipeline of that number, when `before` is called."""

    def __init__(self, log: MemoryLog, number: int, before: Callable[[], None]) -> None:
        super().__init__(log)
        self._left = number
        self._before = before

    def append(self, entries: Sequence[Outgoing]) -> Appended:
        self._left -= 1
        if self._left == 0:
            self._before()
            return Appended([], LogUnavailable("the connection broke off"))
        return super().append(entries)


class Reports:
    """What is reported of each source, and whether the process is killed right behind it."""

    def __init__(self, *, mortal: bool = False) -> None:
        self.begun: list[int] = []
        self.rows: list[int] = []
        self._mortal = mortal

    def begin(self, source: str, after_line: int) -> None:
        self.begun.append(after_line)

    def add(self, invalid: Sequence[Invalid]) -> None:
        self.rows += [row.line for row in invalid]
        if self._mortal:
            raise Killed


@contextmanager
def blocks_of(size: int) -> Iterator[None]:
    """Files are read in blocks of so many bytes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hftpipe.source.file.BLOCK_BYTES", size)
        yield


def lose_tail(pipeline: MemoryPipeline, shard: int, kept: int) -> None:
    """A shard's log forgets all but its first entries."""
    stream = pipeline.log.streams[shard]
    for entry_id in list(stream.entries)[kept:]:
        del stream.entries[entry_id]
    stream.last = EntryId(1, len(stream.entries) - 1)


def deposits_file(folder: Path, count: int) -> Path:
    """So many deposits of one unit, dealt out over three accounts."""
    path = folder / "deposits.csv"
    path.write_text(HEADER + "".join(f"deposit,{tx % 3},{tx},1\n" for tx in range(count)))
    return path


def entry_count(pipeline: MemoryPipeline) -> int:
    """Entries in all shards' logs."""
    return sum(len(stream.entries) for stream in pipeline.log.streams)


def deposited(pipeline: MemoryPipeline) -> int:
    """Units of all accounts, once all is applied."""
    pipeline.work()
    return sum(balance[0] for balance in pipeline.balances().values()) // 10_000


# --- again, and grown ---------------------------------------------------------------------------------------------


def test_a_file_already_ingested_adds_nothing(tmp_path: Path) -> None:
    """Not one entry, however often."""
    pipeline, path = MemoryPipeline(), deposits_file(tmp_path, 10)
    pipeline.ingest(path)
    before = entry_count(pipeline)
    summary = pipeline.ingest(path)
    assert summary == Summary()
    assert entry_count(pipeline) == before
    assert deposited(pipeline) == 10


def test_a_file_that_has_grown_adds_its_new_rows(tmp_path: Path) -> None:
    """And only those."""
    pipeline, path = MemoryPipeline(), deposits_file(tmp_path, 10)
    pipeline.ingest(path)
    deposits_file(tmp_path, 14)
    assert pipeline.ingest(path) == Summary(read=4, appended=4)
    assert deposited(pipeline) == 14


def test_a_file_whose_last_line_was_ended_later_adds_its_new_rows(tmp_path: Path) -> None:
    """The line that had no line end is not taken twice."""
    pipeline, path = MemoryPipeline(), tmp_path / "open.csv"
    path.write_text(HEADER + "deposit,1,1,1")
    pipeline.ingest(path)
    path.write_text(HEADER + "deposit,1,1,1\ndeposit,1,2,1")
    assert pipeline.ingest(path) == Summary(read=1, appended=1)
    assert deposited(pipeline) == 2


@pytest.mark.parametrize(
    "content", ["deposit,1,1,2\n", "", "deposit,1,1,1x"], ids=["changed", "cut", "longer line"]
)
def test_a_mark_that_no_longer_fits_is_refused(tmp_path: Path, content: str) -> None:
    """A changed file under an old name is no continuation; nothing of it is appended."""
    pipeline, path = MemoryPipeline(), tmp_path / "changed.csv"
    path.write_text(HEADER + "deposit,1,1,1")
    pipeline.ingest(path)
    path.write_text(HEADER + content)
    with pytest.raises(SourceRefused, match="has changed since it was last ingested"):
        pipeline.ingest(path)
    assert entry_count(pipeline) == 1


def test_the_same_content_under_another_name_is_another_source(tmp_path: Path) -> None:
    """Its transactions are then refused as duplicates by the ledger, not skipped."""
    pipeline, path = MemoryPipeline(1), deposits_file(tmp_path, 2)
    pipeline.ingest(path)
    pipeline.ingest(path, source="again")
    assert deposited(pipeline) == 2
    assert pipeline.outcomes()[1] == '{"refused":{"duplicate_tx":[0,1]}}'


# --- stopping and losing ------------------------------------------------------------------------------------------


def test_a_stop_between_blocks_keeps_what_is_done_and_says_that_it_is_not_all(tmp_path: Path) -> None:
    """The block in hand is finished and noted; a successor goes on behind it."""
    pipeline, path = MemoryPipeline(), deposits_file(tmp_path, 20)
    first = Summary()
    with blocks_of(100):
        with pytest.raises(Interrupted, match="stopped behind line"):
            pipeline.ingest(path, stopping=lambda: True, summary=first)
        second = pipeline.ingest(path)
    assert 0 < first.appended < 20
    assert first.appended + second.appended == 20
    assert deposited(pipeline) == 20


def test_a_lost_tail_begins_again_and_counts_once(tmp_path: Path) -> None:
    """The summary is that of the file, not of the work it took; the worker skips what it knows."""
    pipeline, path = MemoryPipeline(1), deposits_file(tmp_path, 20)
    path.write_text(path.read_text().replace("deposit,2,5,1", "deposit,2,5,-1"))

    def lose() -> None:
        pipeline.work()
        lose_tail(pipeline, 0, 1)

    with blocks_of(100):
        summary = pipeline.ingest(path, limits=SMALL, log=BreakingWriter(pipeline.log, 4, lose))
    assert (summary.read, summary.appended, summary.invalid.total()) == (20, 19, 1)
    assert len(pipeline.report.rows) == 1
    assert any("Beginning again at the start" in line for line in pipeline.lines)
    assert deposited(pipeline) == 19


def test_the_report_is_told_where_the_rows_begin_again(tmp_path: Path) -> None:
    """Behind the mark of a predecessor, or at the start."""
    pipeline, path = MemoryPipeline(1), deposits_file(tmp_path, 20)
    reports = Reports()
    pipeline.ingest(path, report=reports)
    pipeline.ingest(path, report=reports)
    assert reports.begun == [0, 21]


# --- invalid rows, each once --------------------------------------------------------------------------------------


def test_who_is_killed_behind_a_report_reports_the_row_again_and_not_never(tmp_path: Path) -> None:
    """The place is noted last."""
    pipeline, path = MemoryPipeline(), tmp_path / "bad.csv"
    path.write_text(HEADER + "deposit,1,1,x\n")
    mortal, immortal = Reports(mortal=True), Reports()
    with pytest.raises(Killed):
        pipeline.ingest(path, report=mortal)
    pipeline.ingest(path, report=immortal)
    assert mortal.rows == immortal.rows == [2]


@pytest.mark.parametrize("torn", [0, 1, 5], ids=["whole", "without line end", "half written"])
def test_invalid_rows_stand_once_in_the_file_across_a_kill(tmp_path: Path, torn: int) -> None:
    """What was reported behind the mark is taken back; so is half a row."""
    pipeline, path, report = MemoryPipeline(1), tmp_path / "bad.csv", tmp_path / "invalid.csv"
    path.write_text(HEADER + "".join(f"deposit,1,{tx},{tx or 'x'}\ndeposit,1,y,1\n" for tx in range(9)))
    for writes in (0, 2, 3, 100):
        with closing(InvalidFile(report)) as invalid, blocks_of(60):
            try:
                pipeline.ingest(path, report=invalid, log=MortalWriter(pipeline.log, writes))
            except Killed:
                invalid.add([Invalid(99, "tx", "bad_tx", "of the block in hand")])
        if writes < 100:
            report.write_bytes(report.read_bytes()[: -torn or None])
    lines = [line.split(",")[1] for line in report.read_text().splitlines()[1:]]
    assert lines == ["2", *map(str, range(3, 20, 2))]


# --- any file, any blocks, any kills ------------------------------------------------------------------------------

ROWS = st.lists(
    st.one_of(
        st.builds(
            "{},{},{},{}".format,
            st.sampled_from(["deposit", "withdrawal"]),
            st.integers(0, 4),
            st.integers(1, 30),
            st.sampled_from(["1", "2.5", "40", "x", "-1", "0.00001"]),
        ),
        st.builds(
            "{},{},{}".format,
            st.sampled_from(["dispute", "resolve", "chargeback"]),
            st.integers(0, 4),
            st.integers(1, 30),
        ),
        st.sampled_from(["", "nonsense", "deposit,1,,1"]),
    ),
    max_size=40,
)


def in_one_go(path: Path, shards: int) -> tuple[object, list[Invalid]]:
    """Balances, and invalid rows, when nothing happens on the way."""
    pipeline = MemoryPipeline(shards)
    pipeline.ingest(path)
    pipeline.work()
    return pipeline.balances(), pipeline.report.rows


@settings(deadline=None, max_examples=60)
@given(
    rows=ROWS,
    shards=st.integers(1, 3),
    attempts=st.lists(
        st.tuples(st.integers(0, 25), st.integers(1, 200), st.booleans(), st.integers(1, 30)), max_size=6
    ),
    last_line=st.sampled_from(["", "\n"]),
)
def test_any_blocks_and_kills_give_the_same_balances_as_one_go(
    rows: list[str], shards: int, attempts: list[tuple[int, int, bool, int]], last_line: str
) -> None:
    """Each attempt is killed after some writes, workers run or not, and a log loses its tail now and then."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "random.csv"
        path.write_text(HEADER + "\n".join(rows) + last_line)
        pipeline = MemoryPipeline(shards)
        for writes, block, works, kept in attempts:
            with blocks_of(block), suppress(Killed):
                pipeline.ingest(path, limits=SMALL, log=MortalWriter(pipeline.log, writes))
            if works:
                pipeline.work()
            lose_tail(pipeline, writes % shards, kept)
        pipeline.ingest(path)
        pipeline.work()
        assert (pipeline.balances(), pipeline.report.rows) == in_one_go(path, shards)
        assert not [line for store in pipeline.stores for line in violations(store.snapshot())]
