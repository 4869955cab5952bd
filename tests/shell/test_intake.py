"""From what a user names to sources and their rules: all are opened, or none."""

import io
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from hftpipe.config import SOURCE_CHARACTERS_MAX
from hftpipe.errors import SourceRefused, UsageError
from hftpipe.intake import Intake, IntakeOptions, open_intakes
from hftpipe.validation import ColumnarCsvValidator, ColumnarJsonlValidator, Rounding

CSV = b"type,client,tx,amount\ndeposit,1,1,1.00005\n"
JSONL = b'{"type":"deposit","client":1,"tx":1,"amount":"1"}\n'


@pytest.fixture
def stop() -> threading.Event:
    """Nobody says stop."""
    return threading.Event()


@pytest.fixture
def stdin() -> Iterator[int]:
    """The writing end of a pipe that stands for standard input."""
    saved = os.dup(0)
    reading, writing = os.pipe()
    os.dup2(reading, 0)
    os.close(reading)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.FileIO(0, closefd=False)))
        yield writing
    os.dup2(saved, 0)
    os.close(saved)


def written(writing: int, content: bytes) -> None:
    """All that comes through standard input."""
    os.write(writing, content)
    os.close(writing)


def file(folder: Path, name: str, content: bytes = CSV) -> str:
    """A file's path."""
    path = folder / name
    path.write_bytes(content)
    return str(path)


def open_files() -> int:
    """How many descriptors this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def lines_of(intakes: Sequence[Intake]) -> bytes:
    """All lines of all sources, which are closed then."""
    lines = b"".join(block.lines for intake in intakes for block in intake.source.blocks())
    for intake in intakes:
        intake.source.close()
    return lines


def test_a_file_is_kept_under_its_resolved_path(tmp_path: Path, stop: threading.Event) -> None:
    """Named in another way, it is the same source, and it can be resumed."""
    path = file(tmp_path, "a.csv")
    (tmp_path / "link.csv").symlink_to(path)
    intakes = open_intakes([path, str(tmp_path / "link.csv")], IntakeOptions(), stop)
    assert [intake.name for intake in intakes] == [str(Path(path).resolve())] * 2
    assert all(intake.resumable for intake in intakes)
    lines_of(intakes)


def test_bytes_of_a_path_that_are_no_text_are_escaped(tmp_path: Path, stop: threading.Event) -> None:
    """The name goes into entries, which hold UTF-8."""
    (intake,) = open_intakes([file(tmp_path, os.fsdecode(b"\xff.csv"))], IntakeOptions(), stop)
    assert intake.name.endswith("\\xff.csv")
    lines_of([intake])


def test_a_source_may_be_named(tmp_path: Path, stop: threading.Event) -> None:
    """For a file that moves, or has changed."""
    (intake,) = open_intakes([file(tmp_path, "a.csv")], IntakeOptions(source="monday"), stop)
    assert intake.name == "monday"
    lines_of([intake])


def test_one_name_does_not_fit_several_files(tmp_path: Path, stop: threading.Event) -> None:
    """Their positions would be mixed up."""
    paths = [file(tmp_path, "a.csv"), file(tmp_path, "b.csv")]
    with pytest.raises(UsageError, match="--source names one source"):
        open_intakes(paths, IntakeOptions(source="both"), stop)


@pytest.mark.parametrize("name", ["a\nb", "\x00", "\udcff", "x" * (SOURCE_CHARACTERS_MAX + 1)])
def test_a_name_must_be_printable_and_short(tmp_path: Path, stop: threading.Event, name: str) -> None:
    """It stands in reports, entries and tables."""
    with pytest.raises(UsageError, match="--source must be printable"):
        open_intakes([file(tmp_path, "a.csv")], IntakeOptions(source=name), stop)


@pytest.mark.parametrize(
    ("name", "content", "refused"),
    [
        ("missing.csv", None, "missing.csv' does not exist"),
        ("empty.csv", b"", "empty.csv is empty"),
        ("header.csv", b"a,b,c\n1,2,3\n", "header.csv: "),
        ("twice.csv", b"type,kind,client,amount\n", "twice.csv: "),
        ("bytes.csv", b"\xff\xfe,\x00\n1\n", "bytes.csv: "),
    ],
)
def test_one_that_is_refused_is_found_before_a_row_of_another_is_appended(
    tmp_path: Path, stop: threading.Event, name: str, content: bytes | None, refused: str
) -> None:
    """The path is named, and what was opened before is closed."""
    good, bad = file(tmp_path, "good.csv"), str(tmp_path / name)
    if content is not None:
        file(tmp_path, name, content)
    before = open_files()
    with pytest.raises(SourceRefused) as raised:
        open_intakes([good, bad], IntakeOptions(), stop)
    assert refused in str(raised.value)
    assert open_files() == before


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "A.JSONL"])
def test_json_lines_are_known_by_their_ending(tmp_path: Path, stop: threading.Event, name: str) -> None:
    """They have no header."""
    (intake,) = open_intakes([file(tmp_path, name, JSONL)], IntakeOptions(), stop)
    assert isinstance(intake.validator, ColumnarJsonlValidator)
    assert lines_of([intake]) == JSONL


def test_any_file_is_json_lines_when_that_is_said(tmp_path: Path, stop: threading.Event) -> None:
    """--jsonl."""
    (intake,) = open_intakes([file(tmp_path, "a.txt", JSONL)], IntakeOptions(jsonl=True), stop)
    assert isinstance(intake.validator, ColumnarJsonlValidator)
    lines_of([intake])


@pytest.mark.parametrize(("rounding", "accepted"), [(Rounding.REJECT, 0), (Rounding.HALF_EVEN, 1)])
def test_rounding_is_handed_on(
    tmp_path: Path, stop: threading.Event, rounding: Rounding, accepted: int
) -> None:
    """To the rules of every source."""
    (intake,) = open_intakes([file(tmp_path, "a.csv")], IntakeOptions(rounding=rounding), stop)
    (block,) = intake.source.blocks()
    assert len(intake.validator.validate(block.lines, block.first_line).batch) == accepted
    intake.source.close()


def test_following_ends_when_the_process_is_told_to_stop(tmp_path: Path, stop: threading.Event) -> None:
    """And the rows that were there have been given."""
    (intake,) = open_intakes([file(tmp_path, "a.csv")], IntakeOptions(follow=True), stop)
    stop.set()
    assert lines_of([intake]) == CSV.partition(b"\n")[2]


def test_standard_input_is_a_new_source_each_time(stdin: int, stop: threading.Event) -> None:
    """Nobody knows whether it is the same as before, so it cannot be resumed."""
    written(stdin, CSV)
    (intake,) = open_intakes(["-"], IntakeOptions(), stop)
    (other,) = open_intakes(["-"], IntakeOptions(jsonl=True), stop)
    assert intake.name.startswith("stdin:")
    assert intake.name != other.name
    assert not intake.resumable
    assert isinstance(intake.validator, ColumnarCsvValidator)
    assert lines_of([intake]) == CSV.partition(b"\n")[2]


def test_standard_input_with_a_name_can_be_resumed(stdin: int, stop: threading.Event) -> None:
    """The user says that the same lines will come again."""
    written(stdin, JSONL)
    (intake,) = open_intakes(["-"], IntakeOptions(source="feed", jsonl=True), stop)
    assert (intake.name, intake.resumable) == ("feed", True)
    assert lines_of([intake]) == JSONL


def test_standard_input_without_a_header_is_refused(stdin: int, stop: threading.Event) -> None:
    """As any file, and named as the user named it."""
    written(stdin, b"hello\n")
    with pytest.raises(SourceRefused, match="-: "):
        open_intakes(["-"], IntakeOptions(), stop)


def test_waiting_for_standard_input_ends_when_told_to_stop(stdin: int, stop: threading.Event) -> None:
    """Nothing has come, and nothing is waited for."""
    stop.set()
    (intake,) = open_intakes(["-"], IntakeOptions(jsonl=True), stop)
    assert lines_of([intake]) == b""
    os.close(stdin)


def test_standard_input_is_named_once() -> None:
    """It could not be read a second time."""
    with pytest.raises(UsageError, match="name `-` once"):
        open_intakes(["-", "-"], IntakeOptions(), threading.Event())
