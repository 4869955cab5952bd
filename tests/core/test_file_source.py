"""Reading files: what is refused, how reading is taken up again, and what happens when a file changes meanwhile."""

import gzip
import os
import random
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from hftpipe.config import BLOCK_BYTES, LINE_BYTES_MAX
from hftpipe.errors import SourceBroken, SourceRefused
from hftpipe.source import Block, FileSource, Mark

HEADER = b"type,client,tx,amount\n"
ROWS = b"".join(b"deposit,1,%d,1\n" % tx for tx in range(1, 6))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "transactions.csv"


def rows_of(blocks: list[Block]) -> bytes:
    return b"".join(block.lines for block in blocks)


def read(path: Path, after: Mark | None = None, known: tuple[Mark, ...] = ()) -> list[Block]:
    with FileSource(path) as source:
        return list(source.blocks(after, known))


def last_mark(path: Path) -> Mark:
    return read(path)[-1].mark


def until_broken(source: FileSource) -> tuple[list[Block], str]:
    """The blocks given before the source breaks off, and what it says then."""
    blocks: list[Block] = []
    with pytest.raises(SourceBroken) as broken:
        blocks.extend(source.blocks())
    return blocks, str(broken.value)


# --- opening --------------------------------------------------------------------------------------------------


def test_a_file_gives_header_name_size_and_its_rows(path: Path) -> None:
    path.write_bytes(HEADER + ROWS)
    with FileSource(path) as source:
        assert (source.header, source.name) == (HEADER[:-1], str(path.resolve()))
        assert source.size == len(HEADER + ROWS)
        (block,) = source.blocks()
        assert (block.lines, block.first_line, block.mark.line) == (ROWS, 2, 6)
        assert source.bytes_read == source.size


def test_a_symbolic_link_has_the_name_of_what_it_points_to(path: Path) -> None:
    path.write_bytes(HEADER)
    link = path.with_name("link.csv")
    link.symlink_to(path)
    with FileSource(link) as source:
        assert source.name == str(path.resolve())


def test_a_path_that_is_not_utf_8_has_a_name_that_is(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.csv"))
    path.write_bytes(HEADER + ROWS)
    with FileSource(path) as source:
        assert source.name.endswith("/\\xff.csv")
        assert rows_of(list(source.blocks())) == ROWS


def test_json_lines_have_no_header(path: Path) -> None:
    path.write_bytes(b"{}\n[]")
    with FileSource(path, has_header=False) as source:
        blocks = list(source.blocks())
        assert source.header is None
        assert [(block.lines, block.first_line, block.mark.unfinished) for block in blocks] == [
            (b"{}\n", 1, False),
            (b"[]", 2, True),
        ]


def make_directory(path: Path) -> None:
    path.mkdir()


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        directory = Path.cwd()
        os.chdir(path.parent)
        try:
            server.bind(path.name)
        finally:
            os.chdir(directory)


def make_loop(path: Path) -> None:
    path.symlink_to(path)


def make_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def make_memory(path: Path) -> None:
    path.symlink_to("/proc/self/mem")


def make_made_up(path: Path) -> None:
    path.symlink_to("/proc/self/status")


def make_empty(path: Path) -> None:
    path.touch()


def make_long_header(path: Path) -> None:
    path.write_bytes(b"x" * 10_000_000)


def make_nothing(path: Path) -> None:
    """Leaves the path without a file."""


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (make_nothing, "does not exist"),
        (make_directory, "is a directory"),
        (make_pipe, "is a pipe; pass it through standard input"),
        (make_socket, "is a socket"),
        (make_device, "is a device"),
        (make_loop, "cannot be opened"),
        (make_memory, "cannot be read"),
        (make_made_up, "made by the system"),
        (make_empty, "is empty"),
        (make_long_header, "first line of more than 4096 bytes"),
    ],
)
def test_what_is_no_ordinary_file_with_a_header_is_refused(
    path: Path, make: Callable[[Path], None], message: str
) -> None:
    make(path)
    with pytest.raises(SourceRefused, match=message) as refused:
        FileSource(path)
    assert refused.value.exit_code == 2


def test_a_path_with_a_nul_is_refused() -> None:
    with pytest.raises(SourceRefused, match="cannot be opened"):
        FileSource("a\0b")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_an_unreadable_file_is_refused(path: Path) -> None:
    path.write_bytes(HEADER)
    path.chmod(0)
    with pytest.raises(SourceRefused, match="may not be read"):
        FileSource(path)


# --- going on behind a mark -----------------------------------------------------------------------------------


def test_blocks_are_bounded_and_their_marks_resume_anywhere(path: Path) -> None:
    lines = [b"deposit,1,%d,%s\n" % (tx, b"1" * 30) for tx in range(60_000)]
    path.write_bytes(HEADER + b"".join(lines))
    blocks = read(path)
    assert len(blocks) >= 2
    assert all(len(block.lines) <= BLOCK_BYTES + LINE_BYTES_MAX + 2 for block in blocks)
    for number, block in enumerate(blocks):
        assert rows_of(read(path, block.mark)) == rows_of(blocks[number + 1 :])
    assert rows_of(blocks) == b"".join(lines)


def test_reading_again_gives_the_same_blocks(path: Path) -> None:
    path.write_bytes(HEADER + ROWS)
    with FileSource(path) as source:
        assert list(source.blocks()) == list(source.blocks())


def test_an_unchanged_file_has_nothing_new_and_a_grown_one_its_new_rows(path: Path) -> None:
    path.write_bytes(HEADER + ROWS)
    mark = last_mark(path)
    assert read(path, mark) == []
    path.write_bytes(HEADER + ROWS + b"new\n")
    (block,) = read(path, mark)
    assert (block.lines, block.first_line) == (b"new\n", 7)


@pytest.mark.parametrize(
    "content",
    [HEADER + ROWS.replace(b"1,3,1", b"1,3,9"), HEADER.upper() + ROWS, (HEADER + ROWS)[:-1], HEADER],
    ids=["other row", "other header", "shorter by a line end", "no rows"],
)
def test_a_file_that_differs_before_the_mark_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(HEADER + ROWS)
    mark = last_mark(path)
    path.write_bytes(content)
    with pytest.raises(SourceRefused, match=r"has changed since it was last ingested.*--source NAME"):
        read(path, mark)


def test_a_known_mark_behind_the_start_is_proven_before_the_first_block(path: Path) -> None:
    path.write_bytes(HEADER + ROWS)
    mark = last_mark(path)
    assert rows_of(read(path, None, (mark,))) == ROWS
    path.write_bytes(HEADER + ROWS.replace(b"1,5,1", b"1,5,9"))
    with FileSource(path) as source, pytest.raises(SourceRefused, match="has changed"):
        next(source.blocks(None, [mark]))


def test_the_same_file_compressed_is_the_same_to_a_mark(path: Path) -> None:
    path.write_bytes(HEADER + ROWS)
    mark = last_mark(path)
    packed = path.with_suffix(".csv.gz")
    packed.write_bytes(gzip.compress(HEADER + ROWS) + gzip.compress(b"new\n"))
    assert rows_of(read(packed, mark)) == b"new\n"
    assert rows_of(read(packed, None, (mark,))) == ROWS + b"new\n"


# --- the last line --------------------------------------------------------------------------------------------


def test_an_unfinished_last_line_of_a_complete_file_is_given(path: Path) -> None:
    path.write_bytes(HEADER + ROWS + b"last")
    blocks = read(path)
    assert rows_of(blocks) == ROWS + b"last"
    assert (blocks[-1].first_line, blocks[-1].mark.line, blocks[-1].mark.unfinished) == (7, 7, True)
    assert read(path, blocks[-1].mark) == []


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_a_line_end_after_an_unfinished_line_only_ends_it(path: Path, line_end: bytes) -> None:
    path.write_bytes(HEADER + ROWS + b"last")
    mark = last_mark(path)
    path.write_bytes(HEADER + ROWS + b"last" + line_end)
    assert read(path, mark) == []
    path.write_bytes(HEADER + ROWS + b"last" + line_end + b"new\n")
    (block,) = read(path, mark)
    assert (block.lines, block.first_line) == (b"new\n", 8)
    assert block.mark == last_mark(path)


def test_an_unfinished_line_that_goes_on_is_a_change(path: Path) -> None:
    path.write_bytes(HEADER + ROWS + b"last")
    mark = last_mark(path)
    path.write_bytes(HEADER + ROWS + b"last0\n")
    for after, known in ((mark, ()), (None, (mark,))):
        with pytest.raises(SourceRefused, match="line 7 had no line end, and now goes on"):
            read(path, after, known)


def test_an_unfinished_header_may_get_its_line_end_and_rows_before_it_is_read(path: Path) -> None:
    path.write_bytes(HEADER[:-1])
    with FileSource(path) as source:
        assert list(source.blocks()) == []
        path.write_bytes(HEADER + ROWS)
        (block,) = source.blocks()
        assert (block.lines, block.first_line) == (ROWS, 2)


def test_an_unfinished_last_line_of_a_growing_file_is_held_back(path: Path) -> None:
    path.write_bytes(HEADER + ROWS)
    with FileSource(path) as source:
        path.write_bytes(HEADER + ROWS + b"deposit,1,9,1")
        blocks, message = until_broken(source)
    assert rows_of(blocks) == ROWS
    assert "still being written: its last line, 7, has no line end" in message


def test_complete_lines_of_a_growing_file_are_given(path: Path) -> None:
    path.write_bytes(HEADER + ROWS)
    with FileSource(path) as source:
        path.write_bytes(HEADER + ROWS + b"new\n")
        assert rows_of(list(source.blocks())) == ROWS + b"new\n"


# --- change while it is read ----------------------------------------------------------------------------------


def test_a_file_that_shrinks_gives_the_rows_before_then_breaks_off(path: Path) -> None:
    path.write_bytes(HEADER + ROWS * 2)
    with FileSource(path) as source:
        os.truncate(path, len(HEADER + ROWS) + 4)
        blocks, message = until_broken(source)
    assert rows_of(blocks) == ROWS
    assert "has shrunk while it was read, behind line 6" in message
    assert "run the same command again" in message


def test_a_replaced_file_gives_its_rows_then_breaks_off(path: Path) -> None:
    path.write_bytes(HEADER + ROWS)
    with FileSource(path) as source:
        other = path.with_name("other")
        other.write_bytes(HEADER + ROWS)
        other.replace(path)
        blocks, message = until_broken(source)
    assert rows_of(blocks) == ROWS
    assert "was replaced" in message


def test_a_removed_file_gives_its_rows_then_breaks_off(path: Path) -> None:
    path.write_bytes(HEADER + ROWS)
    with FileSource(path) as source:
        path.unlink()
        blocks, message = until_broken(source)
    assert rows_of(blocks) == ROWS
    assert "was removed" in message


def random_rows() -> bytes:
    numbers = random.Random(7)
    return b"".join(b"deposit,1,%d,%d\n" % (tx, numbers.randrange(10**9)) for tx in range(100_000))


def test_a_cut_off_gzip_file_gives_what_can_be_read_and_resumes_when_whole(path: Path) -> None:
    packed, rows = path.with_suffix(".gz"), random_rows()
    whole = gzip.compress(HEADER + rows)
    packed.write_bytes(whole[: len(whole) * 3 // 4])
    with FileSource(packed) as source:
        blocks, message = until_broken(source)
    given = rows_of(blocks)
    assert len(given) > len(rows) // 2
    assert rows.startswith(given)
    assert given.endswith(b"\n")
    assert f"behind line {blocks[-1].mark.line}" in message
    packed.write_bytes(whole)
    assert given + rows_of(read(packed, blocks[-1].mark)) == rows


def test_a_corrupt_gzip_file_gives_what_can_be_read_then_breaks_off(path: Path) -> None:
    packed = path.with_suffix(".gz")
    octets = bytearray(gzip.compress(HEADER + ROWS))
    octets[-8] ^= 1
    packed.write_bytes(octets)
    with FileSource(packed) as source:
        blocks, message = until_broken(source)
    assert rows_of(blocks) == ROWS
    assert "cannot be read on" in message


def test_what_is_only_named_gzip_is_refused(path: Path) -> None:
    packed = path.with_suffix(".gz")
    packed.write_bytes(HEADER + ROWS)
    with pytest.raises(SourceRefused, match="undamaged"):
        FileSource(packed)


def test_an_over_long_line_is_dropped_but_counts_in_marks(path: Path) -> None:
    path.write_bytes(HEADER + b"x" * 3_000_000 + b"\nnext\n")
    blocks = read(path)
    assert rows_of(blocks).endswith(b"\nnext\n")
    assert len(rows_of(blocks)) < 5_000
    assert (blocks[-1].mark.line, blocks[-1].mark.offset) == (3, path.stat().st_size)


# --- following ------------------------------------------------------------------------------------------------


class Waits:
    """What happens at each wait for more, in turn; then following stops."""

    def __init__(self, *steps: Callable[[], object]) -> None:
        self._steps = list(steps)

    def __call__(self) -> bool:
        if not self._steps:
            return False
        self._steps.pop(0)()
        return True


def appending(path: Path, octets: bytes) -> Callable[[], object]:
    def append() -> None:
        with path.open("ab") as file:
            file.write(octets)

    return append


def test_following_gives_each_line_once_it_is_complete(path: Path) -> None:
    path.write_bytes(HEADER + ROWS + b"dep")
    waits = Waits(appending(path, b"osit"), appending(path, b",1\nnext\nhalf"))
    with FileSource(path, follow=waits) as source:
        blocks = list(source.blocks())
    assert [block.lines for block in blocks] == [ROWS, b"deposit,1\nnext\n"]
    assert [block.first_line for block in blocks] == [2, 7]
    assert not blocks[-1].mark.unfinished


def test_following_goes_on_behind_a_line_that_was_taken_unfinished(path: Path) -> None:
    path.write_bytes(HEADER + b"last")
    mark = last_mark(path)
    waits = Waits(appending(path, b"\r"), appending(path, b"\n"), appending(path, b"new\n"))
    with FileSource(path, follow=waits) as source:
        (block,) = source.blocks(mark)
    assert (block.lines, block.first_line) == (b"new\n", 3)


def test_following_refuses_a_continued_line(path: Path) -> None:
    path.write_bytes(HEADER + b"last")
    mark = last_mark(path)
    with (
        FileSource(path, follow=Waits(appending(path, b"0\n"))) as source,
        pytest.raises(SourceRefused, match="now goes on"),
    ):
        list(source.blocks(mark))


def test_following_breaks_off_when_the_file_is_replaced_with_the_old_ones_last_rows_given(path: Path) -> None:
    path.write_bytes(HEADER)

    def rotate() -> None:
        appending(path, ROWS)()
        path.rename(path.with_name("old"))
        path.write_bytes(HEADER)

    with FileSource(path, follow=Waits(rotate)) as source:
        blocks, message = until_broken(source)
    assert rows_of(blocks) == ROWS
    assert "was replaced" in message


def test_following_breaks_off_when_the_file_shrinks(path: Path) -> None:
    path.write_bytes(HEADER + ROWS)
    with FileSource(path, follow=Waits(lambda: os.truncate(path, 30))) as source:
        blocks, message = until_broken(source)
    assert rows_of(blocks) == ROWS
    assert "has shrunk" in message


def test_compressed_files_and_unfinished_headers_cannot_be_followed(path: Path) -> None:
    packed = path.with_suffix(".gz")
    packed.write_bytes(gzip.compress(HEADER))
    path.write_bytes(HEADER[:-1])
    for each in (path, packed):
        with pytest.raises(SourceRefused, match="cannot be followed"):
            FileSource(each, follow=Waits())
