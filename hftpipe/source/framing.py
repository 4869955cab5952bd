"""Cutting a stream of bytes into blocks of complete lines, and knowing where in the stream each block ends.

Pure: bytes in, blocks out. However the bytes are cut into chunks, the lines and the marks are the same.
"""

from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

import numpy as np

from hftpipe.config import LINE_BYTES_MAX

KEPT_BYTES_MAX: Final = LINE_BYTES_MAX + 2
"""What is kept of an over-long line: more than the longest line and a "\\r" that may belong to its end."""

_LINE_FEED: Final = ord("\n")

PREFIX_BYTES: Final = 16
"""Length of the digest in a mark."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a source stands: everything before is dealt with.

    line: physical lines consumed. offset: bytes consumed, of the decompressed stream. prefix: BLAKE2b of those
    bytes, in hex. unfinished: the last of those lines had no line end.
    """

    line: int
    offset: int
    prefix: str
    unfinished: bool


@dataclass(frozen=True, slots=True)
class Block:
    """Complete lines of a source; `first_line` is the number of the first one, `mark` stands behind the last.

    Each line ends in a line feed, but an unfinished last one. Of an over-long line there is as much as shows that
    it is over-long.
    """

    lines: bytes
    first_line: int
    mark: Mark


class LineFramer:
    """Cuts bytes into complete lines, holding no more than one line's beginning, of bounded length."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = b""

    def feed(self, chunk: bytes) -> bytes:
        """The lines that are complete by now, each with its line feed; empty when none is."""
        end = chunk.rfind(b"\n") + 1
        if end == 0:
            self._held = (self._held + chunk[:KEPT_BYTES_MAX])[:KEPT_BYTES_MAX]
            return b""
        lines = _shortened(self._held + chunk[:end] if self._held else chunk[:end])
        self._held = chunk[end : end + KEPT_BYTES_MAX]
        return lines

    def finish(self) -> bytes:
        """What was held: the beginning of a line without line end, or nothing."""
        held, self._held = self._held, b""
        return held


def _shortened(lines: bytes) -> bytes:
    """Complete lines, with the over-long ones cut down to KEPT_BYTES_MAX."""
    pieces: list[bytes] = []
    copied = position = 0
    while position < len(lines):
        # From one line's beginning to the last line end that is near enough: all lines between are short.
        end = lines.rfind(b"\n", position, position + KEPT_BYTES_MAX + 1)
        if end < 0:
            pieces.append(lines[copied : position + KEPT_BYTES_MAX])
            copied = end = lines.index(b"\n", position)
        position = end + 1
    return b"".join([*pieces, lines[copied:]]) if pieces else lines


class Prefix:
    """The digest of a stream's bytes so far, and how many they are."""

    __slots__ = ("_hash", "offset")

    def __init__(self) -> None:
        self._hash = blake2b(digest_size=PREFIX_BYTES)
        self.offset = 0

    def extend(self, octets: bytes | memoryview) -> None:
        """Takes in the bytes that follow."""
        self._hash.update(octets)
        self.offset += len(octets)

    def copy(self) -> "Prefix":
        """One of its own from here on."""
        other = Prefix()
        other._hash = self._hash.copy()
        other.offset = self.offset
        return other

    def mark(self, line: int, *, unfinished: bool = False) -> Mark:
        """The mark behind these bytes, which hold so many lines."""
        return Mark(line, self.offset, self._hash.hexdigest(), unfinished)


class BlockFramer:
    """Cuts the stream that follows a mark into blocks.

    prefix: of all bytes up to the mark. line: lines up to the mark.
    """

    __slots__ = ("_lines", "_prefix", "line")

    def __init__(self, prefix: Prefix, line: int) -> None:
        self._prefix = prefix
        self._lines = LineFramer()
        self.line = line

    def feed(self, chunk: bytes) -> Block | None:
        """The lines that are complete by now, if any."""
        lines = self._lines.feed(chunk)
        if not lines:
            self._prefix.extend(chunk)
            return None
        view = memoryview(chunk)
        end = chunk.rfind(b"\n") + 1
        self._prefix.extend(view[:end])
        # numpy counts a line feed every thirty bytes five times as fast as `bytes.count` does.
        count = int(np.count_nonzero(np.frombuffer(lines, dtype=np.uint8) == _LINE_FEED))
        block = self._block(lines, count, unfinished=False)
        self._prefix.extend(view[end:])
        return block

    def finish(self) -> Block | None:
        """The unfinished last line, if there is one; for when the stream is known to be complete."""
        rest = self._lines.finish()
        return self._block(rest, 1, unfinished=True) if rest else None

    def _block(self, lines: bytes, count: int, *, unfinished: bool) -> Block:
        first_line = self.line + 1
        self.line += count
        return Block(lines, first_line, self._prefix.mark(self.line, unfinished=unfinished))
