"""Writing into a shard's log behind the program's back: entries as a producer makes them, and as nobody should."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count

import redis

from hftpipe.core.entry import encode
from hftpipe.core.routing import shard_of
from hftpipe.core.transaction import Batch
from hftpipe.log.keys import Keys
from tests.system.support import SHARDS


def accounts_of(shard: int) -> Iterator[int]:
    """Accounts that belong to a shard, and are in no generated file."""
    return (account for account in count(1_000_000) if shard_of(account, SHARDS) == shard)


IDS_FROM = 1_000_000_000
"""Above the ids of every generated file."""


@dataclass
class Feed:
    """Deposits of 1.0000 each into one account of a shard, as one producer would append them; ids are row numbers."""

    client: "redis.Redis"
    shard: int = 0
    source: str = "feed"
    row: int = 0
    fields: list[dict[bytes, bytes]] = field(default_factory=list)

    @property
    def key(self) -> str:
        return Keys("hft").log(self.shard)

    @cached_property
    def account(self) -> int:
        return next(accounts_of(self.shard))

    def entry(self, first: int, last: int, previous: int | None = None) -> dict[bytes, bytes]:
        """The fields of an entry with the rows from first to last."""
        rows = list(range(first, last + 1))
        txs = [IDS_FROM + row for row in rows]
        batch = Batch.of("D" * len(rows), [self.account] * len(rows), txs, [10_000] * len(rows), rows)
        return encode(self.source, first - 1 if previous is None else previous, batch, 1_700_000_000_000)

    def append(self, entries: int, rows: int = 2) -> None:
        """Appends the next rows, so many in each entry."""
        for _ in range(entries):
            self.fields.append(self.entry(self.row + 1, self.row + rows))
            self.row += rows
            self.add(self.fields[-1])

    def add(self, fields: dict[bytes, bytes]) -> str:
        """Appends any fields; returns the entry's id."""
        entry_id: bytes = self.client.execute_command(
            "XADD", self.key, "1-*", *(part for pair in fields.items() for part in pair)
        )
        return entry_id.decode()
