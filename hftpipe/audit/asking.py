"""The log of a place, for an audit."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass

from hftpipe.audit.log_check import AuditedLog
from hftpipe.audit.verifying import Log
from hftpipe.errors import LogForeign, UsageError
from hftpipe.log.connection import translated
from hftpipe.log.redis import RedisLogReader, read_topology
from hftpipe.store.reading import store_paths
from hftpipe.wiring.pipeline import Place


@dataclass(frozen=True, slots=True)
class ShardLogs:
    """Opens the log of each shard of a place; it is sent from process to process. name: of its connections."""

    place: Place
    name: str

    def __call__(self, shard: int) -> AbstractContextManager[AuditedLog]:
        connect = self.place.connector(f"{self.name}:{shard}")
        return closing(RedisLogReader(connect, self.place.keys, shard, self.name))


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
