"""An operator's side of the log on Redis Streams: what no producer and no worker ever does."""

from collections.abc import Mapping, Sequence
from typing import Any

import redis

from hftpipe.core.entry import EntryId
from hftpipe.log.keys import ACCEPTED, GROUP, PRODUCER, Keys
from hftpipe.log.redis import Connect, RedisLogReader, _entries, write_topology
from hftpipe.ports import Topology


class RedisLogMender(RedisLogReader):
    """One shard's log in an operator's hand; see `ports.LogMender`."""

    def __init__(self, connect: Connect, keys: Keys, shard: int) -> None:
        super().__init__(connect, keys, shard, "mender")
        self._losses_key = keys.losses(shard)

    def found(self, topology: Topology) -> Topology:
        with self._translated() as client:
            return write_topology(client, self._keys, topology)

    def append_as(self, entry_id: EntryId, fields: Mapping[bytes, bytes]) -> bool:
        with self._translated() as client:
            try:
                client.xadd(self._key, dict(fields), id=str(entry_id))  # type: ignore[arg-type]
            except redis.ResponseError as error:
                if "equal or smaller" not in str(error):
                    raise
                return False
        return True

    def begin_behind(self, entry_id: EntryId) -> bool:
        with self._translated() as client, client.pipeline(transaction=True) as pipeline:
            # Watched: an entry that a producer appends in between would have an id below, and be applied by nobody.
            pipeline.watch(self._key)  # type: ignore[no-untyped-call]
            is_there, has_group = bool(pipeline.exists(self._key)), False
            if is_there:
                stream: dict[str, Any] = pipeline.xinfo_stream(self._key)
                if stream["length"] or EntryId.parse(stream["last-generated-id"]) > entry_id:
                    return False
                groups: list[dict[str, Any]] = pipeline.xinfo_groups(self._key)
                has_group = any(group["name"] == GROUP.encode() for group in groups)
            pipeline.multi()
            if not has_group:
                pipeline.xgroup_create(self._key, GROUP, str(entry_id), mkstream=True)
            pipeline.execute_command("XSETID", self._key, str(entry_id))  # type: ignore[no-untyped-call]
            try:
                pipeline.execute()
            except redis.WatchError:
                return False
        return True

    def unbury(self, entry_id: EntryId) -> None:
        with self._translated() as client:
            client.xdel(self._dead_key, str(entry_id))

    def lowest_in_inbox(self) -> EntryId | None:
        with self._translated() as client:
            found = client.xrange(self._keys.inbox, count=1)
        return _entries(found)[0].id if found else None

    def announce_loss(self, number: int) -> None:
        with self._translated() as client:
            client.hset(self._losses_key, ACCEPTED, str(number))

    def producers(self) -> list[str]:
        name = f"{self._prefix}:{PRODUCER}"
        with self._translated() as client:
            return [other["id"] for other in client.client_list() if other["name"] == name]

    def disconnect(self, connections: Sequence[str]) -> None:
        with self._translated() as client:
            for connection in connections:
                client.client_kill_filter(_id=connection)
