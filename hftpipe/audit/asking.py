"""What a place has for an audit: its log, and what was recorded there."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass

from hftpipe.audit.log_check import AuditedLog
from hftpipe.audit.material import Recording, topology_of
from hftpipe.audit.verifying import Log
from hftpipe.audit.window import Origin, Window
from hftpipe.errors import LogForeign, UsageError
from hftpipe.log.connection import translated
from hftpipe.log.redis import RedisLogReader, read_topology
from hftpipe.store.reading import store_paths
from hftpipe.store.sqlite import shard_path
from hftpipe.wiring.pipeline import Place, stored_summary


@dataclass(frozen=True, slots=True)
class ShardLogs:
    """Opens the log of each shard of a place; it is sent from process to process. name: of its connections."""

    place: Place
    name: str

    def __call__(self, shard: int) -> AbstractContextManager[AuditedLog]:
        connect = self.place.connector(f"{self.name}:{shard}")
        return closing(RedisLogReader(connect, self.place.keys, shard, self.name))

    def __str__(self) -> str:
        return f"{self.place.endpoint()} (prefix {self.place.prefix})"


@contextmanager
def asked(place: Place, *, asks_log: bool) -> Iterator[Log | None]:
    """The log of a place; None when it is not to be asked. A private server is started, and stays meanwhile.

    Raises UsageError when there is no pipeline, or no server for it, LogUnavailable and others as the log does.
    """
    has_server = bool(place.redis_url) or (place.home / "redis").exists()
    if not has_server and not store_paths(place.home):
        raise UsageError(f"{place.home} holds no pipeline yet. Ingest a file, or name its --home")
    if not asks_log:
        yield None
        return
    if not has_server:
        raise UsageError(
            f"{place.home} has no server of its own. Name that of its log with --redis-url, or --no-log"
        )
    with closing(place.connector("verify")()) as client:
        with translated(place.endpoint()):
            topology = read_topology(client, place.keys)
        if topology is None and not store_paths(place.home):
            raise LogForeign(f"{place.endpoint()} holds no pipeline under the prefix {place.prefix}")
        yield Log(topology, ShardLogs(place, "verify"))


def recorded(
    place: Place, chosen: Sequence[int], window: Window, origin: Origin
) -> tuple[Recording, list[int]]:
    """What was recorded in a place, and the shards of it to replay: of those chosen, of all when none is.

    Raises UsageError when there is nothing to replay, LogUnavailable and others as the log does.
    """
    logs = ShardLogs(place, "replay")
    if origin is Origin.LOG:
        with logs(0) as log:
            shards = topology_of(logs, log).shards
        there = set(range(shards))
    else:
        stored = stored_summary(place.home)
        shards = 0 if stored is None else stored.shards
        there = {shard for shard in range(shards) if shard_path(place.home, shard).exists()}
        if not there:
            raise UsageError(
                f"{place.home} holds no store yet: nothing was applied. Ingest a file and run `hftpipe worker`, or "
                "name --home; what was only appended is replayed with --record log"
            )
    if missing := sorted(set(chosen) - there):
        has = f"the pipeline has {shards}" if missing[0] >= shards else "it has applied nothing yet"
        raise UsageError(f"shard {missing[0]} cannot be replayed: {has}")
    asks = origin is Origin.LOG or (origin is Origin.AUTO and window.reaches_on)
    # Processes that ask no log need not know how: they begin sooner.
    return Recording(place.home, shards, window, origin, logs if asks else None), sorted(set(chosen) or there)
