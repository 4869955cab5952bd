"""A producer's and a worker's connection to the simulated server: `ports.LogWriter` and `ports.LogReader`."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from hftpipe.core.entry import EntryId, Foreign, RawEntry
from hftpipe.errors import LogUnavailable
from hftpipe.log.memory import MemoryLogReader
from hftpipe.ports import Appended, Extent, Outgoing, Topology
from tests.simulation.server import Late, Server

T = TypeVar("T")


class Connection:
    """One client's connection: gone after each fault, made anew by the next request."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._run: int | None = None

    def request(self, label: str, effect: Callable[[], T]) -> T:
        """A request and its reply; others run before the effect and between the two."""
        self.open(label)
        result = effect()
        self.close_reply(label)
        return result

    def open(self, label: str) -> None:
        """The request is under way; on return it is about to take effect. Raises LogUnavailable."""
        server = self.server
        server.scheduler.step(label)
        if server.down_until_ms > server.scheduler.now_ms:
            self.lose("the server is down")
        if self._run is None:
            self._run = server.run
        elif self._run != server.run:
            self.lose("the connection broke")

    def close_reply(self, label: str) -> None:
        """The reply is under way; on return it is there. Raises LogUnavailable."""
        server = self.server
        server.scheduler.step(f"{label}: done")
        if self._run != server.run:
            self.lose("the connection broke before the reply")
        if server.chance(server.faults.reply_lost):
            server.hit("reply lost")
            self.lose("the reply timed out")

    def lose(self, why: str) -> None:
        """Closes the connection and raises LogUnavailable."""
        self._run = None
        raise LogUnavailable(why)


class SimulatedWriter:
    """A producer's side of the log; `name` is the process."""

    def __init__(self, server: Server, name: str) -> None:
        self._server = server
        self._name = name
        self._real = server.log.writer()
        self._connection = Connection(server)

    def topology(self) -> Topology | None:
        return self._connection.request("topology", self._real.topology)

    def fetch(self, shard: int, entry_id: EntryId) -> RawEntry | None:
        return self._connection.request(
            f"fetch {shard}/{entry_id}", lambda: self._real.fetch(shard, entry_id)
        )

    def extent(self, shard: int) -> Extent:
        return self._connection.request("extent", lambda: self._real.extent(shard))

    def backlog(self, shard: int) -> int:
        return self._connection.request("backlog", lambda: self._real.backlog(shard))

    def advice(self, source: str) -> dict[int, bytes]:
        return self._connection.request("advice", lambda: self._real.advice(source))

    def losses(self) -> dict[int, int]:
        return self._real.losses()

    def note(self, source: str, advice: Mapping[int, bytes]) -> None:
        self._connection.request("note", lambda: self._note(source, advice))

    def _note(self, source: str, advice: Mapping[int, bytes]) -> None:
        for shard, text in advice.items():
            self._real.note(source, {shard: text})
            self._server.changed()

    def append(self, entries: Sequence[Outgoing]) -> Appended:
        server = self._server
        try:
            self._connection.open(f"append {len(entries)}")
            if server.chance(server.faults.append_late):
                self._give_up(entries)
            if server.chance(server.faults.append_cut):
                return self._cut(entries)
            return self._land(entries)
        except LogUnavailable as fault:
            return Appended([], fault)

    def _land(self, entries: Sequence[Outgoing]) -> Appended:
        ids = [self._server.append(entry) for entry in entries]
        self._connection.close_reply("append")
        self._server.confirm(self._name, entries, ids)
        return Appended(ids)

    def _give_up(self, entries: Sequence[Outgoing]) -> None:
        """A timeout: some entries have landed, the others are going to, whatever happens to this process."""
        server = self._server
        landed = server.random.randint(0, len(entries))
        for entry in entries[:landed]:
            server.append(entry)
        if landed < len(entries):
            due_ms = server.scheduler.now_ms + server.random.randint(0, server.late_ms)
            server.late.append(Late(due_ms, self._name, deque(entries[landed:])))
        self._connection.lose("the append timed out")

    def _cut(self, entries: Sequence[Outgoing]) -> Appended:
        """The server refuses one entry and is well again before the pipeline ends."""
        server = self._server
        refused = server.random.randrange(len(entries))
        ids = [server.append(entry) for entry in entries[:refused]]
        for entry in entries[refused + 1 :]:
            if server.chance(0.7):
                server.append(entry)
                server.hit("entry behind a refused one landed")
        self._connection.close_reply("append")
        server.confirm(self._name, entries, ids)
        return Appended(ids, LogUnavailable("out of memory"))


class SimulatedReader:
    """A worker's side of a shard's log."""

    def __init__(self, server: Server, shard: int, consumer: str) -> None:
        self._server = server
        self._shard = shard
        self._real: MemoryLogReader = server.log.reader(shard, consumer, self._wait)
        self._connection = Connection(server)
        self._delivered = EntryId(0, 0)

    def topology(self) -> Topology | None:
        return self._connection.request("topology", self._real.topology)

    def extent(self) -> Extent:
        return self._connection.request("extent", self._real.extent)

    def attach(self, checkpoint: EntryId) -> EntryId:
        self._delivered = self._connection.request(f"attach {checkpoint}", lambda: self._attach(checkpoint))
        if self._delivered > checkpoint:
            self._server.hit("attached behind what the group had delivered")
        return self._delivered

    def range(self, first: EntryId, last: EntryId, count: int) -> list[RawEntry]:
        found = self._connection.request(
            f"range {first} {last} {count}", lambda: self._real.range(first, last, count)
        )
        if found and first < last:
            self._server.hit("redelivered" if last <= self._delivered else "hole filled by range")
        return found

    def read(
        self, count: int, wait_ms: int, done: Sequence[EntryId], keep_from: EntryId | None
    ) -> list[RawEntry]:
        label = f"read {count}, done {len(done)}, keep from {keep_from}"
        return self._connection.request(label, lambda: self._read(count, wait_ms, done, keep_from))

    def bury(self, foreign: Foreign) -> None:
        self._connection.request(f"bury {foreign.id}", lambda: self._real.bury(foreign))
        self._server.changed()

    def announce(self, role: str) -> None:
        self._connection.request(f"announce {role}", lambda: self._real.announce(role))

    def _attach(self, checkpoint: EntryId) -> EntryId:
        delivered = self._real.attach(checkpoint)
        self._server.changed()
        return delivered

    def _read(
        self, count: int, wait_ms: int, done: Sequence[EntryId], keep_from: EntryId | None
    ) -> list[RawEntry]:
        """The commands of the pipeline take effect one after the other."""
        held = len(self._server.log.streams[self._shard].entries)
        self._real.read(0, 0, done, keep_from)
        if len(self._server.log.streams[self._shard].entries) < held:
            self._server.hit("trimmed")
        self._server.changed()
        self._connection.open("read goes on")
        entries = self._real.read(count, wait_ms, (), None) if count else []
        if entries:
            self._server.changed()
        return entries

    def _wait(self, milliseconds: int) -> None:
        self._server.scheduler.sleep(self._server.random.randint(1, milliseconds))
        self._connection.open("read waits")
