"""Reading what arrives: each line at once, and again behind a mark."""

import os
from collections.abc import Iterator

import pytest

from hftpipe.errors import SourceBroken, SourceRefused
from hftpipe.source import Block, Mark, PipeSource

HEADER = b"type,client,tx,amount\n"


class Pipe:
    """Both ends of a pipe."""

    def __init__(self) -> None:
        self.reader, self._writer = os.pipe()
        self._is_open = True

    def write(self, octets: bytes) -> None:
        os.write(self._writer, octets)

    def end(self) -> None:
        if self._is_open:
            os.close(self._writer)
            self._is_open = False

    def close(self) -> None:
        self.end()
        os.close(self.reader)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


def read_all(octets: bytes, after: Mark | None = None, known: tuple[Mark, ...] = ()) -> list[Block]:
    pipe = Pipe()
    try:
        pipe.write(octets)
        pipe.end()
        return list(PipeSource(pipe.reader).blocks(after, known))
    finally:
        pipe.close()


def test_a_lone_line_is_passed_on_while_the_pipe_stays_open(pipe: Pipe) -> None:
    pipe.write(HEADER + b"one\nhal")
    source = PipeSource(pipe.reader, name="feed")
    assert (source.name, source.header, source.size) == ("feed", HEADER[:-1], None)
    blocks = source.blocks()
    assert next(blocks).lines == b"one\n"
    pipe.write(b"f\n")
    block = next(blocks)
    assert (block.lines, block.first_line, block.mark.line) == (b"half\n", 3, 3)
    pipe.end()
    assert list(blocks) == []
    assert source.bytes_read == len(HEADER) + 9


def test_at_the_end_an_unfinished_line_is_accepted() -> None:
    blocks = read_all(HEADER + b"one\ntwo")
    assert [(block.lines, block.mark.unfinished) for block in blocks] == [(b"one\n", False), (b"two", True)]


def test_a_header_may_come_in_pieces(pipe: Pipe) -> None:
    pieces = [HEADER[:5], HEADER[5:]]

    def wait() -> bool:
        pipe.write(pieces.pop(0))
        return True

    assert PipeSource(pipe.reader, wait=wait).header == HEADER[:-1]


def test_nothing_at_all_is_refused(pipe: Pipe) -> None:
    pipe.end()
    with pytest.raises(SourceRefused, match="is empty"):
        PipeSource(pipe.reader)


def test_json_lines_have_no_header(pipe: Pipe) -> None:
    pipe.write(b"{}\n")
    pipe.end()
    source = PipeSource(pipe.reader, has_header=False)
    assert (source.header, [block.first_line for block in source.blocks()]) == (None, [1])


def test_lines_up_to_the_mark_are_skipped_and_proven() -> None:
    mark = read_all(HEADER + b"one\ntwo\n")[-1].mark
    early = read_all(HEADER + b"one\n")[-1].mark
    (block,) = read_all(HEADER + b"one\ntwo\nthree\n", mark, (early,))
    assert (block.lines, block.first_line) == (b"three\n", 4)
    for other in (HEADER + b"one\ntwO\nthree\n", HEADER + b"one\n", HEADER.upper() + b"one\ntwo\nthree\n"):
        with pytest.raises(SourceRefused, match="has changed"):
            read_all(other, mark)


def test_a_line_taken_unfinished_may_only_end() -> None:
    mark = read_all(HEADER + b"one")[-1].mark
    assert read_all(HEADER + b"one", mark) == []
    (block,) = read_all(HEADER + b"one\r\ntwo\n", mark)
    assert (block.lines, block.first_line) == (b"two\n", 3)
    with pytest.raises(SourceRefused, match="now goes on"):
        read_all(HEADER + b"one0\n", mark)


def test_a_pipe_cannot_be_rewound(pipe: Pipe) -> None:
    pipe.write(HEADER)
    pipe.end()
    source = PipeSource(pipe.reader)
    assert list(source.blocks()) == []
    with pytest.raises(SourceBroken, match="cannot be read twice"):
        next(source.blocks())


def test_reading_stops_when_told_to_and_holds_what_is_unfinished(pipe: Pipe) -> None:
    pipe.write(HEADER + b"one\nhalf")
    goes_on = iter([True, False])
    source = PipeSource(pipe.reader, wait=lambda: next(goes_on))
    assert [block.lines for block in source.blocks()] == [b"one\n"]


def test_stopping_before_the_mark_is_no_change_of_the_source(pipe: Pipe) -> None:
    mark = read_all(HEADER + b"one\ntwo\n")[-1].mark
    pipe.write(HEADER + b"one\n")
    goes_on = iter([True, False])
    source = PipeSource(pipe.reader, wait=lambda: next(goes_on))
    assert list(source.blocks(mark)) == []


def test_a_descriptor_that_cannot_be_read_breaks_off(pipe: Pipe) -> None:
    pipe.write(HEADER)
    descriptor = os.dup(pipe.reader)
    source = PipeSource(descriptor)
    os.close(descriptor)
    with pytest.raises(SourceBroken, match="behind line 1"):
        list(source.blocks())
