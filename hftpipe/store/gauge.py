"""How far the shards of a home are, read again and again beside their owners, for little.

A connection stays open for each file, as `shard_book` describes; no read outlasts a call. Of the journal only records
that are new are read, and of those before the first look a few at a time.
"""

import re
import sqlite3
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson

from hftpipe.core.commit import Checkpoint, Totals
from hftpipe.errors import StoreDamaged, StoreUnavailable
from hftpipe.store.books import file_at
from hftpipe.store.sqlite import check_version, one_row, shard_path, translated
from hftpipe.store.told import entry_id

EARLIER: Final = "earlier"
"""In place of a reason: rows that were refused in records which have not been read yet."""

RECORDS_MAX: Final = 256
"""New records whose refusals are counted at one look."""
EARLIER_RECORDS_MAX: Final = 32
"""Records from before the first look that are counted at one look, from the newest on: many would be felt."""
HOT_RECORDS_MAX: Final = 16
HOT_ROWS_MAX: Final = 1_024
"""Of the newest records of one look, so many rows are looked at for their accounts."""

StoreFault = StoreUnavailable | StoreDamaged

_BUSY_MS: Final = 500
_SETTINGS: Final = (
    "PRAGMA query_only=ON",
    "PRAGMA trusted_schema=OFF",
    "PRAGMA cache_size=-256",  # KiB, and there may be a thousand shards
)
_SHARD: Final = (
    "SELECT pipeline, shard, shards, epoch, owner, stopped, checkpoint, digest, number, hash, highest_tx, "
    "incarnation, applied, refused, skipped, gaps, dead FROM shard"
)
_OUTCOMES: Final = "SELECT outcomes FROM entries WHERE number BETWEEN ? AND ? AND outcomes <> '{}'"
_REASONS: Final = re.compile(r'"(\w+)":\[([0-9,]+)\]')
"""A reason and its rows, in outcomes as we write them; thrice as fast as to parse them."""
_NEWEST: Final = "SELECT payload FROM entries WHERE number > ? AND payload <> '' ORDER BY number DESC LIMIT ?"
_ACCOUNTS: Final = '"account":['


@dataclass(frozen=True, slots=True)
class Reading:
    """What a shard's store says at one look.

    refused: rows by reason, all of them; those not looked into yet are under `EARLIER`.
    accounts: of the newest rows since the look before, a sample where there are many.
    """

    pipeline: str
    shard: int
    shards: int
    epoch: int
    owner: str
    stopped: str
    checkpoint: Checkpoint
    refused: Mapping[str, int]
    accounts: Sequence[int]


class ShardGauge:
    """One shard's store, with what was counted in its journal. Methods raise sqlite3.Error."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=_BUSY_MS / 1000,
            isolation_level=None,
            check_same_thread=False,  # one thread at a time, though not always the same
        )
        try:
            for setting in _SETTINGS:
                self._connection.execute(setting)
            check_version(self._connection, path)
        except BaseException:
            self._connection.close()
            raise
        self._refused: Counter[str] = Counter()
        self._lowest = -1
        self._highest = -1
        """Of the records whose refusals are counted: all from one to the other."""
        self._refused_before = 0
        self._hot_before = -1

    def close(self) -> None:
        """Lets go of the file."""
        self._connection.close()

    def read(self) -> Reading:
        """One look."""
        pipeline, shard, shards, epoch, owner, stopped, *rest = one_row(self._connection, _SHARD)
        entry, digest, number, chain, highest_tx, incarnation, *totals = rest
        checkpoint = Checkpoint(
            entry_id(entry), digest, number, chain, highest_tx, incarnation, Totals(*totals)
        )
        return Reading(
            pipeline,
            shard,
            shards,
            epoch,
            owner,
            stopped,
            checkpoint,
            self._refused_until(number, checkpoint.totals.refused),
            self._accounts_until(number),
        )

    def _refused_until(self, number: int, refused: int) -> dict[str, int]:
        """Counts on to the newest record, and some way back towards the first."""
        if self._highest < 0:
            self._lowest, self._highest = number + 1, number
        elif refused == self._refused_before:
            self._highest = number
        upto = min(number, self._highest + RECORDS_MAX)
        self._count(self._highest + 1, upto)
        self._highest = upto
        self._refused_before = refused if upto == number else -1
        if self._lowest > 1 and self._refused.total() < refused:
            first = max(self._lowest - EARLIER_RECORDS_MAX, 1)
            self._count(first, self._lowest - 1)
            self._lowest = first
        earlier = refused - self._refused.total()
        return {**self._refused, **({EARLIER: earlier} if earlier > 0 else {})}

    def _count(self, first: int, last: int) -> None:
        """Adds the refusals of some records."""
        if first <= last:
            for (outcomes,) in self._connection.execute(_OUTCOMES, (first, last)).fetchall():
                for reason, rows in _REASONS.findall(outcomes):
                    self._refused[reason] += rows.count(",") + 1

    def _accounts_until(self, number: int) -> list[int]:
        before, self._hot_before = self._hot_before, number
        accounts: list[int] = []
        if number > before:
            with closing(self._connection.execute(_NEWEST, (before, HOT_RECORDS_MAX))) as records:
                for (payload,) in records:
                    accounts += accounts_in(payload)
                    if len(accounts) >= HOT_ROWS_MAX:
                        break
        return accounts[:HOT_ROWS_MAX]


def accounts_in(payload: str) -> list[int]:
    """The accounts of a payload, row by row; in the shape that we write, no other column is parsed.

    None of one that is damaged: `hftpipe verify` names it.
    """
    try:
        start = payload.find(_ACCOUNTS)
        if start < 0:
            accounts = orjson.loads(payload)["account"]
        else:
            start += len(_ACCOUNTS) - 1
            accounts = orjson.loads(payload[start : payload.index("]", start) + 1])
    except (ValueError, LookupError, TypeError, AttributeError):
        return []
    return accounts if isinstance(accounts, list) and set(map(type, accounts)) <= {int} else []


class HomeGauge:
    """The shards of a home, for one thread at a time.

    A file that was removed or replaced meanwhile is noticed: the one of that name is read.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._open: dict[int, tuple[tuple[int, int], ShardGauge]] = {}

    def read(self, shards: Collection[int]) -> tuple[dict[int, Reading], dict[int, StoreFault]]:
        """What the stores of some shards say; of those that cannot be read, why not; of one without a file, nothing."""
        readings: dict[int, Reading] = {}
        faults: dict[int, StoreFault] = {}
        for shard in shards:
            try:
                with translated(path := shard_path(self._home, shard)):
                    gauge = self._current(shard, path)
                    if gauge is not None:
                        readings[shard] = gauge.read()
            except (StoreUnavailable, StoreDamaged) as fault:
                self._forget(shard)
                faults[shard] = fault
            except (
                ValueError,
                TypeError,
                AttributeError,
            ) as error:  # a cell that holds something else than it did
                self._forget(shard)
                faults[shard] = StoreDamaged(f"{path} cannot be read: {error}")
        return readings, faults

    def close(self) -> None:
        """Lets go of all files."""
        for shard in list(self._open):
            self._forget(shard)

    def _current(self, shard: int, path: Path) -> ShardGauge | None:
        file = file_at(path)
        kept = self._open.get(shard)
        if kept is not None and kept[0] == file:
            return kept[1]
        self._forget(shard)
        if file is None:
            return None
        gauge = ShardGauge(path)
        self._open[shard] = (file, gauge)
        return gauge

    def _forget(self, shard: int) -> None:
        kept = self._open.pop(shard, None)
        if kept is not None:
            kept[1].close()
