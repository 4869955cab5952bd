"""What all commands that read a source tell while they do, and at the end."""

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from hftpipe.source.stream import Source

STRICT_EXIT = 3
"""Exit code when rows were not let through, and that was asked for."""


class Watch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def rate(self, count: int) -> str:
        """`2.1 s, 480,000 tx/s`."""
        seconds = max(time.monotonic() - self._start, 1e-9)
        return f"{seconds:.2f} s, {count / seconds:,.0f} tx/s"


@contextmanager
def progress(label: str, sources: Sequence["Source"]) -> Iterator[None]:
    """A bar on a terminal, for sources whose size is known."""
    sizes = [source.size for source in sources]
    known = [size for size in sizes if size is not None]
    if not sys.stderr.isatty() or len(known) < len(sizes):
        yield
        return
    over = threading.Event()
    with click.progressbar(length=sum(known), file=sys.stderr, label=label) as bar:

        def draw() -> None:
            while not over.wait(0.1):
                bar.update(sum(source.bytes_read for source in sources) - bar.pos)

        thread = threading.Thread(target=draw, name="progress")
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            bar.update(sum(source.bytes_read for source in sources) - bar.pos)
