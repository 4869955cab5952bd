"""What all shards of a home have applied, read beside their owners."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hftpipe.core.entry import EntryId
from hftpipe.core.routing import shard_of
from hftpipe.core.transaction import Column
from hftpipe.errors import StoreDamaged, StoreUnavailable
from hftpipe.ports import Movement, Standing
from hftpipe.store.shard_book import ShardBook
from hftpipe.store.sqlite import shard_path, translated


class SqliteBooks:
    """Opens the databases of a home when they are there; see `ports.Books` for what it guarantees.

    A file that was removed or replaced meanwhile is noticed: the one of that name is read.
    """

    def __init__(self, home: Path, shards: int) -> None:
        self._paths = [shard_path(home, shard) for shard in range(shards)]
        self._open: dict[int, tuple[tuple[int, int], ShardBook]] = {}

    def applied(self, shard: int) -> EntryId | None:
        with self._book(shard) as book:
            return None if book is None else book.applied()

    def highest(self, shard: int) -> int:
        with self._book(shard) as book:
            return -1 if book is None else book.highest()

    def standing(self, account: int) -> Standing | None:
        with self._book(shard_of(account, len(self._paths))) as book:
            return None if book is None else book.standing(account)

    def taken(self, shard: int, txs: Column) -> dict[int, Movement]:
        with self._book(shard) as book:
            return {} if book is None else book.taken(txs)

    def history(self, tx: int, count_max: int) -> list[Movement]:
        found: list[Movement] = []
        for shard in range(len(self._paths)):
            with self._book(shard) as book:
                if book is not None and len(found) < count_max:
                    found += book.history(tx, count_max - len(found))
        return found

    def rows(self, shard: int, entry: EntryId, source: str, positions: Column) -> list[Movement | None]:
        with self._book(shard) as book:
            return [None] * len(positions) if book is None else book.rows(entry, source, positions)

    def close(self) -> None:
        for shard in list(self._open):
            self._forget(shard)

    @contextmanager
    def _book(self, shard: int) -> Iterator[ShardBook | None]:
        """A shard's book, None while it has no store. After an error the file is opened anew the next time."""
        try:
            with translated(self._paths[shard]):
                yield self._current(shard)
        except (StoreUnavailable, StoreDamaged):
            self._forget(shard)
            raise

    def _current(self, shard: int) -> ShardBook | None:
        path = self._paths[shard]
        file = file_at(path)
        kept = self._open.get(shard)
        if kept is not None and kept[0] == file:
            return kept[1]
        self._forget(shard)
        if file is None:
            return None
        book = ShardBook(path, shard, len(self._paths))
        self._open[shard] = (file, book)
        return book

    def _forget(self, shard: int) -> None:
        kept = self._open.pop(shard, None)
        if kept is not None:
            kept[1].close()


def file_at(path: Path) -> tuple[int, int] | None:
    """What tells a file from another one that is given its name; None when there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116 - asked every few milliseconds, and this way is twice as fast
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreUnavailable(f"{path} cannot be read: {error}") from error
    return status.st_dev, status.st_ino
