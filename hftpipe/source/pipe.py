"""Lines that arrive while they are read: standard input, a FIFO opened by someone else, a socket's file."""

import os
from collections.abc import Iterator, Sequence

from hftpipe.config import BLOCK_BYTES
from hftpipe.errors import SourceBroken, SourceRefused
from hftpipe.source.framing import Block, BlockFramer, Mark, Prefix
from hftpipe.source.stream import RESUME, Continuation, Wait, by_offset, cut_header, prove, read_first_line


class PipeSource:
    """A `Source` over a file descriptor that can be read only once.

    A line is passed on as soon as it is complete. At the end, a last line without line end is accepted. Marks up to
    `after` are compared with what comes through the pipe again; those behind it cannot be, without reading it twice.
    """

    size = None

    def __init__(
        self, descriptor: int, *, name: str = "stdin", has_header: bool = True, wait: Wait | None = None
    ) -> None:
        """Reads the header, waiting for it. Raises SourceRefused when there is none.

        The descriptor stays the caller's. wait: called before each read.
        """
        self.name = name
        self.bytes_read = 0
        self.header: bytes | None = None
        self._descriptor = descriptor
        self._wait = wait
        self._is_stopped = False
        self._line = 0
        self._pending = b""
        self._prefix: Prefix | None = Prefix()
        if has_header:
            start = read_first_line(self._read)
            if not start:
                raise SourceRefused(f"{name} is empty; there is nothing to ingest")
            self.header, self._prefix = cut_header(start, name)
            self._line = 1
            self._pending = start[self._prefix.offset :]

    def blocks(self, after: Mark | None = None, known: Sequence[Mark] = ()) -> Iterator[Block]:
        """As `Source.blocks`, but only once: a pipe cannot be rewound, which raises SourceBroken."""
        prefix, self._prefix = self._prefix, None
        if prefix is None:
            raise SourceBroken(f"{self.name} cannot be read twice; send the same lines again. {RESUME}")
        start = prefix.mark(self._line)
        if after is not None and after.offset >= start.offset:
            passed = [mark for mark in (*known, after) if start.offset <= mark.offset <= after.offset]
            self._skip(by_offset(passed), prefix)
            start = after
        yield from self._blocks_behind(start, prefix)

    def close(self) -> None:
        """Nothing to let go of: the descriptor is the caller's."""

    def _skip(self, marks: Sequence[Mark], prefix: Prefix) -> None:
        try:
            prove(self._read, marks, prefix, self.name)
        except SourceRefused:
            # Told to stop before the last mark came: that is no change of the source.
            if not self._is_stopped:
                raise

    def _blocks_behind(self, start: Mark, prefix: Prefix) -> Iterator[Block]:
        continuation = Continuation(start, self.name)
        framer = BlockFramer(prefix, start.line)
        while not self._is_stopped and (chunk := self._read(BLOCK_BYTES)):
            block = framer.feed(continuation.take(chunk, prefix))
            self._line = framer.line
            if block:
                yield block
        if not self._is_stopped and (last := framer.finish()):
            yield last

    def _read(self, size: int) -> bytes:
        if self._pending:
            chunk, self._pending = self._pending[:size], self._pending[size:]
            return chunk
        if self._wait is not None and not self._wait():
            self._is_stopped = True
            return b""
        try:
            chunk = os.read(self._descriptor, size)
        except OSError as fault:
            raise SourceBroken(
                f"{self.name} cannot be read on behind line {self._line}: {fault.strerror}. {RESUME}"
            ) from fault
        self.bytes_read += len(chunk)
        return chunk
