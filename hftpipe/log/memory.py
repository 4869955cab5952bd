"""A log in memory with the same guarantees: for dry runs, and for tests that need many runs a second."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from hftpipe.core.entry import EntryId, Foreign, RawEntry, origin
from hftpipe.errors import LogUnavailable
from hftpipe.ports import Appended, Extent, Outgoing, Topology


@dataclass(slots=True)
class _Group:
    delivered: EntryId
    pending: dict[EntryId, str] = field(default_factory=dict)
    consumers: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Stream:
    last: EntryId
    entries: dict[EntryId, Mapping[bytes, bytes]] = field(default_factory=dict)
    group: _Group | None = None
    dead: dict[EntryId, Mapping[bytes, bytes]] = field(default_factory=dict)
    advice: dict[str, bytes] = field(default_factory=dict)


class MemoryLog:
    """All shards of one pipeline. `writer` and `reader` give the two sides, any number of times."""

    def __init__(self, topology: Topology) -> None:
        self.topology: Topology | None = topology
        self.streams = [_Stream(origin(topology.generation)) for _ in range(topology.shards)]

    def writer(self) -> "MemoryLogWriter":
        """A producer's side."""
        return MemoryLogWriter(self)

    def reader(
        self, shard: int, consumer: str, wait_ms: Callable[[int], None] = lambda _: None
    ) -> "MemoryLogReader":
        """A worker's side of one shard; `wait_ms` is called where a read would wait for an entry."""
        return MemoryLogReader(self, shard, consumer, wait_ms)

    def append(self, entry: Outgoing) -> EntryId:
        """One entry under the next dense id."""
        stream = self.streams[entry.shard]
        stream.last = stream.last.moved(1)
        stream.entries[stream.last] = dict(entry.fields)
        return stream.last

    def extent(self, shard: int) -> Extent:
        """What a shard's log holds."""
        stream = self.streams[shard]
        return Extent(next(iter(stream.entries), None), stream.last if stream.last.sequence >= 0 else None)


class MemoryLogWriter:
    """The producer's side; see `ports.LogWriter`."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log

    def topology(self) -> Topology | None:
        return self._log.topology

    def append(self, entries: Sequence[Outgoing]) -> Appended:
        return Appended([self._log.append(entry) for entry in entries])

    def fetch(self, shard: int, entry_id: EntryId) -> RawEntry | None:
        fields = self._log.streams[shard].entries.get(entry_id)
        return None if fields is None else RawEntry(entry_id, fields)

    def extent(self, shard: int) -> Extent:
        return self._log.extent(shard)

    def backlog(self, shard: int) -> int:
        stream = self._log.streams[shard]
        if stream.group is None:
            return stream.last.sequence + 1
        return max(stream.last.sequence - stream.group.delivered.sequence, 0) + len(stream.group.pending)

    def note(self, source: str, advice: Mapping[int, bytes]) -> None:
        for shard, text in advice.items():
            self._log.streams[shard].advice[source] = text

    def advice(self, source: str) -> dict[int, bytes]:
        return {
            shard: stream.advice[source]
            for shard, stream in enumerate(self._log.streams)
            if source in stream.advice
        }


class MemoryLogReader:
    """The worker's side of one shard; see `ports.LogReader`."""

    def __init__(self, log: MemoryLog, shard: int, consumer: str, wait_ms: Callable[[int], None]) -> None:
        self._log = log
        self._shard = shard
        self._consumer = consumer
        self._wait_ms = wait_ms

    @property
    def _stream(self) -> _Stream:
        return self._log.streams[self._shard]

    def topology(self) -> Topology | None:
        return self._log.topology

    def extent(self) -> Extent:
        return self._log.extent(self._shard)

    def attach(self, checkpoint: EntryId) -> EntryId:
        stream = self._stream
        if stream.group is None or stream.group.delivered > stream.last:
            stream.group = _Group(checkpoint)
        group = stream.group
        group.consumers = {self._consumer}
        group.pending = {
            entry_id: self._consumer
            for entry_id in group.pending
            if entry_id > checkpoint and entry_id in stream.entries
        }
        return group.delivered

    def range(self, first: EntryId, last: EntryId, count: int) -> list[RawEntry]:
        ids = [entry_id for entry_id in self._stream.entries if first <= entry_id <= last]
        return [RawEntry(entry_id, self._stream.entries[entry_id]) for entry_id in ids[:count]]

    def read(
        self, count: int, wait_ms: int, done: Sequence[EntryId], keep_from: EntryId | None
    ) -> list[RawEntry]:
        stream = self._stream
        group = self._group()
        for entry_id in done:
            group.pending.pop(entry_id, None)
        if keep_from is not None:
            for entry_id in [entry_id for entry_id in stream.entries if entry_id < keep_from]:
                del stream.entries[entry_id]
        if count and wait_ms and group.delivered >= stream.last:
            self._wait_ms(wait_ms)
            group = self._group()
        entries = self.range(group.delivered.moved(1), stream.last, count)
        for entry in entries:
            group.pending[entry.id] = self._consumer
            group.consumers.add(self._consumer)
            group.delivered = entry.id
        return entries

    def bury(self, foreign: Foreign) -> None:
        self._stream.dead.setdefault(foreign.id, {**foreign.fields, b"reason": foreign.reason.encode()})

    def announce(self, role: str) -> None:
        pass

    def _group(self) -> _Group:
        if self._stream.group is None:
            raise LogUnavailable(f"the consumer group of shard {self._shard} is gone; attaching anew")
        return self._stream.group
