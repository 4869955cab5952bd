"""Memory of an ingest and of a worker, each alone, and what a transaction takes in log, append-only file and stores."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hftpipe.bench.figures import Figure
from hftpipe.bench.ground import Ground, Server
from hftpipe.store.reading import balances, store_paths

FEW_ACCOUNTS: Final = 100_000
MANY_ACCOUNTS: Final = 1_000_000

_ALONE: Final = "one process with all shards"


@dataclass(frozen=True, slots=True)
class Sizes:
    """What one file left, with the log full; memory in MB, the rest in bytes.

    accounts: those that have a balance.
    """

    ingest_mb: float
    worker_mb: float
    server: int
    log: int
    stores: int
    accounts: int


def measure_memory(ground: Ground, rows: int) -> Iterator[Figure]:
    """Few and many accounts with the same rows; unless quick, few and many rows with the same accounts."""
    few_rows, most_rows = rows // 5, rows // 5 if ground.quick else rows
    measured = dict.fromkeys([(few_rows, FEW_ACCOUNTS), (few_rows, MANY_ACCOUNTS), (most_rows, FEW_ACCOUNTS)])
    taken: defaultdict[tuple[int, int], list[Sizes]] = defaultdict(list)
    for _ in range(ground.repetitions):
        for count, accounts in measured:
            ground.say(f"scale: memory with {count:,} rows, {accounts:,} accounts")
            taken[count, accounts].append(_sizes(ground, ground.file(count, accounts=accounts)))
    for (count, accounts), sizes in taken.items():
        setting = f"{count:,} rows, {accounts:,} accounts"
        yield _figure("memory of an ingest", setting, "MB", [one.ingest_mb for one in sizes])
        yield _figure("memory of a worker", setting, "MB", [one.worker_mb for one in sizes], _ALONE)
    yield _per_account(few_rows, taken[few_rows, FEW_ACCOUNTS], taken[few_rows, MANY_ACCOUNTS])
    yield from _kept(most_rows, taken[most_rows, FEW_ACCOUNTS])


def _per_account(rows: int, few: list[Sizes], many: list[Sizes]) -> Figure:
    samples = [
        (large.worker_mb - small.worker_mb) * 1e6 / (large.accounts - small.accounts)
        for small, large in zip(few, many, strict=True)
        if large.accounts > small.accounts
    ]
    note = f"from {few[0].accounts:,} to {many[0].accounts:,} accounts that have a balance"
    return _figure("memory of a worker, each further account", f"{rows:,} rows", "bytes", samples, note)


def _kept(rows: int, sizes: list[Sizes]) -> Iterator[Figure]:
    setting = f"{rows:,} rows"
    for name, values in (
        ("memory of the server, log full", [one.server for one in sizes]),
        ("append-only file", [one.log for one in sizes]),
        ("stores", [one.stores for one in sizes]),
    ):
        yield _figure(name, setting, "bytes/tx", [value / rows for value in values])


def _sizes(ground: Ground, file: Path) -> Sizes:
    home = ground.home()
    with ground.server() as server:
        memory, log = server.memory_bytes(), server.log_bytes()
        ingest = ground.hftpipe("ingest", str(file), home=home, url=server.url)
        memory, log = _settled_memory(server) - memory, server.log_bytes() - log
        worker = ground.hftpipe("worker", "--until-idle", home=home, url=server.url)
    stores = sum(path.stat().st_size for path in home.glob("shard-*.db*"))
    accounts = sum(1 for _ in balances(home)) if store_paths(home) else 0
    ground.discard(home)
    return Sizes(ingest.memory_mb, worker.memory_mb, memory, log, stores, accounts)


def _settled_memory(server: Server) -> int:
    """What its data take, without the buffers of clients that have just left."""
    told = server.told("memory")
    return int(told["used_memory"]) - int(told.get("mem_clients_normal", 0))


def _figure(name: str, setting: str, unit: str, samples: list[float], note: str = "") -> Figure:
    return Figure("scale", name, setting, unit, tuple(samples), note)
