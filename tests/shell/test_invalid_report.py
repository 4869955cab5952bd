"""Where invalid rows are reported: a file that holds each once, or the first few for people."""

import csv
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from hftpipe.errors import UsageError
from hftpipe.invalid_report import InvalidFile, InvalidLines
from hftpipe.validation import Invalid


def rows(*lines: int) -> list[Invalid]:
    """An invalid row on each of these lines."""
    return [Invalid(line, "amount", "bad_amount", f"at {line}") for line in lines]


def report(path: Path, source: str, after_line: int, *blocks: Sequence[Invalid]) -> None:
    """One run of an ingest."""
    with closing(InvalidFile(path)) as file:
        file.begin(source, after_line)
        for block in blocks:
            file.add(block)


def reported(path: Path) -> list[tuple[str, int]]:
    """Source and line of each row, as a reader of CSV sees them."""
    with path.open(newline="", encoding="utf-8") as file:
        return [(row["source"], int(row["line"])) for row in csv.DictReader(file)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the report is to stand."""
    return tmp_path / "invalid.csv"


def test_a_report_says_source_line_field_reason_and_content(path: Path) -> None:
    """As CSV with a header, readable for its owner only."""
    report(path, "a.csv", 0, [Invalid(7, "amount", "bad_amount", 'ten, or "so"')])
    assert (
        path.read_text() == 'source,line,field,reason,content\na.csv,7,amount,bad_amount,"ten, or ""so"""\n'
    )
    assert path.stat().st_mode & 0o077 == 0


def test_a_report_without_rows_is_a_header(path: Path) -> None:
    """A reader need not ask whether there is one."""
    report(path, "a.csv", 0, [])
    assert path.read_text() == "source,line,field,reason,content\n"


def test_rows_are_in_the_file_as_soon_as_they_were_added(path: Path) -> None:
    """The place in the source is noted behind them: a kill then must find them written."""
    with closing(InvalidFile(path)) as file:
        file.begin("a.csv", 0)
        file.add(rows(3))
        assert reported(path) == [("a.csv", 3)]


def test_a_later_run_adds_to_the_report(path: Path) -> None:
    """The file has grown, and so has the report."""
    report(path, "a.csv", 0, rows(2, 4))
    report(path, "a.csv", 5, rows(6))
    assert reported(path) == [("a.csv", 2), ("a.csv", 4), ("a.csv", 6)]


def test_what_is_to_come_again_is_taken_back(path: Path) -> None:
    """Behind the line where the successor goes on."""
    report(path, "a.csv", 0, rows(2, 4), rows(6, 8))
    report(path, "a.csv", 5, rows(6, 8), rows(9))
    assert reported(path) == [("a.csv", line) for line in (2, 4, 6, 8, 9)]


def test_what_was_taken_back_is_gone_at_once(path: Path) -> None:
    """Also when the new rows are fewer, or never come."""
    report(path, "a.csv", 0, rows(2, 4, 6))
    report(path, "a.csv", 3)
    assert reported(path) == [("a.csv", 2)]


@pytest.mark.parametrize("torn", ["a.c", "a.csv,9", "a.csv,9,amount,bad_amount,at 9", '"a', "\xff"])
def test_a_half_written_last_line_is_taken_back(path: Path, torn: str) -> None:
    """Whatever source it came from."""
    report(path, "a.csv", 0, rows(2))
    with path.open("ab") as file:
        file.write(torn.encode("latin-1"))
    report(path, "b.csv", 0, rows(5))
    assert reported(path) == [("a.csv", 2), ("b.csv", 5)]


@pytest.mark.parametrize("strange", [b"\n", b"a note\n", b"\xff,\xff\n", b"a.csv,x,y,z,\n"])
def test_what_somebody_else_wrote_into_a_report_is_left_alone(path: Path, strange: bytes) -> None:
    """Nobody promised that only programs open it."""
    report(path, "a.csv", 0, rows(2))
    with path.open("ab") as file:
        file.write(strange)
    report(path, "a.csv", 2, rows(4))
    lines = path.read_bytes().splitlines(keepends=True)
    assert lines[2] == strange
    assert [line.split(b",")[1] for line in (lines[1], lines[3])] == [b"2", b"4"]


def test_two_sources_share_a_report(path: Path) -> None:
    """Each takes back only what is its own."""
    report(path, "a.csv", 0, rows(2, 4))
    report(path, "b.csv", 0, rows(2, 4))
    report(path, "b.csv", 3, rows(4))
    assert reported(path) == [("a.csv", 2), ("a.csv", 4), ("b.csv", 2), ("b.csv", 4)]


def test_a_row_that_stands_before_those_of_another_source_is_not_reported_twice(path: Path) -> None:
    """A killed ingest of one file, then another file, then the first one again."""
    report(path, "a.csv", 0, rows(2, 4))
    report(path, "b.csv", 0, rows(3))
    report(path, "a.csv", 3, rows(4), rows(6))
    assert sorted(reported(path)) == [("a.csv", 2), ("a.csv", 4), ("a.csv", 6), ("b.csv", 3)]


def test_several_sources_in_one_run_stand_one_behind_the_other(path: Path) -> None:
    """`begin` is called for each."""
    with closing(InvalidFile(path)) as file:
        for source in ("a.csv", "b.csv"):
            file.begin(source, 0)
            file.add(rows(2))
    assert reported(path) == [("a.csv", 2), ("b.csv", 2)]


@pytest.mark.parametrize("source", ["=1+1", "a,b", 'a"b', "ä", "two\nlines", "end\n", "'quoted"])
def test_any_name_of_a_source_is_found_again(path: Path, source: str) -> None:
    """Rows of a source with a strange name are taken back like any others."""
    report(path, source, 0, rows(2, 4))
    report(path, source, 3, rows(4))
    assert [line for _, line in reported(path)] == [2, 4]


@pytest.mark.parametrize("content", ["=HYPERLINK(1)", "+1", "-1", "@a", "\t=1"])
def test_no_cell_is_a_formula(path: Path, content: str) -> None:
    """Reports are opened with spreadsheets, and rows come from anywhere."""
    report(path, "a.csv", 0, [Invalid(2, "amount", "bad_amount", content)])
    with path.open(newline="") as file:
        assert next(csv.DictReader(file))["content"] == f"'{content}"


def test_a_file_that_is_no_report_is_left_alone(path: Path) -> None:
    """It may be the user's data."""
    path.write_text("type,client,tx,amount\n")
    with pytest.raises(UsageError, match="is no report of invalid rows"):
        InvalidFile(path)
    assert path.read_text() == "type,client,tx,amount\n"


def test_a_report_that_cannot_be_written_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    """With the reason, and what to do."""
    with pytest.raises(UsageError, match=r"cannot be written: No such file or directory. Name another file"):
        InvalidFile(tmp_path / "missing" / "invalid.csv")


# --- for people ---------------------------------------------------------------------------------------------------


def test_people_see_where_why_and_what() -> None:
    """One line for each row."""
    lines: list[str] = []
    shown = InvalidLines(lines.append, 5)
    shown.begin("a.csv", 0)
    shown.add(rows(7))
    assert lines == ["a.csv:7: bad_amount amount: at 7"]


@pytest.mark.parametrize(
    "blocks", [[(1, 2, 3, 4)], [(1, 2), (3, 4)], [(1,), (2, 3), (4,), (5,)], [(1, 2, 3), (4, 5)]]
)
def test_people_see_the_first_few_and_that_there_are_more(blocks: list[tuple[int, ...]]) -> None:
    """Said once, however many follow, and however they are cut into blocks."""
    lines: list[str] = []
    shown = InvalidLines(lines.append, 3)
    shown.begin("a.csv", 0)
    for block in blocks:
        shown.add(rows(*block))
    assert [line.split(":")[1] for line in lines[:3]] == ["1", "2", "3"]
    assert lines[3:] == ["More rows are invalid; --invalid FILE takes them all"]


def test_people_are_not_told_of_more_when_there_are_none() -> None:
    """Exactly as many as are shown."""
    lines: list[str] = []
    shown = InvalidLines(lines.append, 3)
    shown.add(rows(1, 2, 3))
    shown.add([])
    assert len(lines) == 3


def test_a_report_that_another_ingest_writes_is_refused(tmp_path: Path) -> None:
    """Two at once would take each other's rows back."""
    first = InvalidFile(tmp_path / "bad.csv")
    with pytest.raises(UsageError, match="another ingest is writing"):
        InvalidFile(tmp_path / "bad.csv")
    first.close()
    InvalidFile(tmp_path / "bad.csv").close()


@pytest.mark.parametrize("path", ["/dev/null", "/dev/full"])
def test_a_device_is_no_report(path: str) -> None:
    """It would be read for ever, or could not be cut off."""
    with pytest.raises(UsageError, match="no ordinary file"):
        InvalidFile(Path(path))
