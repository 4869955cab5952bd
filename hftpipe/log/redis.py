"""The log on Redis Streams, for any server of the protocol (Redis >= 7.0, Valkey >= 7.2).

Dense ids: `XADD {hft:3}:log 1-* …` makes the server itself count 1-0, 1-1, 1-2, … for any number of producers.
Every command is sent once: a repeated XADD would be a second entry.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import redis

from hftpipe.core.entry import EntryId, Foreign, RawEntry, appended_ms
from hftpipe.errors import HftpipeError, LogForeign, LogUnavailable, PassingFault
from hftpipe.log.connection import translate
from hftpipe.log.keys import ACCEPTED, GROUP, Keys
from hftpipe.ports import Appended, Extent, Outgoing, Topology

Connect = Callable[[], "redis.Redis"]
"""Makes a client that never repeats a command; starts the private server first when that is where the log lives."""

_CLAIM_PAGE: Final = 1_000
_NOWHERE: Final = "0-0"


class Connected:
    """A client that is made anew after each lost connection."""

    def __init__(self, connect: Connect, keys: Keys) -> None:
        self._connect = connect
        self._keys = keys
        self._open_client: redis.Redis | None = None

    def topology(self) -> Topology | None:
        with self._translated() as client:
            return read_topology(client, self._keys)

    def close(self) -> None:
        """Lets go of the connection."""
        client, self._open_client = self._open_client, None
        if client is not None:
            with suppress(redis.RedisError, OSError):
                client.close()

    @contextmanager
    def _translated(self) -> Iterator["redis.Redis"]:
        try:
            if self._open_client is None:
                self._open_client = self._connect()
            yield self._open_client
        except redis.RedisError as error:
            if isinstance(error, redis.ConnectionError | redis.TimeoutError):
                self.close()
            raise _fault_of(error) from error


class RedisLogWriter(Connected):
    """The producer's side; see `ports.LogWriter`.

    generation: of the ids that are given.
    """

    def __init__(self, connect: Connect, keys: Keys, topology: Topology) -> None:
        super().__init__(connect, keys)
        self._shards = topology.shards
        self._next_id = f"{topology.generation}-*"

    def append(self, entries: Sequence[Outgoing]) -> Appended:
        try:
            with self._translated() as client, client.pipeline(transaction=False) as pipeline:
                for entry in entries:
                    pipeline.xadd(self._keys.log(entry.shard), dict(entry.fields), id=self._next_id)  # type: ignore[arg-type]
                replies = pipeline.execute(raise_on_error=False)
        except PassingFault as fault:
            return Appended([], fault)
        return _confirmed(replies)

    def fetch(self, shard: int, entry_id: EntryId) -> RawEntry | None:
        with self._translated() as client:
            found = client.xrange(self._keys.log(shard), str(entry_id), str(entry_id))
        return _entries(found)[0] if found else None

    def extent(self, shard: int) -> Extent:
        with self._translated() as client:
            return _extent(client, self._keys.log(shard))

    def backlog(self, shard: int) -> int:
        key = self._keys.log(shard)
        with self._translated() as client:
            last = _extent(client, key).last
            group = _group(client, key)
        if last is None:
            return 0
        if group is None:
            return last.sequence + 1
        delivered, pending = group
        undelivered = last.sequence - (delivered.sequence if delivered > EntryId(0, 0) else -1)
        return max(undelivered, 0) + pending

    def note(self, source: str, advice: Mapping[int, bytes]) -> None:
        with self._translated() as client, client.pipeline(transaction=False) as pipeline:
            for shard, text in advice.items():
                pipeline.hset(self._keys.sources(shard), source, text)
            pipeline.execute()

    def advice(self, source: str) -> dict[int, bytes]:
        with self._translated() as client, client.pipeline(transaction=False) as pipeline:
            for shard in range(self._shards):
                pipeline.hget(self._keys.sources(shard), source)
            replies = pipeline.execute()
        return {shard: text for shard, text in enumerate(replies) if text is not None}

    def losses(self) -> dict[int, int]:
        with self._translated() as client, client.pipeline(transaction=False) as pipeline:
            for shard in range(self._shards):
                pipeline.hget(self._keys.losses(shard), ACCEPTED)
            replies = pipeline.execute()
        return {shard: int(text) for shard, text in enumerate(replies) if text is not None}


class RedisLogReader(Connected):
    """The worker's side of one shard, as one consumer of the group; see `ports.LogReader`."""

    def __init__(self, connect: Connect, keys: Keys, shard: int, consumer: str) -> None:
        super().__init__(connect, keys)
        self._prefix = keys.prefix
        self._shard = shard
        self._key = keys.log(shard)
        self._dead_key = keys.dead(shard)
        self._consumer = consumer
        self._role = ""

    def extent(self) -> Extent:
        with self._translated() as client:
            return _extent(client, self._key)

    def attach(self, checkpoint: EntryId) -> EntryId:
        with self._translated() as client:
            delivered = self._group_at(client, checkpoint)
            self._claim_all(client, checkpoint)
            for consumer in client.xinfo_consumers(self._key, GROUP):
                if consumer["name"] != self._consumer.encode() and consumer["pending"] == 0:
                    client.xgroup_delconsumer(self._key, GROUP, consumer["name"])
        return delivered

    def range(self, first: EntryId, last: EntryId, count: int) -> list[RawEntry]:
        with self._translated() as client:
            return _entries(client.xrange(self._key, str(first), str(last), count=count))

    def read(
        self, count: int, wait_ms: int, done: Sequence[EntryId], keep_from: EntryId | None
    ) -> list[RawEntry]:
        with self._translated() as client, client.pipeline(transaction=False) as pipeline:
            if done:
                pipeline.xack(self._key, GROUP, *map(str, done))
            if keep_from is not None and keep_from.sequence > 0:
                pipeline.xtrim(self._key, minid=str(keep_from), approximate=False)
            if count:
                block = wait_ms or None  # BLOCK 0 would wait for ever
                pipeline.xreadgroup(GROUP, self._consumer, {self._key: ">"}, count=count, block=block)
            # Not raised by the pipeline itself: it would put the command, with all its ids, into the message.
            replies = pipeline.execute(raise_on_error=False)
            for reply in replies:
                if isinstance(reply, redis.RedisError):
                    raise reply
        streams = replies[-1] if count else None
        return _entries(streams[0][1]) if streams else []

    def bury(self, foreign: Foreign) -> None:
        fields: dict[Any, Any] = {**foreign.fields, b"reason": foreign.reason.encode()}
        with self._translated() as client:
            try:
                client.xadd(self._dead_key, fields, id=str(foreign.id))
            except redis.ResponseError as error:
                # The entry's own id: burying it again is refused as not above the newest, and changes nothing.
                if "equal or smaller" not in str(error):
                    raise

    def group(self) -> tuple[EntryId, int] | None:
        """The last id that the group has handed out, and how many entries are pending; None when there is no group."""
        with self._translated() as client:
            return _group(client, self._key)

    def buried(self, above: EntryId, count: int) -> list[RawEntry]:
        """Dead letters above an id, ascending, each with its `reason` among its fields; at most so many."""
        with self._translated() as client:
            first = str(above.moved(1)) if above.sequence >= 0 else "-"
            return _entries(client.xrange(self._dead_key, first, "+", count=count))

    def announce(self, role: str) -> None:
        with self._translated() as client:
            if role != self._role:
                client.client_setname(f"{self._prefix}:{role}:{self._shard}")
                self._role = role

    def close(self) -> None:
        self._role = ""
        super().close()

    def _group_at(self, client: "redis.Redis", checkpoint: EntryId) -> EntryId:
        position = str(checkpoint) if checkpoint.sequence >= 0 else _NOWHERE
        group = _group(client, self._key)
        if group is None:
            client.xgroup_create(self._key, GROUP, position, mkstream=True)
            return checkpoint
        delivered, _ = group
        last = _extent(client, self._key).last
        if delivered < checkpoint or (last is not None and delivered > last):
            # Behind a loss that was accepted nothing is left to hand out, and all of it would be backlog for ever. Or
            # the log lost its tail: what is appended from now on would hide behind the group's position.
            client.xgroup_setid(self._key, GROUP, position)
            return checkpoint
        return delivered

    def _claim_all(self, client: "redis.Redis", checkpoint: EntryId) -> None:
        """Makes everything pending this consumer's own, and acknowledges what was committed before.

        The server forgets pending entries that are no longer in the log when it meets them. A page of such is
        empty without being the last, so this goes on while the number of pending entries still moves.
        """
        start, pending = _NOWHERE, -1
        while True:
            claimed = client.xautoclaim(
                self._key,
                GROUP,
                self._consumer,
                min_idle_time=0,
                start_id=start,
                count=_CLAIM_PAGE,
                justid=True,
            )
            ids = [EntryId.parse(claim) for claim in claimed]
            if committed := [str(entry_id) for entry_id in ids if entry_id <= checkpoint]:
                client.xack(self._key, GROUP, *committed)
            if ids:
                start = str(ids[-1].moved(1))
                continue
            before, group = pending, _group(client, self._key)
            pending = group[1] if group else 0
            if pending in (0, before):
                return


def read_topology(client: "redis.Redis", keys: Keys) -> Topology | None:
    """What the log belongs to; None when that is not, or not wholly, written yet."""
    fields: dict[Any, Any] = client.hgetall(keys.topology)
    try:
        return Topology(
            fields[b"pipeline"].decode(),
            int(fields[b"shards"]),
            int(fields[b"generation"]),
            int(fields[b"format"]),
        )
    except (KeyError, ValueError):
        return None


def write_topology(client: "redis.Redis", keys: Keys, wanted: Topology) -> Topology:
    """Writes what is not there yet and returns what holds, whoever wrote it.

    Field by field, each only if absent: any number of processes at once, each stopped anywhere, end with one.
    """
    for name in ("pipeline", "shards", "generation", "format"):
        client.hsetnx(keys.topology, name, str(getattr(wanted, name)))
    written = read_topology(client, keys)
    if written is None:
        raise LogForeign(f"{keys.topology} was removed while it was written. Run the command again")
    return written


def _fault_of(error: redis.RedisError) -> HftpipeError:
    """Our error for one of the server's; a key or a group that is not what it must be is told apart."""
    if "WRONGTYPE" in str(error):
        return LogForeign(f"a key of the log holds something else than it must: {error}")
    if str(error).startswith("NOGROUP"):
        return LogUnavailable(f"the log's consumer group is gone; attaching anew ({error})")
    return translate(error)


def _confirmed(replies: list[object]) -> Appended:
    ids: list[EntryId] = []
    for reply in replies:
        if not isinstance(reply, bytes):
            fault = _fault_of(reply) if isinstance(reply, redis.RedisError) else None
            if not isinstance(fault, PassingFault):
                raise fault or LogUnavailable(f"the server answered XADD with {reply!r}")
            return Appended(ids, fault)
        ids.append(EntryId.parse(reply))
    return Appended(ids)


def _extent(client: "redis.Redis", key: str) -> Extent:
    oldest, last = _ends(client, key)
    return Extent(None if oldest is None else oldest.id, last)


def _ends(client: "redis.Redis", key: str) -> tuple[RawEntry | None, EntryId | None]:
    """The oldest entry still there, and the newest id ever given."""
    try:
        stream: dict[str, Any] = client.xinfo_stream(key)
    except redis.ResponseError as error:
        if "no such key" in str(error):
            return None, None
        raise
    first, last = stream["first-entry"], EntryId.parse(stream["last-generated-id"])
    return _entries([first])[0] if first else None, last if last > EntryId(0, 0) else None


def _group(client: "redis.Redis", key: str) -> tuple[EntryId, int] | None:
    """The last id that the group has delivered, and how many entries are pending."""
    try:
        groups: list[dict[str, Any]] = client.xinfo_groups(key)
    except redis.ResponseError as error:
        if "no such key" in str(error):
            return None
        raise
    for group in groups:
        if group["name"] == GROUP.encode():
            return EntryId.parse(group["last-delivered-id"]), group["pending"]
    return None


def _entries(replies: Any) -> list[RawEntry]:
    """Entries from the library's lists of id and fields."""
    return [RawEntry(EntryId.parse(entry_id), fields or {}) for entry_id, fields in replies]


@dataclass(frozen=True, slots=True)
class ShardLog:
    """What a shard's log says of itself, in entries; `standbys` counts the workers that wait for the shard.

    first: the oldest entry still there; first_ms: its time of append, Unix ms. None where there is none.
    """

    appended: int
    pending: int
    dead: int
    standbys: int
    first: EntryId | None = None
    first_ms: int | None = None


def inspect(client: "redis.Redis", keys: Keys, shard: int) -> ShardLog:
    """How a shard's log stands."""
    oldest, last = _ends(client, keys.log(shard))
    group = _group(client, keys.log(shard))
    role = f"{keys.prefix}:standby:{shard}"
    return ShardLog(
        0 if last is None else last.sequence + 1,
        0 if group is None else group[1],
        client.xlen(keys.dead(shard)),
        sum(other["name"] == role for other in client.client_list()),
        None if oldest is None else oldest.id,
        None if oldest is None else appended_ms(oldest),
    )
