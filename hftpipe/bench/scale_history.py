"""What new transactions cost, and take, behind a long history of ids, beside the same ones in an empty home."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hftpipe.bench.figures import Figure
from hftpipe.bench.ground import Ground, Server
from hftpipe.bench.scale_cost import Cost


@dataclass(frozen=True, slots=True)
class Addition:
    """An ingest and a worker, one after the other: cost of both, server included; memory of the worker in MB."""

    cost: Cost
    worker_mb: float


def measure_history(ground: Ground, rows: int) -> Iterator[Figure]:
    """A history of twice the large file, or quick, of that file; a tenth of it is added, with higher ids."""
    history, added = (rows if ground.quick else 2 * rows), rows // 10
    behind: list[Addition] = []
    alone: list[Addition] = []
    home = ground.home()
    with ground.server() as server:
        ground.say(f"scale: a history of {history:,} ids")
        ground.hftpipe("run", str(ground.file(history)), home=home, url=server.url)
        for repetition in range(ground.repetitions):
            file = _moved(ground.file(added), ground.folder, by=history + repetition * added)
            behind.append(_add(ground, server, home, file))
            alone.append(_add_alone(ground, file))
            file.unlink()
    ground.discard(home)
    setting = f"{added:,} rows behind {history:,}"
    empty = f"{added:,} rows in an empty home"
    for where, additions in ((setting, behind), (empty, alone)):
        costs = [one.cost.cpu_seconds / added * 1e6 for one in additions]
        yield _figure("CPU of ingest and worker", where, "µs/tx", costs)
        yield _figure("memory of a worker", where, "MB", [one.worker_mb for one in additions])
    pairs = list(zip(behind, alone, strict=True))
    times = [one.cost.seconds / other.cost.seconds for one, other in pairs]
    cpu = [one.cost.cpu_seconds / other.cost.cpu_seconds for one, other in pairs]
    yield _figure("time of ingest and worker / empty home", setting, "×", times)
    yield _figure("CPU of ingest and worker / empty home", setting, "×", cpu)


def _add_alone(ground: Ground, file: Path) -> Addition:
    home = ground.home()
    with ground.server() as server:
        addition = _add(ground, server, home, file)
    ground.discard(home)
    return addition


def _add(ground: Ground, server: Server, home: Path, file: Path) -> Addition:
    before = server.cpu_seconds()
    ingest = ground.hftpipe("ingest", str(file), home=home, url=server.url)
    worker = ground.hftpipe("worker", "--until-idle", home=home, url=server.url)
    cpu_seconds = ingest.cpu_seconds + worker.cpu_seconds + server.cpu_seconds() - before
    return Addition(Cost(ingest.seconds + worker.seconds, cpu_seconds), worker.memory_mb)


def _moved(source: Path, folder: Path, *, by: int) -> Path:
    """The same transactions under ids that are so much higher."""
    target = folder / f"behind-{by}.csv"
    with source.open("rb") as rows, target.open("wb") as file:
        file.write(next(rows))
        for row in rows:
            kind, account, tx, amount = row.split(b",")
            file.write(b"%b,%b,%d,%b" % (kind, account, int(tx) + by, amount))
    return target


def _figure(name: str, setting: str, unit: str, samples: list[float]) -> Figure:
    return Figure("scale", name, setting, unit, tuple(samples))
