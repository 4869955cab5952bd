"""How a whole log stands, asked with one round trip on a connection that stays open.

What the server does not tell, because its rules for this user do not permit it or a key holds something else, is
unknown; only a lost connection is an error.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import redis

from hftpipe.config import SHARDS_MAX, ConnectionLimits
from hftpipe.core.entry import EntryId
from hftpipe.errors import LogUnavailable
from hftpipe.log.connection import translate
from hftpipe.log.keys import Keys
from hftpipe.log.redis import Connect

KEEPER_NAME: Final = "hftpipe-keeper"
LOOKER: Final = "overview"
"""What connections of those who only look on are called, behind the prefix."""

LIMITS: Final = ConnectionLimits(connect_ms=1_000, reply_ms=1_000)
"""Who only looks on does not wait for long."""

REPORTS_MAX: Final = 1_000
"""Newest reports of invalid entries that are counted by reason at the first look, and at each one after it."""

_SECTIONS: Final = ("server", "clients", "memory", "persistence")
_EXPIRY_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class Oldest:
    """The oldest entry of a shard that is not applied. time_ms: when it was appended; count: its transactions."""

    time_ms: int
    count: int


@dataclass(frozen=True, slots=True)
class LogReading:
    """What a shard's log says at one look.

    appended: entries. reach: the first that is still there. newest_count: transactions of the newest entry.
    stats: see `RedisStats`.
    """

    appended: int
    reach: EntryId | None
    newest_count: int
    oldest: Oldest | None
    standbys: int | None
    stats: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class ServerReading:
    """What the server says of itself."""

    version: str
    memory_bytes: int
    aof_bytes: int
    clients: int
    uptime_s: int


@dataclass(frozen=True, slots=True)
class WholeReading:
    """What the server says at one look.

    pipeline, shards: "" and 0 when it holds none. logs: of the shards that could be asked.
    inbox_waiting: None without an inbox.
    invalid: of the inbox, by reason, since the first look; invalid_ever counts those before it too.
    others: clients that do more than look on; None when that is unknown.
    """

    pipeline: str
    shards: int
    logs: Mapping[int, LogReading]
    server: ServerReading | None
    inbox_waiting: int | None
    invalid: Mapping[str, int]
    invalid_ever: int
    others: int | None


class LogGauge:
    """Looks at the log of a pipeline, for one thread at a time.

    connect: makes a client that starts no server. Raises LogUnavailable, and ServerRefused, as it does.
    """

    def __init__(self, connect: Connect, keys: Keys) -> None:
        self._connect = connect
        self._keys = keys
        self._client: redis.Redis | None = None
        self._invalid: Counter[str] = Counter()
        self._reported = b""

    def read(self, checkpoints: Mapping[int, EntryId]) -> WholeReading:
        """One look. checkpoints: for each shard that is looked at, the last entry applied."""
        try:
            if self._client is None:
                self._client = self._connect()
            with self._client.pipeline(transaction=False) as pipeline:
                self._ask(pipeline, checkpoints)
                replies: list[Any] = pipeline.execute(raise_on_error=False)
        except redis.RedisError as error:
            self.close()
            raise translate(error) from error
        lost = next((reply for reply in replies if isinstance(reply, redis.ConnectionError)), None)
        if lost is not None:
            self.close()
            raise LogUnavailable(str(lost))
        return self._told(replies, checkpoints)

    def close(self) -> None:
        """Lets go of the connection."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _ask(self, pipeline: Any, checkpoints: Mapping[int, EntryId]) -> None:
        pipeline.hgetall(self._keys.topology)
        pipeline.info(*_SECTIONS)
        pipeline.client_list()
        pipeline.exists(self._keys.inbox)
        pipeline.xlen(self._keys.inbox)
        pipeline.xinfo_stream(self._keys.invalid)
        pipeline.xrevrange(
            self._keys.invalid, min=b"(" + self._reported if self._reported else "-", count=REPORTS_MAX
        )
        for shard, checkpoint in checkpoints.items():
            pipeline.xinfo_stream(self._keys.log(shard))
            pipeline.xrange(self._keys.log(shard), str(checkpoint.moved(1)), "+", count=1)
            pipeline.hgetall(self._keys.stats(shard))

    def _told(self, replies: list[Any], checkpoints: Mapping[int, EntryId]) -> WholeReading:
        topology, info, clients, has_inbox, waiting, invalid, reports, *rest = replies
        names = _names(clients)
        self._count(reports)
        known = {} if isinstance(topology, redis.RedisError) else topology
        logs = {
            shard: _log(rest[3 * place : 3 * place + 3], self._standbys(names, shard))
            for place, shard in enumerate(checkpoints)
        }
        return WholeReading(
            known.get(b"pipeline", b"").decode(errors="replace"),
            min(_number(known.get(b"shards", 0)), SHARDS_MAX),
            {shard: log for shard, log in logs.items() if log is not None},
            None if isinstance(info, redis.RedisError) else _server(info),
            waiting if has_inbox == 1 and isinstance(waiting, int) else None,
            dict(self._invalid),
            invalid["entries-added"] if isinstance(invalid, dict) else 0,
            None if names is None else sum(map(self._does_more, names)),
        )

    def _standbys(self, names: list[str] | None, shard: int) -> int | None:
        return None if names is None else names.count(f"{self._keys.prefix}:standby:{shard}")

    def _does_more(self, name: str) -> bool:
        return name not in {KEEPER_NAME, f"{self._keys.prefix}:{LOOKER}"}

    def _count(self, reports: Any) -> None:
        if isinstance(reports, redis.RedisError) or not reports:
            return
        self._reported = reports[0][0]
        self._invalid.update(fields.get(b"reason", b"").decode(errors="replace") for _, fields in reports)


class RedisStats:
    """Where a worker keeps what it has measured, for those who look on; for one thread.

    A hash of integers for each shard, gone a minute after it was written last. Methods raise LogUnavailable.
    """

    def __init__(self, connect: Connect, keys: Keys) -> None:
        self._connect = connect
        self._keys = keys
        self._client: redis.Redis | None = None

    def write(self, stats: Mapping[int, Mapping[str, int]]) -> None:
        """Replaces the hashes of some shards."""
        try:
            if self._client is None:
                self._client = self._connect()
            with self._client.pipeline(transaction=False) as pipeline:
                for shard, values in stats.items():
                    pipeline.hset(
                        self._keys.stats(shard), items=[part for pair in values.items() for part in pair]
                    )
                    pipeline.pexpire(self._keys.stats(shard), _EXPIRY_MS)
                pipeline.execute()
        except redis.RedisError as error:
            self.close()
            raise translate(error) from error

    def close(self) -> None:
        """Lets go of the connection."""
        client, self._client = self._client, None
        if client is not None:
            client.close()


def _names(clients: Any) -> list[str] | None:
    return None if isinstance(clients, redis.RedisError) else [client["name"] for client in clients]


def _log(replies: list[Any], standbys: int | None) -> LogReading | None:
    stream, oldest, stats = replies
    found = {} if isinstance(stats, redis.RedisError) else stats
    numbers = {name.decode(errors="replace"): _number(value) for name, value in found.items()}
    if not isinstance(stream, dict):
        is_empty = "no such key" in str(stream)
        return LogReading(0, None, 0, None, standbys, numbers) if is_empty else None
    first, newest = stream["first-entry"], stream["last-entry"]
    last = EntryId.parse(stream["last-generated-id"])
    return LogReading(
        last.sequence + 1 if last > EntryId(0, 0) else 0,
        EntryId.parse(first[0]) if first else None,
        _number(newest[1].get(b"n", 0)) if newest else 0,
        None if isinstance(oldest, redis.RedisError) or not oldest else _oldest(oldest[0][1]),
        standbys,
        numbers,
    )


def _oldest(fields: Mapping[bytes, bytes]) -> Oldest:
    """Also of an entry that is none of ours, whatever its fields are."""
    return Oldest(_number(fields.get(b"t", 0)), _number(fields.get(b"n", 1)))


def _server(info: Mapping[str, Any]) -> ServerReading:
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = info.get("valkey_version") or info.get("redis_version") or ""
    return ServerReading(
        f"{name} {version}".strip(),
        _number(info.get("used_memory", 0)),
        _number(info.get("aof_current_size", 0)),
        _number(info.get("connected_clients", 0)),
        _number(info.get("uptime_in_seconds", 0)),
    )


def _number(text: object) -> int:
    """What the server, or somebody's entry, has in place of a number; 0 for what is none."""
    digits = text if isinstance(text, bytes) else str(text).encode()
    return int(digits) if digits.isdigit() and len(digits) < 19 else 0
