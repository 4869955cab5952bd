"""What files and pipes share: proving a stream against earlier marks, and reading it in blocks from there on."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, Protocol, TypeAlias

from hftpipe.config import BLOCK_BYTES, LINE_BYTES_MAX
from hftpipe.errors import SourceRefused
from hftpipe.source.framing import KEPT_BYTES_MAX, Block, Mark, Prefix

Read: TypeAlias = Callable[[int], bytes]
"""Reads up to so many bytes; empty at the end of what is there now."""

Wait: TypeAlias = Callable[[], bool]
"""Waits until there may be more to read; False when reading is to stop instead."""

RESUME: Final = "The rows before are kept: run the same command again to go on from there"

_LINE_ENDS: Final = (b"\n", b"\r\n")


class Source(Protocol):
    """Lines from somewhere, in order, that can be taken up again behind a mark.

    name: the id by which positions in it are kept. header: its first line without line feed, which belongs to no
    block; None when it has no header. size, bytes_read: for a progress bar; size is None when nobody knows it.
    """

    @property
    def name(self) -> str: ...
    @property
    def header(self) -> bytes | None: ...
    @property
    def size(self) -> int | None: ...
    @property
    def bytes_read(self) -> int: ...

    def blocks(self, after: Mark | None = None, known: Sequence[Mark] = ()) -> Iterator[Block]:
        """The lines behind `after`, or all of them; first of all, every mark is compared with the content.

        Raises, from the first step of the iterator on, SourceRefused when the content before a mark has changed,
        and SourceBroken when the source breaks off; the blocks before are good then, and their marks too.
        """

    def close(self) -> None:
        """Lets go of the source."""


def read_first_line(read: Read) -> bytes:
    """The start of a stream, up to its first line end at least, if it comes within the longest line."""
    start = b""
    while b"\n" not in start and len(start) < KEPT_BYTES_MAX:
        chunk = read(KEPT_BYTES_MAX)
        if not chunk:
            break
        start += chunk
    return start


def cut_header(start: bytes, name: str) -> tuple[bytes, Prefix]:
    """The header that leads a stream, without its line feed, and the prefix that ends behind it.

    Raises SourceRefused when no line end comes within the longest line.
    """
    header, line_feed, _ = start.partition(b"\n")
    if len(header) >= KEPT_BYTES_MAX:
        raise SourceRefused(
            f"{name} has a first line of more than {LINE_BYTES_MAX} bytes, so it is no CSV file with a header"
        )
    prefix = Prefix()
    prefix.extend(header + line_feed)
    return header, prefix


def by_offset(marks: Iterable[Mark]) -> list[Mark]:
    """Marks in the order in which a reader passes them."""
    return sorted(marks, key=lambda mark: mark.offset)


def prove(read: Read, marks: Sequence[Mark], prefix: Prefix, name: str) -> None:
    """Reads on up to the last of `marks`, which ascend, and compares the stream's content with each of them.

    Raises SourceRefused when the content differs or ends before.
    """
    for mark in marks:
        while prefix.offset < mark.offset:
            chunk = read(min(BLOCK_BYTES, mark.offset - prefix.offset))
            if not chunk:
                raise changed(name, f"it ends before line {mark.line}")
            prefix.extend(chunk)
        if prefix.mark(mark.line).prefix != mark.prefix:
            raise changed(name, f"its lines up to {mark.line} are not the same")


def changed(name: str, how: str) -> SourceRefused:
    """A source that is not the one its name stood for before."""
    return SourceRefused(
        f"{name} has changed since it was last ingested: {how}. "
        "To ingest it as a new source, give it a name of its own with --source NAME"
    )


class Continuation:
    """Sees to it that nothing but a line end follows a last line that was taken without one."""

    __slots__ = ("_held", "_line", "_name", "is_settled")

    def __init__(self, mark: Mark, name: str) -> None:
        self.is_settled = not mark.unfinished
        self._line = mark.line
        self._name = name
        self._held = b""

    def take(self, chunk: bytes, prefix: Prefix) -> bytes:
        """What of the bytes read belongs to new lines; the old line's end goes into `prefix`.

        Raises SourceRefused when the old line goes on instead.
        """
        if self.is_settled:
            return chunk
        self._held += chunk
        for line_end in _LINE_ENDS:
            if self._held.startswith(line_end):
                self.is_settled = True
                prefix.extend(line_end)
                return self._held[len(line_end) :]
        if self._held not in (b"", b"\r"):
            raise changed(self._name, f"its line {self._line} had no line end, and now goes on")
        return b""
