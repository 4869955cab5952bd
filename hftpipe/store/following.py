"""One shard's journal as it grows, read beside its owner.

The connection stays open, as `shard_book` describes; no read outlasts a call.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hftpipe.ports import Movement
from hftpipe.store.shard_book import ShardBook
from hftpipe.store.sqlite import one_row

LOOK_BACK_RECORDS_MAX: Final = 500
"""Records that are looked through for the last transactions of a sort."""

_NUMBER: Final = "SELECT number FROM shard"
# Dead letters, and what was given up, hold no transaction.
_FROM: Final = "SELECT number FROM entries WHERE number > ? AND count > 0 ORDER BY number LIMIT ?"
_BACK_FROM: Final = "SELECT number FROM entries WHERE number <= ? AND count > 0 ORDER BY number DESC LIMIT ?"


@dataclass(frozen=True, slots=True)
class Sort:
    """Which transactions are wanted. account: None for all. outcome: as `Told.places` takes it."""

    account: int | None = None
    outcome: str = ""


class ShardFollower(ShardBook):
    """Hands out what is committed, each transaction once. Methods raise sqlite3.Error."""

    def __init__(self, path: Path, shard: int, shards: int, seen: int = 0) -> None:
        """seen: number of the last journal record that was handed out."""
        super().__init__(path, shard, shards)
        self.shards = shards
        self.seen = seen

    def last(self, sort: Sort, count: int) -> list[Movement]:
        """The last transactions of a sort, at most so many, in their order; `look` goes on behind them."""
        (self.seen,) = one_row(self._connection, _NUMBER)
        return self.last_of(self._numbers(_BACK_FROM, LOOK_BACK_RECORDS_MAX if count else 0), sort, count)

    def last_of(self, numbers: Iterable[int], sort: Sort, count: int) -> list[Movement]:
        """The last transactions of a sort in some records, which are given from the newest to the oldest."""
        found: list[Movement] = []
        for number in numbers:
            told = self.told(number)
            places = told.places(sort.account, sort.outcome)[len(found) - count :]
            found = [*map(told.movement, places), *found]
            if len(found) >= count:
                break
        return found

    def look(self, sort: Sort, records_max: int) -> tuple[list[Movement], bool]:
        """What is new in so many records at most, and whether there may be more."""
        numbers = self._numbers(_FROM, records_max)
        found: list[Movement] = []
        for number in numbers:
            told = self.told(number)
            found += map(told.movement, told.places(sort.account, sort.outcome))
        # Last: when a record cannot be read, those before it come again.
        self.seen = numbers[-1] if numbers else self.seen
        return found, len(numbers) == records_max

    def _numbers(self, statement: str, count: int) -> list[int]:
        return [number for (number,) in self._connection.execute(statement, (self.seen, count)).fetchall()]
