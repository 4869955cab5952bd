"""What became of transactions: the stores, asked in a thread of their own, for one event loop."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import ParamSpec, TypeVar

import numpy as np

from hftpipe.config import ServeLimits
from hftpipe.core.entry import EntryId
from hftpipe.core.transaction import Batch
from hftpipe.errors import PassingFault, ShardStopped
from hftpipe.ports import Books, Movement, Standing
from hftpipe.reception.receipts import Receipts

P = ParamSpec("P")
T = TypeVar("T")


class Inquiries:
    """Asks the books.

    source: the id under which this process appends.
    """

    def __init__(self, books: Books, source: str, limits: ServeLimits) -> None:
        self._books = books
        self._source = source
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="books")
        self._awaited: dict[asyncio.Future[None], dict[int, EntryId]] = {}
        self._watch: asyncio.Task[None] | None = None

    async def applied(self, receipts: Receipts) -> bool:
        """Waits until every row is applied; False when that is not so after `applied_ms`."""
        turn: asyncio.Future[None] = self._loop.create_future()
        self._awaited[turn] = _last_entries(receipts)
        if self._watch is None or self._watch.done():
            self._watch = self._loop.create_task(self._watch_checkpoints())
        try:
            await asyncio.wait_for(turn, self._limits.applied_ms / 1000)
        except TimeoutError:
            return False
        else:
            return True
        finally:
            del self._awaited[turn]

    async def outcomes(self, batch: Batch, receipts: Receipts) -> list[Movement | None]:
        """What became of applied rows of a submission, or of those that had their ids first.

        None for a row that cannot be found. Raises StoreUnavailable, StoreDamaged, as the others do.
        """
        return await self._ask(self._outcomes, batch, receipts)

    async def standing(self, account: int) -> Standing | None:
        """An account; None when no applied transaction has named it."""
        return await self._ask(self._books.standing, account)

    async def standings(self, accounts: Collection[int]) -> dict[int, Standing]:
        """Those of some accounts that applied transactions have named, by one question."""
        return await self._ask(self._standings, accounts)

    async def history(self, tx: int) -> list[Movement]:
        """Applied transactions that name an id, see `ports.Books`; one more than `history_rows_max` at the most."""
        return await self._ask(self._books.history, tx, self._limits.history_rows_max + 1)

    def close(self) -> None:
        """Lets go of the books; nobody may be asking."""
        if self._watch is not None:
            self._watch.cancel()
        self._thread.submit(self._books.close)
        self._thread.shutdown()

    def _ask(self, question: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        return self._loop.run_in_executor(self._thread, lambda: question(*args, **kwargs))

    async def _watch_checkpoints(self) -> None:
        """While somebody waits: looks at the checkpoints, and wakes those whose rows are applied."""
        while self._awaited:
            shards = set().union(*self._awaited.values())
            reached = await self._ask(self._checkpoints, shards)
            for turn, entries in self._awaited.items():
                is_applied = all(shard in reached and reached[shard] >= entries[shard] for shard in entries)
                if is_applied and not turn.done():
                    turn.set_result(None)
            await asyncio.sleep(self._limits.applied_poll_ms / 1000)

    # --- in the thread -----------------------------------------------------------------------------------------

    def _checkpoints(self, shards: Collection[int]) -> dict[int, EntryId]:
        """How far some shards are; one that cannot be read is waited for."""
        reached: dict[int, EntryId] = {}
        for shard in shards:
            with suppress(PassingFault, ShardStopped):
                if (entry := self._books.applied(shard)) is not None:
                    reached[shard] = entry
        return reached

    def _standings(self, accounts: Collection[int]) -> dict[int, Standing]:
        found = ((account, self._books.standing(account)) for account in accounts)
        return {account: standing for account, standing in found if standing is not None}

    def _outcomes(self, batch: Batch, receipts: Receipts) -> list[Movement | None]:
        found: list[Movement | None] = [None] * len(batch)
        ours = receipts.positions > 0
        addresses = np.column_stack([receipts.shards, receipts.sequences])
        for shard, sequence in np.unique(addresses[ours], axis=0).tolist():
            rows = np.flatnonzero(ours & (addresses == (shard, sequence)).all(axis=1))
            entry = EntryId(receipts.generation, sequence)
            told = self._books.rows(shard, entry, self._source, receipts.positions[rows])
            for row, movement in zip(rows.tolist(), told, strict=True):
                found[row] = movement
        # What others appended is found by its id: only rows with ids of their own repeat something.
        if batch.txs is not None:
            for shard in np.unique(receipts.shards[~ours]).tolist():
                rows = np.flatnonzero(~ours & (receipts.shards == shard))
                ids = batch.txs[rows]
                taken = self._books.taken(shard, np.unique(ids))
                for row, tx in zip(rows.tolist(), ids.tolist(), strict=True):
                    found[row] = taken.get(tx)
        return found


def _last_entries(receipts: Receipts) -> dict[int, EntryId]:
    """For each shard, the highest entry that a receipt names."""
    return {
        shard: EntryId(receipts.generation, int(receipts.sequences[receipts.shards == shard].max()))
        for shard in np.unique(receipts.shards).tolist()
    }
