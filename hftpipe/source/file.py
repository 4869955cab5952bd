"""Files on disk, plain or gzip: read in blocks, proven against earlier marks, watched for change while read."""

import gzip
import os
import stat
import zlib
from collections.abc import Iterator, Sequence
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol

from hftpipe.config import BLOCK_BYTES
from hftpipe.errors import SourceBroken, SourceRefused
from hftpipe.source.framing import Block, BlockFramer, Mark, Prefix
from hftpipe.source.stream import RESUME, Continuation, Wait, by_offset, cut_header, prove, read_first_line

_READ_FAULTS: Final = (OSError, EOFError, zlib.error)

_SPECIAL: Final = {
    stat.S_IFDIR: "is a directory; name the files in it",
    stat.S_IFIFO: "is a pipe; pass it through standard input, with - as the file",
    stat.S_IFCHR: "is a device; pass it through standard input, with - as the file",
    stat.S_IFBLK: "is a device, not a file",
    stat.S_IFSOCK: "is a socket, not a file",
}


class FileSource:
    """A `Source` over a regular file; `.gz` is read as such.

    Without `follow`, a last line without line end is accepted when the file is complete: it has not grown since it
    was opened. With `follow`, more is waited for at the end of the file, and such a line is held until it ends.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, has_header: bool = True, follow: Wait | None = None
    ) -> None:
        """Opens the file and reads its header.

        follow: called at the end of the file; returns when there may be more, or False to stop.
        Raises SourceRefused when the path is no ordinary file that can be read, or the file is empty.
        """
        self._path, self._raw = _opened(path)
        self.name = os.fsencode(self._path).decode("utf-8", "backslashreplace")
        self.header: bytes | None = None
        self._first = Prefix().mark(0)
        self._line = 0
        self._follow = follow
        try:
            self.size = os.fstat(self._raw.fileno()).st_size
            self._octets = _octets(self._raw, self.name, is_followed=follow is not None)
            start = _start(self._octets, self.name, self.size)
            if has_header:
                self.header, prefix = cut_header(start, self.name)
                self._first = prefix.mark(1, unfinished=b"\n" not in start)
            if follow is not None and self._first.unfinished:
                raise SourceRefused(f"{self.name} cannot be followed yet: its header has no line end")
        except BaseException:
            self._raw.close()
            raise

    @property
    def bytes_read(self) -> int:
        """Bytes of the file, as it lies on disk, that were read so far."""
        return 0 if self._raw.closed else self._raw.tell()

    def __enter__(self) -> "FileSource":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the file."""
        self._raw.close()

    def blocks(self, after: Mark | None = None, known: Sequence[Mark] = ()) -> Iterator[Block]:
        """As `Source.blocks`; may be called again to rewind, which ends the iterator given before.

        All marks are proven before the first block. The file shrinking, being replaced or removed, and damage in a
        compressed file, raise SourceBroken once the lines before have been given.
        """
        start = after if after and after.offset >= self._first.offset else self._first
        prefix = self._proven(start, by_offset([start, *known]))
        self._octets.seek(start.offset)
        continuation = Continuation(start, self.name)
        framer = BlockFramer(prefix, start.line)
        for chunk in self._chunks():
            block = framer.feed(continuation.take(chunk, prefix))
            self._line = framer.line
            if block:
                yield block
        if self._follow is None and (last := framer.finish()):
            self._refuse_growth(last.first_line)
            yield last

    def _proven(self, start: Mark, marks: Sequence[Mark]) -> Prefix:
        """The prefix up to `start`, one of `marks`, once all of them are proven."""
        self._line = 0
        self._octets.seek(0)
        prefix = Prefix()
        prove(self._read, [mark for mark in marks if mark.offset <= start.offset], prefix, self.name)
        farther = prefix.copy()
        prove(self._read, [mark for mark in marks if mark.offset > start.offset], farther, self.name)
        # An unfinished line before the last mark was continued rightly, or the last mark would not be as it is.
        continuation = Continuation(marks[-1], self.name)
        while not continuation.is_settled and (octet := self._read(1)):
            continuation.take(octet, farther)
        return prefix

    def _chunks(self) -> Iterator[bytes]:
        """What the file holds from here on, to its end or until following it is to stop."""
        while True:
            chunk = self._read(BLOCK_BYTES)
            if not chunk:
                change = self._change()
                # Written before it was replaced, and after the read above: still to be handed out.
                chunk = self._read(BLOCK_BYTES) if change else b""
                if change and not chunk:
                    raise self._broken(change)
            if chunk:
                yield chunk
            elif self._follow is None or not self._follow():
                return

    def _read(self, size: int) -> bytes:
        try:
            return self._octets.read(size)
        except _READ_FAULTS as fault:
            raise self._broken(f"cannot be read on ({fault})") from fault

    def _change(self) -> str:
        """What happened to the file that makes its end no end; empty when nothing did."""
        now = os.fstat(self._raw.fileno())
        if now.st_size < max(self.size, self._raw.tell()):
            return "has shrunk while it was read"
        try:
            there = self._path.stat()
        except OSError:
            return "was removed while it was read"
        return "" if os.path.samestat(there, now) else "was replaced by another file while it was read"

    def _refuse_growth(self, line: int) -> None:
        if os.fstat(self._raw.fileno()).st_size > self.size:
            raise SourceBroken(
                f"{self.name} is still being written: its last line, {line}, has no line end yet. {RESUME} "
                "when it is complete, or use --follow"
            )

    def _broken(self, how: str) -> SourceBroken:
        return SourceBroken(f"{self.name} {how}, behind line {self._line}. {RESUME}")


# --- opening --------------------------------------------------------------------------------------------------


def _opened(path: str | os.PathLike[str]) -> tuple[Path, FileIO]:
    """The resolved path, and the file opened."""
    shown = repr(os.fspath(path))
    try:
        resolved = Path(path).resolve(strict=True)
        _refuse_special(resolved.stat(), shown)
        # Non-blocking: should the file have become a pipe just now, opening it must not wait for a writer.
        descriptor = os.open(resolved, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except FileNotFoundError as fault:
        raise SourceRefused(f"{shown} does not exist; check the path") from fault
    except PermissionError as fault:
        raise SourceRefused(f"{shown} may not be read by this user; change its permissions") from fault
    except (OSError, RuntimeError, ValueError) as fault:
        raise SourceRefused(f"{shown} cannot be opened: {fault}; check the path") from fault
    raw = FileIO(descriptor)
    try:
        _refuse_special(os.fstat(descriptor), shown)
    except SourceRefused:
        raw.close()
        raise
    return resolved, raw


def _refuse_special(status: os.stat_result, shown: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise SourceRefused(f"{shown} {_SPECIAL.get(stat.S_IFMT(status.st_mode), 'is not an ordinary file')}")


def _start(octets: "_Octets", name: str, size: int) -> bytes:
    """The start of the file, its first line at least. Raises SourceRefused when it has none."""
    try:
        start = read_first_line(octets.read)
    except _READ_FAULTS as fault:
        raise SourceRefused(f"{name} cannot be read: {fault}; check that it is an undamaged file") from fault
    if not start:
        raise SourceRefused(f"{name} is empty; there is nothing to ingest")
    if size == 0:
        raise SourceRefused(
            f"{name} is made by the system while it is read; copy it to an ordinary file first"
        )
    return start


# --- reading --------------------------------------------------------------------------------------------------


class _Octets(Protocol):
    """The bytes that a file stands for. Methods raise `_READ_FAULTS`."""

    def read(self, size: int) -> bytes:
        """Up to so many bytes; empty at the end."""

    def seek(self, offset: int) -> None:
        """Goes to a place that was read before."""


class _Plain:
    def __init__(self, raw: FileIO) -> None:
        self._raw = raw

    def read(self, size: int) -> bytes:
        return self._raw.read(size) or b""

    def seek(self, offset: int) -> None:
        self._raw.seek(offset)


class _Unzipped:
    """A gzip file's content; of a damaged one, all that can be read comes before the fault."""

    def __init__(self, raw: FileIO) -> None:
        self._stream = gzip.GzipFile(fileobj=raw)
        self._fault: Exception | None = None

    def read(self, size: int) -> bytes:
        pieces: list[bytes] = []
        missing = size
        while missing and (piece := self._piece(missing)):
            pieces.append(piece)
            missing -= len(piece)
        if not pieces and self._fault:
            raise self._fault
        return b"".join(pieces)

    def seek(self, offset: int) -> None:
        self._fault = None
        self._stream.seek(offset)

    def _piece(self, size: int) -> bytes:
        try:
            # The buffered `read` would lose what it has when the next part turns out damaged.
            return b"" if self._fault else self._stream.read1(size)
        except _READ_FAULTS as fault:
            self._fault = fault
            return b""


def _octets(raw: FileIO, name: str, *, is_followed: bool) -> _Octets:
    if not name.lower().endswith(".gz"):
        return _Plain(raw)
    if is_followed:
        raise SourceRefused(f"{name} is compressed and cannot be followed; ingest it without --follow")
    return _Unzipped(raw)
