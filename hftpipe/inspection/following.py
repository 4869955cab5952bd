"""What is applied in a home, as it is committed: all its shards, those too that appear later."""

import heapq
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeVar

from hftpipe.core.routing import shard_of
from hftpipe.descriptors import make_room
from hftpipe.errors import StoreDamaged, StoreUnavailable
from hftpipe.ports import Movement
from hftpipe.store.books import file_at
from hftpipe.store.following import ShardFollower, Sort
from hftpipe.store.inspecting import inspecting
from hftpipe.store.reading import store_paths, summarise
from hftpipe.store.sqlite import translated

LOOK_RECORDS_MAX: Final = 16
"""Records of each shard that are decoded before anything of them is handed out."""

WAIT_S_MIN: Final = 0.2
WAIT_S_MAX: Final = 5.0
_IDLE_SHARE: Final = 100

T = TypeVar("T")


def idle_wait_s(look_s: float) -> float:
    """How long to wait for the next look when one found nothing: looking costs a hundredth of the time at most.

    look_s: how long the last one took, in seconds.
    """
    return min(max(_IDLE_SHARE * look_s, WAIT_S_MIN), WAIT_S_MAX)


class HomeFollower:
    """Follows the shards of a home. What cannot be read is reported, once, and tried again.

    shards: those that are wanted; empty for all.
    """

    def __init__(self, home: Path, shards: Sequence[int], sort: Sort, report: Callable[[str], None]) -> None:
        self._home = home
        self._wanted = frozenset(shards)
        self._sort = sort
        self._report = report
        self._followed: dict[int, _FollowedShard] = {}

    def last(self, count: int) -> list[Movement]:
        """The last transactions of the shards that are there, at most so many, by time; `look` goes on behind them."""
        found = _by_time([shard.last(count) for shard in self._shards(is_first=True)])
        return found[-count:] if count else []

    def look(self) -> Iterator[list[Movement]]:
        """What is new, in parts that each go by time; of one shard all is in its order."""
        is_more = True
        while is_more:
            looks = [shard.look() for shard in self._shards()]
            is_more = any(has_more for _, has_more in looks)
            if found := _by_time([part for part, _ in looks]):
                yield found

    def close(self) -> None:
        """Lets go of the files."""
        for shard in self._followed.values():
            shard.close()

    def _shards(self, *, is_first: bool = False) -> "list[_FollowedShard]":
        """Those that have a store by now, or once had. is_first: what they hold now is not new."""
        for path in store_paths(self._home):
            shard = int(path.stem.removeprefix("shard-"))
            if shard not in self._followed and (not self._wanted or shard in self._wanted):
                seen = None if is_first else 0
                make_room(1)
                self._followed[shard] = _FollowedShard(path, shard, self._sort, self._report, seen)
        return list(self._followed.values())


class _FollowedShard:
    """One shard. seen: the last journal record that is not new; None for the last one that is there now."""

    def __init__(
        self, path: Path, shard: int, sort: Sort, report: Callable[[str], None], seen: int | None
    ) -> None:
        self._path = path
        self._shard = shard
        self._sort = sort
        self._report = report
        self._seen = seen
        self._pipeline = ""
        self._file: tuple[int, int] | None = None
        self._book: ShardFollower | None = None
        self._fault = ""

    def last(self, count: int) -> list[Movement]:
        """The last transactions, at most so many."""
        return self._ask(lambda book: self._last(book, count)) or []

    def look(self) -> tuple[list[Movement], bool]:
        """What is new, and whether there may be more."""
        return self._ask(lambda book: book.look(self._sort, LOOK_RECORDS_MAX)) or ([], False)

    def close(self) -> None:
        """Lets go of the file."""
        if self._book is not None:
            self._seen = self._book.seen
            self._book.close()
            self._book = None

    def _ask(self, question: Callable[[ShardFollower], T]) -> T | None:
        try:
            with translated(self._path):
                book = self._current()
                answer = None if book is None else question(book)
        except (StoreUnavailable, StoreDamaged) as fault:
            self.close()
            if str(fault) != self._fault:
                self._fault = str(fault)
                self._report(f"shard {self._shard} cannot be followed now: {fault}")
            return None
        self._fault = ""
        return answer

    def _current(self) -> ShardFollower | None:
        """The shard's file, opened anew where it was replaced; None where there is none, or it has no such account."""
        file = file_at(self._path)
        if self._book is None or file != self._file:
            self.close()
            self._book = None if file is None else self._opened()
            self._file = file
        return self._book

    def _opened(self) -> ShardFollower | None:
        summary, account = summarise(self._path), self._sort.account
        if account is not None and shard_of(account, summary.shards) != self._shard:
            return None
        if self._pipeline and summary.pipeline != self._pipeline:
            self._seen = 0  # another one took its place: all of it is new
        self._pipeline = summary.pipeline
        book = ShardFollower(self._path, self._shard, summary.shards, self._seen or 0)
        if self._seen is None:
            book.last(self._sort, 0)
        return book

    def _last(self, book: ShardFollower, count: int) -> list[Movement]:
        found = book.last(self._sort, count)
        account = self._sort.account
        if account is None or len(found) >= count:
            return found
        # The newest records do not name it often enough: those that do are found by their columns.
        with inspecting(self._path, self._shard, book.shards) as inspector:
            numbers = [number for number in inspector.records_naming(account) if number <= book.seen]
        return book.last_of(reversed(numbers), self._sort, count)


def _by_time(parts: Sequence[Sequence[Movement]]) -> list[Movement]:
    """Parts of several shards as one, each in its order still, where the clocks of its producers do not agree, too."""
    return list(heapq.merge(*parts, key=lambda movement: movement.time_ms))
