"""A pipeline, put together: its place, its processes, its log and its stores."""

import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from types import MappingProxyType

import redis

from hftpipe.anchoring import repair
from hftpipe.backoff import Backoff
from hftpipe.clock import SystemClock
from hftpipe.config import ConnectionLimits, IngestLimits, ServeLimits, SupervisorLimits, WorkerLimits
from hftpipe.core.entry import FORMAT
from hftpipe.crew import Crew
from hftpipe.embedded import ServerLimits, wait_until_stopped
from hftpipe.embedded.home import make_private
from hftpipe.errors import (
    HftpipeError,
    LogForeign,
    LogUnavailable,
    PipelineMismatch,
    StoreDamaged,
    StoreUnavailable,
    UsageError,
)
from hftpipe.event import passing
from hftpipe.log.connection import (
    Endpoint,
    HomeEndpoint,
    StandingEndpoint,
    UrlEndpoint,
    check_server,
    translated,
)
from hftpipe.log.keys import PRODUCER, Keys
from hftpipe.log.redis import (
    RedisLogReader,
    RedisLogWriter,
    ShardLog,
    inspect,
    read_topology,
    write_topology,
)
from hftpipe.owner import is_dead, new_owner
from hftpipe.owning import Witness, World
from hftpipe.ports import Topology
from hftpipe.producer import Producer, Surroundings
from hftpipe.store.creation import create
from hftpipe.store.reading import ShardSummary, ownership, store_paths, summarise
from hftpipe.store.sqlite import SqliteStore, shard_path
from hftpipe.supervisor import Spawner, StallWatch, Supervisor, grouped, reception, worker
from hftpipe.telemetry.door import Door
from hftpipe.worker import ShardWorker

SHARDS_DEFAULT = 4


@dataclass(frozen=True, slots=True)
class Place:
    """Where a pipeline lives.

    redis_url: empty for the private server of the home.
    trust_server: do not ask the server whether its settings are safe.
    is_default: no home was named.
    linger_ms: how long the private server stays after its last client, if it has to be started.
    """

    home: Path
    redis_url: str = field(default="", repr=False)
    prefix: str = "hft"
    trust_server: bool = False
    is_default: bool = False
    linger_ms: int = ServerLimits().linger_ms

    def endpoint(self, limits: ConnectionLimits = ConnectionLimits()) -> Endpoint:  # noqa: B008 - a frozen value
        """How its server is reached; the private one is started when it does not run."""
        if self.redis_url:
            return UrlEndpoint(self.redis_url, limits)
        return HomeEndpoint(self.home, limits=limits, server_limits=ServerLimits(linger_ms=self.linger_ms))

    def standing_endpoint(self, limits: ConnectionLimits) -> Endpoint:
        """How its server is reached as it stands: the private one is not started, and not waited for."""
        return (
            UrlEndpoint(self.redis_url, limits)
            if self.redis_url
            else StandingEndpoint(self.home, limits=limits)
        )

    @property
    def keys(self) -> Keys:
        """Its keys in the server."""
        return Keys(self.prefix)

    def connector(
        self, name: str, wait_ms: int = 0, reply_ms: int = ConnectionLimits().reply_ms
    ) -> Callable[[], "redis.Redis"]:
        """Makes clients of that name.

        wait_ms: the longest that one of their commands waits in the server. reply_ms: longest wait for a reply
        beyond that.
        """
        endpoint = self.endpoint(ConnectionLimits(reply_ms=reply_ms))
        return lambda: endpoint.connect(f"{self.prefix}:{name}", wait_ms=wait_ms)

    def reconnector(
        self, name: str, wait_ms: int = 0, reply_ms: int = ConnectionLimits().reply_ms
    ) -> Callable[[], "redis.Redis"]:
        """As `connector`, for what has found the server safe before: that it does not start now may pass."""
        connect = self.connector(name, wait_ms, reply_ms)

        def reconnect() -> "redis.Redis":
            try:
                return connect()
            except (UsageError, LogUnavailable):
                raise
            except HftpipeError as error:
                raise LogUnavailable(str(error)) from error

        return reconnect


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A place whose server was found safe, and what it belongs to.

    log: the producer's side of the log, for one thread.
    """

    place: Place
    topology: Topology
    log: RedisLogWriter

    def producer(
        self, source: str, surroundings: Surroundings, limits: IngestLimits, *, resumable: bool
    ) -> Producer:
        """Appends the rows of one source."""
        return Producer(
            source,
            self.topology,
            log=self.log,
            surroundings=surroundings,
            limits=limits,
            resumable=resumable,
        )

    def crew(
        self,
        shards: Iterable[int],
        *,
        stop: threading.Event,
        report: Callable[[str], None],
        reach: Callable[[str], None],
        limits: WorkerLimits,
        until_idle: bool,
        witness: Witness = Witness(),  # noqa: B008 - it has no state
    ) -> Crew:
        """The workers of one process. witness: sees what they do."""
        world = World(SystemClock(stop), new_owner(), is_dead, stop.is_set, report, Random(), reach, witness)
        workers = {shard: self._worker(shard, world, limits, until_idle=until_idle) for shard in shards}
        return Crew(workers, stop, report)

    def _worker(self, shard: int, world: World, limits: WorkerLimits, *, until_idle: bool) -> ShardWorker:
        path = shard_path(self.place.home, shard)

        def open_store() -> SqliteStore:
            make_private(self.place.home)
            create(path, self.topology, shard)
            return SqliteStore(path, world.reach)

        # A silent server must not keep the worker from its beats: it would lose the shard for nothing.
        reply_ms = min(ConnectionLimits().reply_ms, limits.lease_ms // 2)
        connect = self.place.reconnector(f"worker:{shard}", limits.read_wait_ms, reply_ms)
        return ShardWorker(
            shard,
            self.topology,
            log=RedisLogReader(connect, self.place.keys, shard, world.owner.replace(" ", "-")),
            open_store=open_store,
            world=world,
            limits=limits,
            until_idle=until_idle,
        )


@contextmanager
def open_pipeline(place: Place, shards: int | None = None, role: str = PRODUCER) -> Iterator[Pipeline]:
    """Connects, checks the server, and reads, or for a new pipeline writes, the topology.

    The connection stays open during the body, so that a private server stays too.
    shards: how many are wanted; None takes what there is, `SHARDS_DEFAULT` for a new pipeline.
    role: what the connection of its log is called; whoever appends is a producer to `hftpipe repair` by that.
    Raises LogUnavailable, ServerRefused, PipelineMismatch.
    """
    stored = stored_summary(place.home)
    with closing(place.connector("setup")()) as client:
        check_server(client, trust=place.trust_server)
        with translated(place.endpoint()):
            topology = read_topology(client, place.keys)
            if topology is None:
                _refuse_emptied(place, stored)
                wanted = Topology(secrets.token_hex(8), shards or SHARDS_DEFAULT, 1, FORMAT)
                topology = write_topology(client, place.keys, wanted)
        _check(place, topology, shards, stored)
        with closing(RedisLogWriter(place.reconnector(role), place.keys, topology)) as log:
            yield Pipeline(place, topology, log)


@contextmanager
def temporary(place: Place) -> Iterator[Place]:
    """A pipeline of its own in a folder of its own; afterwards nothing of it is left, in the server neither."""
    with TemporaryDirectory(prefix="hftpipe-") as folder:
        own = replace(
            place, home=Path(folder), prefix=f"{place.prefix}-run-{secrets.token_hex(8)}", linger_ms=0
        )
        try:
            yield own
        finally:
            if own.redis_url:
                _remove_keys(own)
            else:
                wait_until_stopped(own.home, wait_ms=ServerLimits().stop_ms)


def _remove_keys(place: Place) -> None:
    with closing(place.connector("setup")()) as client, translated(place.endpoint()):
        topology = read_topology(client, place.keys)
        if topology is not None:
            for key in place.keys.all(topology.shards):
                client.delete(key)


def supervisor(
    pipeline: Pipeline,
    workers: int,
    *,
    report: Callable[[str], None],
    limits: WorkerLimits,
    service: Mapping[str, str] | None = None,
    settings: Mapping[str, str] = MappingProxyType({}),
    door: Door | None = None,
) -> Supervisor:
    """Worker processes for all shards of a pipeline.

    settings: of all processes, as HFTPIPE_… variables. door: where Prometheus may ask the first worker; the others
    have the ports behind it, and behind those are the ports of shards that are tried alone.
    service: settings of a reception service beside them, as such variables; None for none.
    """
    place = pipeline.place
    environment = {
        "HFTPIPE_HOME": str(place.home),
        "HFTPIPE_REDIS_URL": place.redis_url,
        "HFTPIPE_PREFIX": place.prefix,
        "HFTPIPE_TRUST_SERVER": "1" if place.trust_server else "",
        "HFTPIPE_LEASE_MS": str(limits.lease_ms),
        "HFTPIPE_RETAIN": str(limits.retain),
        "HFTPIPE_LOG_FORMAT": "text",
    }
    bounds = SupervisorLimits()
    watch = StallWatch(
        lambda shard: ownership(shard_path(place.home, shard)),
        SystemClock(threading.Event()),
        still_ms=limits.lease_ms + bounds.stall_grace_ms,
    )
    spawn = Spawner({**environment, **(service or {}), **settings})
    groups = grouped(pipeline.topology.shards, workers)
    doors = doors_of(door, groups, pipeline.topology.shards)
    members = [
        worker(shards, spawn=spawn, is_stalled=watch.is_stalled, stop_ms=bounds.stop_ms, options=doors)
        for shards in groups
    ]
    if service is not None:
        # Its own deadline for answering, and time to end behind it.
        members.append(reception(spawn=spawn, stop_ms=ServeLimits().stop_ms + bounds.stop_ms))
    return Supervisor(
        members,
        clock=SystemClock(threading.Event()),
        fraction=Random().random,
        report=report,
        limits=bounds,
    )


def doors_of(
    door: Door | None, groups: Sequence[tuple[int, ...]], shards: int
) -> Callable[[tuple[int, ...]], Sequence[str]]:
    """What a worker of some shards is told of its metrics. Raises UsageError when the ports do not reach."""
    if door is None:
        return lambda _: ("--metrics", "off")
    door.moved(len(groups) + shards - 1)

    def told(group: tuple[int, ...]) -> Sequence[str]:
        steps = groups.index(group) if group in groups else len(groups) + group[0]
        return "--metrics", str(door.moved(steps))

    return told


def wait_for_server(place: Place, stop: threading.Event, report: Callable[[str], None]) -> None:
    """Returns when the server answers, or when told to stop: a worker outlasts a server that is away."""
    limits = WorkerLimits()
    backoff = Backoff(limits.retry_first_ms, limits.retry_max_ms, Random().random)
    while not stop.is_set():
        try:
            place.connector("setup")().close()
        except LogUnavailable as fault:
            wait_ms = backoff.next_ms()
            report(passing(fault, wait_ms))
            stop.wait(wait_ms / 1000)
        else:
            return


def stored_summary(home: Path) -> ShardSummary | None:
    """What the first store of a home that can be read says; None when there is none.

    A damaged one stops its own shard, and no other: here it is passed over.
    """
    for path in store_paths(home):
        with suppress(StoreDamaged, StoreUnavailable):
            return summarise(path)
    return None


def _refuse_emptied(place: Place, stored: ShardSummary | None) -> None:
    if stored is not None:
        raise PipelineMismatch(
            f"{place.home} holds pipeline {stored.pipeline}, but {place.endpoint()} holds none under the prefix "
            f"{place.prefix}: it was emptied, or it is another server. Start the right one, restore its "
            f"append-only file, or use another --home; if that file is gone, {repair(stored.shard)}"
        )


def _check(place: Place, topology: Topology, shards: int | None, stored: ShardSummary | None) -> None:
    if topology.format != FORMAT:
        raise PipelineMismatch(
            f"{place.endpoint()} holds entries of format {topology.format}; this program writes {FORMAT}. "
            "Use the version of hftpipe that wrote them"
        )
    if shards is not None and shards != topology.shards:
        raise PipelineMismatch(
            f"the pipeline has {topology.shards} shards, {shards} were asked for: an account's shard depends on "
            f"their number. Leave --shards away, or use another --home"
        )
    if stored is not None and stored.pipeline != topology.pipeline:
        raise PipelineMismatch(
            f"{place.home} holds pipeline {stored.pipeline}, {place.endpoint()} pipeline {topology.pipeline}. "
            "Use the home and the server that belong together"
        )


def look_at_log(place: Place, report: Callable[[str], None]) -> tuple[int, dict[int, ShardLog]]:
    """The number of shards, and what the log says of each; says why, and returns what the stores say, when it cannot.

    Raises UsageError when there is no pipeline.
    """
    stored = stored_summary(place.home)
    shards = stored.shards if stored is not None else 0
    if not place.redis_url and not shards and not (place.home / "redis").exists():
        raise UsageError(f"{place.home} holds no pipeline yet. Ingest a file, or name its --home")
    try:
        with closing(place.connector("status")()) as client, translated(place.endpoint()):
            topology = read_topology(client, place.keys)
            if topology is None:
                raise LogForeign(f"{place.endpoint()} holds no pipeline under the prefix {place.prefix}")
            return topology.shards, _inspected(client, place.keys, topology.shards, report)
    except HftpipeError as error:
        report(f"The log was not asked: {error}")
        return shards, {}


def _inspected(
    client: "redis.Redis", keys: Keys, shards: int, report: Callable[[str], None]
) -> dict[int, ShardLog]:
    """What the log says of each shard; of one whose key is no log, nothing."""
    logs: dict[int, ShardLog] = {}
    for shard in range(shards):
        try:
            logs[shard] = inspect(client, keys, shard)
        except redis.ResponseError as error:
            report(f"The log of shard {shard} was not asked: {error}")
    return logs
