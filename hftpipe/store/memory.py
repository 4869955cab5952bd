"""A store in memory: for dry runs, and for tests that need many runs a second."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

from hftpipe.core.commit import Checkpoint, Commit, Decision, Totals
from hftpipe.core.entry import EntryId, Foreign, origin
from hftpipe.core.id_index import index_ids
from hftpipe.core.journal import GENESIS, Record, deposits_in
from hftpipe.core.ledger import Account, Deposit, Facts, Needs, Undisputable
from hftpipe.core.snapshot import Snapshot, Tables
from hftpipe.core.taken import Packed
from hftpipe.errors import Fenced
from hftpipe.ports import Ownership, Topology


class MemoryStore:
    """One shard's state; see `ports.Store` for what it guarantees. One object is one shard, however often opened."""

    def __init__(self, topology: Topology, shard: int, reach: Callable[[str], None] = lambda _: None) -> None:
        self._topology = topology
        self._shard = shard
        self._reach = reach
        self._ownership = Ownership(0, "", 0)
        self._checkpoint = Checkpoint(origin(topology.generation), "", 0, GENESIS, -1, 0, Totals())
        self.stopped = ""
        self.records: list[Record] = []
        self.balances: dict[int, tuple[int, int, bool, int]] = {}
        self.transactions: dict[int, int] = {}
        self.id_ranges: dict[int, tuple[int, int]] = {}
        self.late_ids: dict[int, int] = {}
        self.taken_ids: dict[int, Packed] = {}
        self.mentions: defaultdict[int, list[int]] = defaultdict(list)
        self.disputes: dict[int, Deposit] = {}
        self.sources: dict[str, int] = {}
        self.dead: list[Foreign] = []
        self.decisions: list[Decision] = []

    def identity(self) -> tuple[str, int, int]:
        """Pipeline id, shard and number of shards that the store was made for."""
        return self._topology.pipeline, self._shard, self._topology.shards

    def close(self) -> None:
        pass

    def ownership(self) -> Ownership:
        return replace(self._ownership, stopped=self.stopped)

    def take(self, owner: str, seen: Ownership) -> int | None:
        if self._ownership != seen:
            return None
        self._ownership = Ownership(seen.epoch + 1, owner, seen.beat + 1)
        self.stopped = ""
        return seen.epoch + 1

    def beat(self, epoch: int) -> None:
        self._hold_fence(epoch)
        self._move_beat()

    def release(self, epoch: int, stopped: str = "") -> None:
        if self._ownership.epoch == epoch:
            self._ownership = Ownership(epoch, "", self._ownership.beat + 1)
            self.stopped = stopped

    def checkpoint(self) -> Checkpoint:
        return self._checkpoint

    def facts(self, needs: Needs) -> Facts:
        return Facts(
            {
                account: Account(*self.balances[account][:3])
                for account in self.balances.keys() & needs.accounts.tolist()
            },
            self.transactions.keys() & needs.txs.tolist(),
            self._deposits(set(needs.disputed.tolist())),
        )

    def positions(self, sources: set[str]) -> dict[str, int]:
        return {source: self.sources[source] for source in sources & self.sources.keys()}

    def anchors(self, below: int, count: int) -> list[tuple[int, EntryId, str]]:
        records = reversed(self.records[max(0, below - 1 - count) : max(0, below - 1)])
        return [(record.number, record.id, record.digest) for record in records]

    def commit(self, epoch: int, commit: Commit) -> None:
        self._reach("store.in_transaction")
        self._hold_fence(epoch, commit.before)
        self.records += commit.records
        for taken in commit.taken:
            self.transactions.update(dict.fromkeys(taken.txs.tolist(), taken.number))
            self.taken_ids[taken.number] = taken.packed()
        index = index_ids(commit.taken, commit.before.highest_tx)
        self.id_ranges.update({highest: (lowest, number) for highest, lowest, number in index.ranges})
        self.late_ids.update(index.late.tolist())
        for tx, number in commit.mentions.tolist():
            self.mentions[tx].append(number)
        for account, available, held, locked, named_by in commit.balances.tolist():
            self.balances[account] = (available, held, bool(locked), named_by)
        for tx, deposit in commit.disputes.items():
            self.disputes[tx] = replace(deposit)
        self.sources.update(commit.positions)
        self.dead += commit.dead
        self.decisions += commit.decisions
        self._checkpoint = commit.after
        self._move_beat()

    def rewind(self, epoch: int, entry_id: EntryId, digest: str) -> None:
        self._hold_fence(epoch)
        incarnation = self._checkpoint.incarnation + 1
        self._checkpoint = replace(self._checkpoint, id=entry_id, digest=digest, incarnation=incarnation)
        self._move_beat()

    def snapshot(self) -> Snapshot:
        """All that it holds."""
        return Snapshot(
            self._topology.pipeline,
            self._shard,
            self._topology.shards,
            self._ownership.epoch,
            self._checkpoint,
            Tables(
                list(self.records),
                dict(self.balances),
                dict(self.id_ranges),
                dict(self.late_ids),
                dict(self.taken_ids),
                {tx: tuple(numbers) for tx, numbers in self.mentions.items()},
                {
                    tx: (deposit.account, deposit.amount, deposit.state.value)
                    for tx, deposit in self.disputes.items()
                },
                dict(self.sources),
                {str(foreign.id): foreign.reason for foreign in self.dead},
            ),
        )

    def _move_beat(self) -> None:
        self._ownership = replace(self._ownership, beat=self._ownership.beat + 1)

    def _hold_fence(self, epoch: int, before: Checkpoint | None = None) -> None:
        moved = before is not None and (before.id, before.number) != (
            self._checkpoint.id,
            self._checkpoint.number,
        )
        if self._ownership.epoch != epoch or moved:
            raise Fenced(f"shard {self._shard} was taken over while epoch {epoch} was held here")

    def _deposits(self, txs: set[int]) -> dict[int, Deposit | Undisputable]:
        deposits: dict[int, Deposit | Undisputable] = {
            tx: replace(self.disputes[tx]) for tx in txs & self.disputes.keys()
        }
        by_record: defaultdict[int, list[int]] = defaultdict(list)
        for tx in sorted((txs - deposits.keys()) & self.transactions.keys()):
            by_record[self.transactions[tx]].append(tx)
        for number, wanted in by_record.items():
            record = self.records[number - 1]
            deposits.update(deposits_in(record.payload, record.outcomes, wanted))
        return deposits
