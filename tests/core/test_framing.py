"""Cutting bytes into lines and blocks: alike however they arrive, and bounded whatever arrives."""

from hashlib import blake2b
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from hftpipe.config import LINE_BYTES_MAX
from hftpipe.source.framing import KEPT_BYTES_MAX, Block, BlockFramer, LineFramer, Mark, Prefix
from hftpipe.validation import CsvValidator

PIECES = st.sampled_from(
    [
        b"\n",
        b"\r\n",
        b"a",
        b"line\n",
        b"x" * (LINE_BYTES_MAX - 1),
        b"y" * 5_000,
        b"\r",
        b"",
        b"z" * KEPT_BYTES_MAX,
    ]
)
STREAMS = st.lists(PIECES, max_size=12).map(b"".join)


def chunks(stream: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    return [stream[start:stop] for start, stop in pairwise(places)]


def lines_of(parts: list[bytes]) -> bytes:
    framer = LineFramer()
    return b"".join([*(framer.feed(part) for part in parts), framer.finish()])


@given(STREAMS, st.lists(st.integers(0, 10**6), max_size=8))
def test_lines_are_the_same_however_the_bytes_are_cut(stream: bytes, cuts: list[int]) -> None:
    expected = b"\n".join(line[:KEPT_BYTES_MAX] for line in stream.split(b"\n"))
    assert lines_of([stream] if stream else []) == expected
    assert lines_of(chunks(stream, cuts)) == expected


@given(STREAMS, st.lists(st.integers(0, 10**6), max_size=8))
def test_marks_tell_lines_bytes_and_digest_of_the_raw_stream(stream: bytes, cuts: list[int]) -> None:
    framer = BlockFramer(Prefix(), 0)
    blocks = [block for part in chunks(stream, cuts) if (block := framer.feed(part))]
    last = framer.finish()
    line = 1
    for block in [*blocks, *([last] if last else [])]:
        before = stream[: block.mark.offset]
        assert block.first_line == line
        assert block.mark.line == before.count(b"\n") + block.mark.unfinished
        assert block.mark.prefix == blake2b(before, digest_size=16).hexdigest()
        line = block.mark.line + 1
    assert [block.mark.unfinished for block in blocks] == [False] * len(blocks)
    assert (last is not None) == (not stream.endswith(b"\n") and stream != b"")
    if last:
        assert last.mark.unfinished
        assert last.mark.offset == len(stream)


def test_a_gigabyte_without_line_end_is_held_as_one_short_beginning() -> None:
    framer = LineFramer()
    chunk = bytes(1 << 20)
    for _ in range(1_024):
        assert framer.feed(chunk) == b""
    assert framer.feed(b"tail\nnext\n") == bytes(KEPT_BYTES_MAX) + b"\nnext\n"
    assert framer.finish() == b""


def test_a_line_of_exactly_the_limit_passes_and_one_more_is_too_long_with_either_line_end() -> None:
    validator = CsvValidator.from_header(b"type,client,tx,amount,note")
    start = b"deposit,1,1,1,"
    for line_end in (b"\n", b"\r\n"):
        for extra, reasons in ((0, []), (1, ["line_too_long"]), (2, ["line_too_long"])):
            line = start + b"x" * (LINE_BYTES_MAX - len(start) + extra) + line_end
            validated = validator.validate(lines_of([line]), 2)
            assert [row.reason for row in validated.invalid] == reasons


def test_an_over_long_line_never_looks_short_because_of_a_carriage_return_inside() -> None:
    for place in range(LINE_BYTES_MAX - 2, LINE_BYTES_MAX + 4):
        line = b"x" * place + b"\r" + b"y" * 100 + b"\n"
        validated = CsvValidator.from_header(b"type,client").validate(lines_of([line]), 2)
        assert [row.reason for row in validated.invalid] == ["line_too_long"]


def test_a_framer_goes_on_behind_a_mark() -> None:
    prefix = Prefix()
    prefix.extend(b"a\nb\n")
    block = BlockFramer(prefix, 2).feed(b"c\nd")
    digest = blake2b(b"a\nb\nc\n", digest_size=16).hexdigest()
    assert block == Block(b"c\n", 3, Mark(3, 6, digest, unfinished=False))
