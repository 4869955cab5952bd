"""Where what an operator mends with is put together."""

import getpass
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path

from hftpipe.clock import SystemClock
from hftpipe.config import WorkerLimits
from hftpipe.core.entry import FORMAT, origin
from hftpipe.errors import HftpipeError, MendingRefused, StoreDamaged, StoreUnavailable, UsageError
from hftpipe.log.mending import RedisLogMender
from hftpipe.mending.dead import Mending
from hftpipe.mending.rebuild import Fence, Rebuilding, Rebuilt, rebuild
from hftpipe.mending.repair import Hold, Repairing, own
from hftpipe.owner import is_dead, new_owner
from hftpipe.ports import Topology
from hftpipe.store.reading import store_paths, summarise
from hftpipe.store.sqlite import SqliteStore, shard_path
from hftpipe.validation import Rounding
from hftpipe.wiring.pipeline import Place


def mending(
    place: Place,
    *,
    who: str = "",
    rounding: Rounding = Rounding.REJECT,
    reach: Callable[[str], None] = lambda _: None,
) -> Mending:
    """What the dead letters of a pipeline are mended with; the log is not asked before it is needed.

    who: who decides; user and host of this process by default. Raises UsageError when there is no pipeline.
    """
    return Mending(
        place.home,
        topology_of(place),
        partial(open_mender, place),
        who or operator(),
        SystemClock(threading.Event()).unix_ms,
        rounding,
        reach,
    )


@contextmanager
def open_mender(place: Place, shard: int) -> Iterator[RedisLogMender]:
    """The log of a shard, in an operator's hand."""
    with closing(RedisLogMender(place.reconnector(f"mender:{shard}"), place.keys, shard)) as log:
        yield log


@contextmanager
def open_repairing(
    place: Place, shard: int, reach: Callable[[str], None] = lambda _: None
) -> Iterator[Repairing]:
    """What a shard is repaired with.

    Raises UsageError when there is no such shard, MendingRefused when it has no database.
    """
    topology = topology_of(place)
    path = shard_path(place.home, shard)
    if shard >= topology.shards:
        raise UsageError(f"there is no shard {shard}: the pipeline has 0 to {topology.shards - 1}")
    if not path.exists():
        raise MendingRefused(
            f"{path} is not there. If nothing was ever applied, `hftpipe worker --shard {shard}` makes it"
        )
    with open_mender(place, shard) as log:
        yield Repairing(
            shard,
            topology,
            log,
            lambda: SqliteStore(path, reach),
            new_owner(),
            is_dead,
            WorkerLimits().lease_ms,
            SystemClock(threading.Event()),
            operator(),
            reach,
        )


def emptied_shards(place: Place, topology: Topology, besides: int) -> list[int]:
    """Other shards whose log ends before what was applied of it: they need a repair, too."""
    found: list[int] = []
    for path in store_paths(place.home):
        with suppress(HftpipeError):  # what cannot be read is named when its turn comes
            summary = summarise(path)
            with open_mender(place, summary.shard) as log:
                last = log.extent().last or origin(topology.generation)
            if summary.shard != besides and last < summary.checkpoint.id:
                found.append(summary.shard)
    return found


def rebuild_shard(
    place: Place,
    shard: int,
    reach: Callable[[str], None] = lambda _: None,
    tell: Callable[[int, int], None] = lambda *_: None,
) -> Rebuilt:
    """Makes a shard's database anew from its journal. Raises MendingRefused when a worker owns it, or it cannot be."""
    topology = topology_of(place, but=shard)
    clock = SystemClock(threading.Event())
    identity = (topology.pipeline, shard, topology.shards)
    rebuilding = Rebuilding(place.home, identity, operator(), clock.unix_ms, reach, tell)
    if not rebuilding.path.exists() and not rebuilding.finished.exists():
        raise MendingRefused(f"{rebuilding.path} is not there: nothing can be made of it")
    with _fenced(place, rebuilding.path, shard, topology, clock) as fence:
        return rebuild(rebuilding, fence)


@contextmanager
def _fenced(place: Place, path: Path, shard: int, topology: Topology, clock: SystemClock) -> Iterator[Fence]:
    """The old database is held meanwhile; where it is gone, or too damaged, its epoch is one above all others."""
    with ExitStack() as stack:
        hold = None
        if path.exists():
            with suppress(StoreDamaged):
                store = stack.enter_context(closing(SqliteStore(path)))
                hold = _held(place, store, shard, topology, clock)
        if hold is None:
            yield Fence(clock.unix_ms() // 1000)
            return
        try:
            yield Fence(hold.epoch, hold.beat)
        except BaseException:
            with suppress(HftpipeError):
                store.release(hold.epoch, hold.stopped)
            raise


def _held(place: Place, store: SqliteStore, shard: int, topology: Topology, clock: SystemClock) -> Hold:
    with open_mender(place, shard) as log:  # not asked
        repairing = Repairing(
            shard,
            topology,
            log,
            lambda: store,
            new_owner(),
            is_dead,
            WorkerLimits().lease_ms,
            clock,
            operator(),
        )
        return own(repairing, store)


def topology_of(place: Place, but: int | None = None) -> Topology:
    """What the log of a home must say, by what its stores do; asks that of one shard last. Raises UsageError."""
    paths = store_paths(place.home)
    if but is not None:
        paths.sort(key=lambda path: path == shard_path(place.home, but))
    for path in paths:
        with suppress(StoreDamaged, StoreUnavailable):
            stored = summarise(path)
            return Topology(stored.pipeline, stored.shards, stored.checkpoint.id.generation, FORMAT)
    raise UsageError(f"{place.home} holds nothing that was applied yet, or no store of it can be read")


def operator() -> str:
    """User and host of this process."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a process without a name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
