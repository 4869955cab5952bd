"""A home with some shards that real workers have written."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random

from hftpipe.config import WorkerLimits
from hftpipe.core.entry import encode
from hftpipe.core.transaction import Batch
from hftpipe.export.telling import Telling
from hftpipe.log.memory import MemoryLog
from hftpipe.owning import World
from hftpipe.ports import Outgoing, Topology
from hftpipe.store.creation import create
from hftpipe.store.sqlite import SqliteStore, shard_path
from hftpipe.worker import ShardWorker
from tests.shell.memory_pipeline import StillClock

SILENT = Telling(lambda _: None, lambda _: None, lambda: False)
TIME_MS = 1_700_000_000_123


class WrittenHome:
    """Shards whose logs are in memory, and whose stores are files."""

    def __init__(self, folder: Path, shards: int) -> None:
        self.folder = folder
        self.shards = shards
        self.topology = Topology("pipeline-1", shards, 1, 1)
        self.log = MemoryLog(self.topology)
        for shard in range(shards):
            create(shard_path(folder, shard), self.topology, shard)

    def append(self, shard: int, previous: int, batch: Batch, source: str = "file.csv") -> None:
        """An entry of ours."""
        self.append_fields(shard, encode(source, previous, batch, TIME_MS))

    def append_fields(self, shard: int, fields: Mapping[bytes, bytes]) -> None:
        """Any entry."""
        self.log.append(Outgoing(shard, fields))

    def work(self) -> None:
        """Everything is applied."""
        for shard in range(self.shards):
            world = World(
                StillClock(), f"worker-{shard}", lambda _: True, lambda: False, lambda _: None, Random(1)
            )
            ShardWorker(
                shard,
                self.topology,
                log=self.log.reader(shard, "worker"),
                open_store=lambda shard=shard: SqliteStore(shard_path(self.folder, shard)),  # type: ignore[misc]
                world=world,
                limits=WorkerLimits(),
                until_idle=True,
            ).run()


def batch(shard: int, shards: int, kinds: str, first_row: int, txs: Sequence[int] | None) -> Batch:
    """Transactions of three accounts in turn; ids of all shards differ."""
    count = len(kinds)
    rows = range(first_row, first_row + count)
    accounts = [shard + shards * (row % 3) for row in rows]
    amounts = [
        10_000 * (row % 7) + 1_234 if kind in "DW" else 0 for row, kind in zip(rows, kinds, strict=True)
    ]
    return Batch.of(
        kinds, accounts, None if txs is None else [tx * shards + shard for tx in txs], amounts, list(rows)
    )


def varied_home(folder: Path, shards: int) -> WrittenHome:
    """All that a journal can hold: outcomes of every sort, rows skipped, a gap, a dead letter, a source without ids."""
    home = WrittenHome(folder, shards)
    for shard in range(shards):
        kinds = "DDDPPPRRWDW" * 30
        named = [row - {"P": 3, "R": 6}.get(kind, 0) for row, kind in enumerate(kinds)]
        first = batch(shard, shards, kinds, 1, [row % 250 for row in named])
        home.append(shard, 0, first)
        home.append(shard, 300, first.slice(300, 330))
        home.append(
            shard, 320, batch(shard, shards, "D" * 12 + "CWD", 321, [*range(1_000, 1_012), 2, 1_013, 1_014])
        )
        home.append(shard, 900, batch(shard, shards, "D", 901, [2_000]))
        home.append_fields(shard, {b"hello": b"world"})
        home.append(shard, 0, batch(shard, shards, "DW", 1, None), source="no-ids.csv")
    home.work()
    return home
