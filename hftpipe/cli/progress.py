"""What all commands that read a source tell while they do, and at the end."""

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from hftpipe.audit.parallel import Progress
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


class Pace:
    """One line on a terminal that says how far work on some shards is, and how fast; nothing elsewhere.

    Takes what shards tell, and counts it. transactions: so far.
    """

    def __init__(self, label: str, shards: int = 0) -> None:
        """shards: how many there will be; 0 when that is not known."""
        self._label = label
        self._shards = shards
        self._watch = Watch()
        self._records = 0
        self._of: dict[int, int] = {}
        self._is_shown = sys.stderr.isatty()
        self.transactions = 0

    def tell(self, progress: "Progress") -> None:
        """Takes in how far a shard has come."""
        self._of[progress.shard] = progress.of
        self._records += progress.records
        self.transactions += progress.transactions
        if self._is_shown:
            # Shards that have not begun are taken to be as long as the others.
            expected = sum(self._of.values()) * max(self._shards / len(self._of), 1)
            share = min(self._records / max(expected, 1), 1)
            click.echo(
                f"\r{self._label} {share:4.0%}, {self._records:,} entries, {self.rate} ", nl=False, err=True
            )

    @property
    def rate(self) -> str:
        """`2.1 s, 480,000 tx/s`: of all transactions so far."""
        return self._watch.rate(self.transactions)

    def end(self) -> None:
        """Leaves the terminal a clean line."""
        if self._is_shown:
            click.echo("\r\x1b[K", nl=False, err=True)


class Bar:
    """A bar on a terminal, for work whose size is known when it begins; nothing elsewhere."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._end = ExitStack()
        self._advance: Callable[[int], None] = lambda _: None

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Leaves what is shown as it is."""
        self._end.close()

    def begin(self, length: int) -> None:
        """Shows it; of no length, nothing is shown."""
        if length and sys.stderr.isatty():
            bar = click.progressbar(length=length, file=sys.stderr, label=self._label)
            self._advance = self._end.enter_context(bar).update

    def advance(self, count: int) -> None:
        """So much more is done."""
        self._advance(count)


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
