"""A log in memory with the same guarantees: for dry runs, and for tests that need many runs a second."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from hftpipe.core.entry import EntryId, Foreign, RawEntry, origin
from hftpipe.errors import LogUnavailable
from hftpipe.ports import Appended, Attached, Extent, InboxEntry, Outgoing, Rejection, Topology


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
    losses: int = 0


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

    def mender(self, shard: int) -> "MemoryLogMender":
        """An operator's side of one shard."""
        return MemoryLogMender(self, shard)

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

    def losses(self) -> dict[int, int]:
        return {shard: stream.losses for shard, stream in enumerate(self._log.streams) if stream.losses}


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
        group.delivered = max(group.delivered, checkpoint)
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

    def group(self) -> tuple[EntryId, int] | None:
        """The last id that the group has handed out, and how many entries are pending; None when there is no group."""
        group = self._stream.group
        return None if group is None else (group.delivered, len(group.pending))

    def buried(self, above: EntryId, count: int) -> list[RawEntry]:
        """Dead letters above an id, ascending, each with its `reason` among its fields; at most so many."""
        dead = self._stream.dead
        return [RawEntry(entry_id, dead[entry_id]) for entry_id in sorted(dead) if entry_id > above][:count]

    def announce(self, role: str) -> None:
        pass

    def _group(self) -> _Group:
        if self._stream.group is None:
            raise LogUnavailable(f"the consumer group of shard {self._shard} is gone; attaching anew")
        return self._stream.group


class MemoryLogMender(MemoryLogReader):
    """An operator's side of one shard; see `ports.LogMender`. There are no connections, and there is no inbox."""

    def __init__(self, log: MemoryLog, shard: int) -> None:
        super().__init__(log, shard, "mender", lambda _: None)

    def found(self, topology: Topology) -> Topology:
        self._log.topology = self._log.topology or topology
        return self._log.topology

    def append_as(self, entry_id: EntryId, fields: Mapping[bytes, bytes]) -> bool:
        if entry_id <= self._stream.last:
            return False
        self._stream.last = entry_id
        self._stream.entries[entry_id] = dict(fields)
        return True

    def begin_behind(self, entry_id: EntryId) -> bool:
        if self._stream.entries or self._stream.last > entry_id:
            return False
        self._stream.last = entry_id
        return True

    def unbury(self, entry_id: EntryId) -> None:
        self._stream.dead.pop(entry_id, None)

    def lowest_in_inbox(self) -> EntryId | None:
        return None

    def announce_loss(self, number: int) -> None:
        self._stream.losses = number

    def producers(self) -> list[str]:
        return []

    def disconnect(self, connections: Sequence[str]) -> None:
        pass


class MemoryInbox:
    """An inbox that clients `add` to. `reader` gives a validator's side, any number of times.

    now_ms: the time by which leases run out. entries, reports: what is not done, and what was reported as invalid.
    """

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self.now_ms = now_ms
        self.last = EntryId(0, 0)
        self.entries: dict[EntryId, InboxEntry] = {}
        self.reports: dict[EntryId, Rejection] = {}
        self.reports_ever = 0
        self.lease: tuple[str, int] = ("", 0)

    def add(self, *fields: bytes, entry_id: EntryId | None = None) -> EntryId:
        """One entry, of names and values in turn, under the next id or a given one above the newest."""
        given = entry_id if entry_id is not None else self.last.moved(1)
        if given <= self.last:
            raise ValueError(f"{given} is not above {self.last}")
        self.last = given
        self.entries[given] = InboxEntry(given, fields)
        return given

    def reader(
        self,
        owner: str,
        *,
        lease_ms: int,
        reports_max: int,
        wait_ms: Callable[[int], None] = lambda _: None,
    ) -> "MemoryInboxReader":
        """A validator's side; `wait_ms` is called where a read would wait for an entry."""
        return MemoryInboxReader(self, owner, lease_ms, reports_max, wait_ms)


class MemoryInboxReader:
    """A validator's side; see `ports.Inbox`."""

    def __init__(
        self, inbox: MemoryInbox, owner: str, lease_ms: int, reports_max: int, wait_ms: Callable[[int], None]
    ) -> None:
        self._inbox = inbox
        self._owner = owner
        self._lease_ms = lease_ms
        self._reports_max = reports_max
        self._wait_ms = wait_ms

    def own(self) -> bool:
        owner, until_ms = self._inbox.lease
        now_ms = self._inbox.now_ms()
        if owner not in ("", self._owner) and now_ms < until_ms:
            return False
        self._inbox.lease = (self._owner, now_ms + self._lease_ms)
        return True

    def release(self) -> None:
        if self._inbox.lease[0] == self._owner:
            self._inbox.lease = ("", 0)

    def attach(self, floor: EntryId) -> Attached:
        is_anew = self._inbox.last < floor
        self._inbox.last = max(self._inbox.last, floor)
        return Attached(0, is_anew)

    def read(self, count: int, wait_ms: int, done: Sequence[InboxEntry]) -> list[InboxEntry]:
        inbox = self._inbox
        if done:
            for entry_id in [entry_id for entry_id in inbox.entries if entry_id <= done[-1].id]:
                del inbox.entries[entry_id]
        if count and wait_ms and not inbox.entries:
            self._wait_ms(wait_ms)
        return list(inbox.entries.values())[:count]

    def reject(self, rejections: Sequence[Rejection]) -> None:
        reports = self._inbox.reports
        for rejection in rejections:
            if rejection.id in self._inbox.entries and rejection.id not in reports:
                reports[rejection.id] = rejection
                self._inbox.reports_ever += 1
        for entry_id in list(reports)[: -self._reports_max]:
            del reports[entry_id]

    def is_empty(self) -> bool:
        return not self._inbox.entries

    def announce(self, role: str) -> None:
        pass
