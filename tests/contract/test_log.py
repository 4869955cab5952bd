"""What every log guarantees, asked of each of them; and what a real server does when it is full, gone or wrong."""

import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

import fakeredis
import pytest
import redis

from hftpipe import embedded
from hftpipe.audit.log_check import AuditedLog
from hftpipe.core.entry import Entry, EntryId, Foreign, RawEntry, decode, encode, origin
from hftpipe.core.transaction import Batch
from hftpipe.errors import HftpipeError, LogForeign, LogUnavailable, ShardStopped
from hftpipe.log.connection import UrlEndpoint
from hftpipe.log.keys import GROUP, Keys
from hftpipe.log.memory import MemoryLog
from hftpipe.log.redis import RedisLogReader, RedisLogWriter, read_topology, write_topology
from hftpipe.ports import Extent, LogReader, LogWriter, Outgoing, Topology
from hftpipe.retention.reach import Reach, size_of
from hftpipe.retention.setting import Retention

TOPOLOGY = Topology("pipeline-1", 2, 1, 1)
KEYS = Keys()
WAIT_S = 20.0


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for: {what}"
        time.sleep(0.005)


# --- A server of our own --------------------------------------------------------------------------------------


class Server:
    """A real server on a unix socket, with the project's settings and a folder of its own."""

    def __init__(self, binary: Path, folder: Path) -> None:
        self._binary = binary
        self._folder = folder
        self._socket = folder / "redis.sock"
        self._endpoint = UrlEndpoint(f"unix://{self._socket}")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        overrides = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self._folder),
            "logfile": str(self._folder / "server.log"),
            "appendonly": "yes",
            "appendfsync": "always",
        }
        words = [word for name, value in overrides.items() for word in (f"--{name}", value)]
        self._process = subprocess.Popen(
            [self._binary, embedded.server_configuration(), *words], stdout=subprocess.DEVNULL
        )
        wait_for(
            lambda: embedded.knock(self._socket).health is embedded.Health.READY, "a server that answers"
        )

    def connect(self) -> "redis.Redis":
        return self._endpoint.connect("test")

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None


def new_server() -> Iterator[Server]:
    binary = embedded.server_binary()
    folder = Path(tempfile.mkdtemp(prefix="hft-"))  # short: the path of a socket has about 100 bytes at most
    server = Server(binary, folder)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def shared_server() -> Iterator[Server]:
    yield from new_server()


@pytest.fixture
def own_server() -> Iterator[Server]:
    """For tests that stop it or change its settings."""
    yield from new_server()


# --- One place to keep a log, three ways -------------------------------------------------------------------------


class Place(Protocol):
    """A log of two shards, and what only an operator or an accident does to it."""

    def writer(self) -> LogWriter: ...

    def reader(self, consumer: str, shard: int = 0) -> LogReader: ...

    def lose_group(self) -> None:
        """The consumer group of shard 0 is destroyed."""

    def lose_tail(self, last: EntryId) -> None:
        """Shard 0 goes back to that last entry, as after a failover; its group does not know."""

    def lose(self, *ids: EntryId) -> None:
        """Single entries of shard 0 vanish."""

    def consumers(self) -> dict[str, int]:
        """Entries pending by consumer of shard 0."""

    def dead(self) -> dict[EntryId, dict[bytes, bytes]]:
        """The dead letters of shard 0."""

    def close(self) -> None: ...


class MemoryPlace:
    """In memory."""

    def __init__(self) -> None:
        self._log = MemoryLog(TOPOLOGY)

    def writer(self) -> LogWriter:
        return self._log.writer()

    def reader(self, consumer: str, shard: int = 0) -> LogReader:
        return self._log.reader(shard, consumer)

    def lose_group(self) -> None:
        self._log.streams[0].group = None

    def lose_tail(self, last: EntryId) -> None:
        stream = self._log.streams[0]
        self.lose(*[entry_id for entry_id in stream.entries if entry_id > last])
        stream.last = last

    def lose(self, *ids: EntryId) -> None:
        for entry_id in ids:
            del self._log.streams[0].entries[entry_id]

    def consumers(self) -> dict[str, int]:
        group = self._log.streams[0].group
        assert group is not None
        pending = list(group.pending.values())
        return {consumer: pending.count(consumer) for consumer in {*group.consumers, *pending}}

    def dead(self) -> dict[EntryId, dict[bytes, bytes]]:
        return {entry_id: dict(fields) for entry_id, fields in self._log.streams[0].dead.items()}

    def close(self) -> None:
        pass


class RedisPlace:
    """On a server, real or not."""

    def __init__(self, connect: Callable[[], "redis.Redis"]) -> None:
        self.connect = connect
        self._opened: list[RedisLogWriter | RedisLogReader] = []
        self.client: Any = connect()
        self.client.flushall()
        write_topology(self.client, KEYS, TOPOLOGY)

    def writer(self) -> LogWriter:
        writer = RedisLogWriter(self.connect, KEYS, TOPOLOGY)
        self._opened.append(writer)
        return writer

    def reader(self, consumer: str, shard: int = 0) -> LogReader:
        reader = RedisLogReader(self.connect, KEYS, shard, consumer)
        self._opened.append(reader)
        return reader

    def lose_group(self) -> None:
        self.client.xgroup_destroy(KEYS.log(0), GROUP)

    def lose_tail(self, last: EntryId) -> None:
        # What a group holds is written after the entries, and is lost before them: only its position can be ahead.
        key = KEYS.log(0)
        (group,) = self.client.xinfo_groups(key)
        kept = self.client.xrange(key, max=str(last))
        self.client.delete(key)
        for entry_id, fields in kept:
            self.client.xadd(key, fields, id=entry_id)
        self.client.xgroup_create(key, GROUP, group["last-delivered-id"])

    def lose(self, *ids: EntryId) -> None:
        self.client.xdel(KEYS.log(0), *map(str, ids))

    def consumers(self) -> dict[str, int]:
        found = self.client.xinfo_consumers(KEYS.log(0), GROUP)
        return {consumer["name"].decode(): consumer["pending"] for consumer in found}

    def dead(self) -> dict[EntryId, dict[bytes, bytes]]:
        return {EntryId.parse(entry_id): fields for entry_id, fields in self.client.xrange(KEYS.dead(0))}

    def close(self) -> None:
        for each in self._opened:
            each.close()
        self.client.close()


def _memory(_: pytest.FixtureRequest) -> Place:
    return MemoryPlace()


def _fake(_: pytest.FixtureRequest) -> Place:
    server = fakeredis.FakeServer()
    return RedisPlace(lambda: fakeredis.FakeRedis(server=server, protocol=2))


def _real(request: pytest.FixtureRequest) -> Place:
    server: Server = request.getfixturevalue("shared_server")
    return RedisPlace(server.connect)


def opened(make: Callable[[pytest.FixtureRequest], Place], request: pytest.FixtureRequest) -> Iterator[Place]:
    place = make(request)
    yield place
    place.close()


@pytest.fixture(params=[_memory, _fake, _real], ids=["memory", "fake", "real"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    yield from opened(request.param, request)


@pytest.fixture(params=[_memory, _real], ids=["memory", "real"])
def exact_place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """Without the imitation: it cannot lose what a server can."""
    yield from opened(request.param, request)


@pytest.fixture
def real(request: pytest.FixtureRequest) -> Iterator[RedisPlace]:
    place = _real(request)
    assert isinstance(place, RedisPlace)
    yield place
    place.close()


def outgoing(number: int, shard: int = 0) -> Outgoing:
    fields = encode("source", number, Batch.of("D", [shard], [number], [5], [number + 1]), 0)
    return Outgoing(shard, fields)


def append(writer: LogWriter, count: int, shard: int = 0, start: int = 0) -> list[EntryId]:
    appended = writer.append([outgoing(start + number, shard) for number in range(count)])
    assert appended.fault is None
    return appended.ids


def ids(count: int, start: int = 0) -> list[EntryId]:
    return [EntryId(1, start + number) for number in range(count)]


def ids_of(entries: list[RawEntry]) -> list[EntryId]:
    return [entry.id for entry in entries]


def take(reader: LogReader, count: int = 1_000) -> list[EntryId]:
    """New entries, without waiting or acknowledging."""
    return ids_of(reader.read(count, 0, [], None))


# --- Append and look ------------------------------------------------------------------------------------------


def test_ids_are_dense_from_the_first_on(place: Place) -> None:
    """1-0, 1-1, 1-2, …: a gap cannot hide."""
    assert append(place.writer(), 3) == ids(3)
    assert append(place.writer(), 2) == ids(2, 3)


def test_ids_stay_dense_whoever_appends(place: Place) -> None:
    """Several writers take turns; each shard counts for itself."""
    one, two = place.writer(), place.writer()
    given = [append(writer, 1)[0] for writer in (one, two, two, one, two)]
    assert given == ids(5)
    assert append(two, 2, shard=1) == ids(2)


def test_ids_stay_dense_with_writers_at_once(real: RedisPlace) -> None:
    """Four writers in four threads, without any agreement between them."""
    writers = [real.writer() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        given = list(pool.map(lambda writer: append(writer, 50), writers))
    assert sorted(entry_id for batch in given for entry_id in batch) == ids(200)
    assert all(batch == sorted(batch) for batch in given)


def test_entries_are_kept_as_sent_and_in_the_order_sent(place: Place) -> None:
    """Shards mixed in one call; each keeps its own order, and every entry decodes."""
    writer = place.writer()
    sent = [outgoing(number, shard=number % 2) for number in range(6)]
    assert writer.append(sent).ids == [EntryId(1, number // 2) for number in range(6)]
    for shard in (0, 1):
        found = place.reader("one", shard).range(EntryId(1, 0), EntryId(1, 9), 9)
        assert [entry.fields for entry in found] == [out.fields for out in sent if out.shard == shard]
        assert all(isinstance(decode(entry, shard, 2), Entry) for entry in found)


def test_appending_nothing_changes_nothing(place: Place) -> None:
    """An empty call is answered like any other."""
    writer = place.writer()
    assert writer.append([]).ids == []
    assert writer.extent(0) == Extent(None, None)


def test_one_entry_is_fetched_by_its_id(place: Place) -> None:
    """Or None: beyond the end, in another shard, in a log that has nothing."""
    writer = place.writer()
    assert writer.fetch(0, EntryId(1, 0)) is None
    append(writer, 2)
    assert writer.fetch(0, EntryId(1, 1)) == RawEntry(EntryId(1, 1), outgoing(1).fields)
    assert writer.fetch(0, EntryId(1, 2)) is None
    assert writer.fetch(1, EntryId(1, 1)) is None


def test_the_extent_tells_the_first_entry_and_the_newest_id(place: Place) -> None:
    """Nothing, some, some trimmed, all trimmed: the newest id stays known."""
    writer, reader = place.writer(), place.reader("one")
    assert writer.extent(0) == reader.extent() == Extent(None, None)
    append(writer, 4)
    assert writer.extent(0) == reader.extent() == Extent(EntryId(1, 0), EntryId(1, 3))
    reader.attach(origin(1))
    reader.read(0, 0, [], EntryId(1, 2))
    assert writer.extent(0) == reader.extent() == Extent(EntryId(1, 2), EntryId(1, 3))
    reader.read(0, 0, [], EntryId(1, 4))
    assert writer.extent(0) == reader.extent() == Extent(None, EntryId(1, 3))
    assert writer.extent(1) == Extent(None, None)


def test_a_group_on_an_empty_log_does_not_make_an_entry(place: Place) -> None:
    """A worker may be there before the first producer."""
    reader = place.reader("one")
    assert reader.attach(origin(1)) == origin(1)
    assert reader.extent() == Extent(None, None)
    assert place.writer().backlog(0) == 0
    assert append(place.writer(), 1) == ids(1)
    assert take(reader) == ids(1)


def test_a_range_has_both_its_ends_and_at_most_so_many(place: Place) -> None:
    """In order; what is not there is left out."""
    append(place.writer(), 6)
    reader = place.reader("one")
    assert ids_of(reader.range(EntryId(1, 1), EntryId(1, 3), 10)) == ids(3, 1)
    assert ids_of(reader.range(EntryId(1, 1), EntryId(1, 5), 2)) == ids(2, 1)
    assert ids_of(reader.range(EntryId(1, 4), EntryId(1, 99), 10)) == ids(2, 4)
    assert reader.range(EntryId(1, 6), EntryId(1, 99), 10) == []
    assert reader.range(EntryId(1, 3), EntryId(1, 2), 10) == []


def test_a_range_has_a_hole_where_entries_are_missing(place: Place) -> None:
    """The worker sees it by the ids."""
    append(place.writer(), 4)
    place.lose(EntryId(1, 1))
    assert ids_of(place.reader("one").range(EntryId(1, 0), EntryId(1, 9), 9)) == [
        ids(4)[i] for i in (0, 2, 3)
    ]


# --- Backlog ---------------------------------------------------------------------------------------------------


def test_the_backlog_counts_what_is_not_acknowledged(place: Place) -> None:
    """Without a group, undelivered, delivered and pending, acknowledged, trimmed."""
    writer, reader = place.writer(), place.reader("one")
    assert writer.backlog(0) == 0
    append(writer, 5)
    assert writer.backlog(0) == 5
    reader.attach(origin(1))
    assert writer.backlog(0) == 5
    assert take(reader, 3) == ids(3)
    assert writer.backlog(0) == 5
    reader.read(0, 0, ids(2), None)
    assert writer.backlog(0) == 3
    reader.read(0, 0, [EntryId(1, 2)], EntryId(1, 2))
    assert writer.backlog(0) == 2
    take(reader)
    reader.read(0, 0, ids(2, 3), EntryId(1, 4))
    assert writer.backlog(0) == 0
    append(writer, 1)
    assert (writer.backlog(0), writer.backlog(1)) == (1, 0)


# --- Attach -----------------------------------------------------------------------------------------------------


def test_a_missing_group_is_made_at_the_checkpoint(place: Place) -> None:
    """Neither from the start, which would repeat all, nor at the end, which would miss some."""
    append(place.writer(), 5)
    reader = place.reader("one")
    assert reader.attach(EntryId(1, 2)) == EntryId(1, 2)
    assert take(reader) == ids(2, 3)


def test_a_missing_group_is_made_before_the_first_entry(place: Place) -> None:
    """The checkpoint of a new store is no entry, and nothing is missed."""
    append(place.writer(), 3)
    reader = place.reader("one")
    assert reader.attach(origin(1)) < EntryId(1, 0)
    assert take(reader) == ids(3)


def test_attaching_says_how_far_the_group_has_delivered(place: Place) -> None:
    """What lies between checkpoint and there must be read by range: the group hands it out no more."""
    append(place.writer(), 5)
    dead = place.reader("dead")
    dead.attach(origin(1))
    take(dead, 3)
    reader = place.reader("next")
    assert reader.attach(EntryId(1, 0)) == EntryId(1, 2)
    assert take(reader) == ids(2, 3)


def test_attaching_takes_over_what_is_pending_and_removes_the_others(place: Place) -> None:
    """Entries of two dead workers; what is at or below the checkpoint is acknowledged."""
    append(place.writer(), 9)
    for name, count in (("first", 3), ("second", 4)):
        reader = place.reader(name)
        reader.attach(origin(1))
        take(reader, count)
    reader = place.reader("third")
    reader.attach(EntryId(1, 1))
    assert place.consumers() == {"third": 5}
    reader.read(0, 0, ids(5, 2), None)
    assert place.consumers() == {"third": 0}
    assert place.writer().backlog(0) == 2


def test_attaching_again_changes_nothing(place: Place) -> None:
    """Any number of times, by the same worker."""
    append(place.writer(), 4)
    reader = place.reader("one")
    reader.attach(origin(1))
    take(reader, 3)
    assert [reader.attach(EntryId(1, 0)) for _ in range(3)] == [EntryId(1, 2)] * 3
    assert place.consumers() == {"one": 2}
    assert take(reader) == ids(1, 3)


def test_attaching_takes_over_more_than_a_page(place: Place) -> None:
    """Whatever a worker can leave behind."""
    append(place.writer(), 2_500)
    dead = place.reader("dead")
    dead.attach(origin(1))
    assert len(take(dead, 2_400)) == 2_400
    place.reader("next").attach(EntryId(1, 99))
    assert place.consumers() == {"next": 2_300}


def test_pending_entries_that_are_no_longer_there_are_forgotten(exact_place: Place) -> None:
    """More of them than a page: they would count as backlog, and keep their consumer alive, for ever."""
    place = exact_place
    append(place.writer(), 2_500)
    dead = place.reader("dead")
    dead.attach(origin(1))
    take(dead, 2_400)
    place.lose(*ids(2_200, 10))
    place.reader("next").attach(EntryId(1, 9))
    assert place.consumers() == {"next": 190}
    assert place.writer().backlog(0) == 290


def test_a_group_beyond_the_end_of_a_log_that_lost_its_tail_goes_back(place: Place) -> None:
    """Else what is appended from now on would hide behind the group's position."""
    writer = place.writer()
    append(writer, 6)
    reader = place.reader("one")
    reader.attach(origin(1))
    take(reader)
    reader.read(0, 0, ids(6), None)
    place.lose_tail(EntryId(1, 2))
    assert reader.attach(EntryId(1, 1)) == EntryId(1, 1)
    assert append(writer, 2, start=10) == ids(2, 3)
    assert take(reader) == ids(3, 2)


def test_what_is_not_above_the_checkpoint_counts_as_handed_out(exact_place: Place) -> None:
    """Behind a loss that was accepted there is nothing that could be: it would be backlog for ever."""
    place = exact_place
    writer, reader = place.writer(), place.reader("one")
    append(writer, 6)
    reader.attach(origin(1))
    take(reader, 1)
    place.lose(*ids(6))
    assert reader.attach(EntryId(1, 5)) == EntryId(1, 5)
    assert writer.backlog(0) == 0
    assert append(writer, 1, start=10) == ids(1, 6)
    assert take(reader) == ids(1, 6)


def test_a_lost_tail_that_was_appended_anew_before_anyone_looked_is_read_by_range(place: Place) -> None:
    """The group's position is within the log again, over entries that it has never handed out."""
    writer, reader = place.writer(), place.reader("one")
    append(writer, 6)
    reader.attach(origin(1))
    take(reader)
    reader.read(0, 0, ids(6), None)
    place.lose_tail(EntryId(1, 2))
    append(writer, 5, start=10)
    assert reader.attach(EntryId(1, 2)) == EntryId(1, 5)
    again = reader.range(EntryId(1, 3), EntryId(1, 5), 9)
    assert [entry.fields for entry in again] == [outgoing(number).fields for number in (10, 11, 12)]
    assert take(reader) == ids(2, 6)


def test_pending_entries_of_a_lost_tail_are_forgotten(place: Place) -> None:
    """The entries that get their ids are others."""
    writer = place.writer()
    append(writer, 1_500)
    dead = place.reader("dead")
    dead.attach(origin(1))
    take(dead, 1_400)
    place.lose_tail(EntryId(1, 2))
    reader = place.reader("next")
    reader.attach(EntryId(1, 2))
    assert place.consumers().get("dead") is None
    assert writer.backlog(0) == 0
    assert append(writer, 1, start=10) == ids(1, 3)
    assert take(reader) == ids(1, 3)


# --- Read -------------------------------------------------------------------------------------------------------


def test_a_read_hands_out_new_entries_once(place: Place) -> None:
    """At most so many, in order, with their fields; what was handed out does not come again."""
    append(place.writer(), 5)
    reader = place.reader("one")
    reader.attach(origin(1))
    found = reader.read(2, 0, [], None)
    assert found == [RawEntry(EntryId(1, number), outgoing(number).fields) for number in range(2)]
    assert take(reader) == ids(3, 2)
    assert take(reader) == []


def test_a_read_acknowledges_and_trims_first(place: Place) -> None:
    """What is below `keep_from` goes, `keep_from` itself stays; what is not acknowledged stays pending."""
    append(place.writer(), 6)
    reader = place.reader("one")
    reader.attach(origin(1))
    take(reader, 4)
    assert ids_of(reader.read(1, 0, ids(3), EntryId(1, 2))) == ids(1, 4)
    assert reader.extent().first == EntryId(1, 2)
    assert place.consumers() == {"one": 2}


def test_a_read_of_none_only_acknowledges(place: Place) -> None:
    """The last one of a worker that ends."""
    append(place.writer(), 3)
    reader = place.reader("one")
    reader.attach(origin(1))
    take(reader, 2)
    assert reader.read(0, 0, ids(2), origin(1)) == []
    assert reader.extent().first == EntryId(1, 0)
    assert place.consumers() == {"one": 0}
    assert take(reader) == ids(1, 2)


@pytest.mark.parametrize("keep_from", [None, origin(1), EntryId(1, -1_000), EntryId(1, 0)])
def test_nothing_is_trimmed_before_there_is_more_than_is_retained(
    place: Place, keep_from: EntryId | None
) -> None:
    """The first checkpoints lie below the number of entries to retain."""
    append(place.writer(), 3)
    reader = place.reader("one")
    reader.attach(origin(1))
    reader.read(0, 0, [], keep_from)
    assert reader.extent().first == EntryId(1, 0)


def test_how_far_back_a_log_is_kept_can_be_asked_of_it(place: Place) -> None:
    """By the times of its entries, by their bytes, and by both; also where it was trimmed before."""
    batches = [
        (Batch.of("D", [0], [row], [5], [row]), 1_000 * row) for row in range(1, 101)
    ]  # one a second, from second 1 to 100
    writer, reader, last = place.writer(), place.reader("one"), EntryId(1, 99)
    writer.append(
        [Outgoing(0, encode("source", row - 1, batch, ms)) for row, (batch, ms) in enumerate(batches, 1)]
    )
    reader.attach(last)
    size = size_of(reader.range(last, last, 1)[0].fields)

    def floor(retention: Retention) -> int:
        reach = Reach(retention, reader, StoppedClock(), last)
        reach.look()
        keep_from = reach.trim_to(last)
        assert keep_from is not None
        return keep_from.sequence

    assert floor(Retention()) == 0
    assert floor(Retention(age_ms=20_000)) == 76
    assert 85 <= floor(Retention(size_bytes=10 * size)) <= 90
    assert floor(Retention(entries=50, age_ms=20_000)) == 76
    reader.read(0, 0, [], EntryId(1, 60))
    assert floor(Retention(age_ms=20_000)) == 76
    assert floor(Retention(age_ms=90_000)) == 60


class StoppedClock:
    """Hours behind the last entry."""

    def monotonic_ms(self) -> int:
        return 7

    def unix_ms(self) -> int:
        return 10_000_000

    def sleep_ms(self, milliseconds: int) -> None:
        raise AssertionError(f"nobody waits {milliseconds} ms here")


def test_acknowledging_twice_or_what_is_unknown_changes_nothing(place: Place) -> None:
    """A worker may repeat it after any fault."""
    append(place.writer(), 3)
    reader = place.reader("one")
    reader.attach(origin(1))
    take(reader)
    for _ in range(2):
        reader.read(0, 0, [EntryId(1, 0), EntryId(1, 77)], None)
    assert place.consumers() == {"one": 2}


def test_waiting_for_an_entry_ends(place: Place) -> None:
    """With nothing, after the time given."""
    reader = place.reader("one")
    reader.attach(origin(1))
    assert reader.read(10, 20, [], None) == []


def test_a_waiting_read_gets_what_is_appended_meanwhile(real: RedisPlace) -> None:
    """At once, not when its time is over."""
    reader, writer = real.reader("one"), real.writer()
    reader.attach(origin(1))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(reader.read, 10, 15_000, [], None)
        wait_for(lambda: real.client.info("clients")["blocked_clients"] == 1, "a reader that waits")
        append(writer, 1)
        assert ids_of(waiting.result(timeout=10)) == ids(1)


def test_two_readers_never_get_the_same_entry(place: Place) -> None:
    """A stalled worker and its successor, for as long as both read."""
    append(place.writer(), 4)
    one, two = place.reader("one"), place.reader("two")
    one.attach(origin(1))
    assert take(one, 1) + take(two, 2) + take(one, 1) == ids(4)


def test_a_group_that_is_gone_is_a_passing_fault_and_attaching_mends_it(place: Place) -> None:
    """After FLUSHALL, XGROUP DESTROY, or a restart without its file."""
    append(place.writer(), 4)
    reader = place.reader("one")
    reader.attach(origin(1))
    take(reader, 2)
    place.lose_group()
    with pytest.raises(LogUnavailable, match="group"):
        reader.read(10, 0, ids(1), None)
    assert reader.attach(EntryId(1, 1)) == EntryId(1, 1)
    assert take(reader) == ids(2, 2)


def test_a_group_destroyed_while_a_read_waits_is_a_passing_fault(real: RedisPlace) -> None:
    """The server wakes the reader with an error."""
    reader = real.reader("one")
    reader.attach(origin(1))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(reader.read, 10, 15_000, [], None)
        wait_for(lambda: real.client.info("clients")["blocked_clients"] == 1, "a reader that waits")
        real.lose_group()
        with pytest.raises(LogUnavailable):
            waiting.result(timeout=10)
    reader.attach(origin(1))


# --- Dead letters, advice, topology -----------------------------------------------------------------------------


def foreign(sequence: int, fields: dict[bytes, bytes]) -> Foreign:
    entry = decode(RawEntry(EntryId(1, sequence), fields), 0, 2)
    assert isinstance(entry, Foreign)
    return entry


def test_a_foreign_entry_is_buried_under_its_own_id_with_the_reason(place: Place) -> None:
    """And all its fields, whatever bytes they hold."""
    reader = place.reader("one")
    reader.bury(foreign(3, {b"hello": b"\xff\x00", b"": b""}))
    expected = {b"reason": b"missing field b", b"hello": b"\xff\x00", b"": b""}
    assert place.dead() == {EntryId(1, 3): expected}


def test_burying_again_changes_nothing(place: Place) -> None:
    """A worker repeats it after a crash, and after others were buried behind it."""
    reader = place.reader("one")
    letters = [foreign(3, {b"a": b"1"}), foreign(5, {b"b": b"2"})]
    for letter in (letters[0], letters[0], letters[1], letters[0]):
        reader.bury(letter)
    assert list(place.dead()) == [EntryId(1, 3), EntryId(1, 5)]


def test_the_reason_is_ours_whatever_the_entry_says(place: Place) -> None:
    """A field called `reason` does not take its place."""
    place.reader("one").bury(foreign(0, {b"reason": b"all is well"}))
    assert place.dead()[EntryId(1, 0)][b"reason"] == b"missing field b"


def test_an_audit_sees_the_group_and_the_dead_letters(place: Place) -> None:
    """And changes neither: page by page, above an id."""
    append(place.writer(), 3)
    reader = place.reader("one")
    looking = cast("AuditedLog", reader)
    assert looking.group() is None
    reader.attach(origin(1))
    reader.read(2, 0, [], None)
    assert looking.group() == (EntryId(1, 1), 2)
    for sequence in (0, 3, 5):
        reader.bury(foreign(sequence, {b"a": b"1"}))
    above, found = EntryId(0, -1), []
    while page := looking.buried(above, 2):
        found += page
        above = page[-1].id
    assert {entry.id: dict(entry.fields) for entry in found} == place.dead()
    assert [entry.id.sequence for entry in found] == [0, 3, 5]


def test_advice_comes_back_as_it_was_noted(place: Place) -> None:
    """By source and shard, the last one each."""
    writer = place.writer()
    assert writer.advice("one") == {}
    writer.note("one", {0: b"first", 1: b"\xff\x00"})
    writer.note("one", {0: b"second"})
    writer.note("größe\n.csv", {1: b""})
    assert place.writer().advice("one") == {0: b"second", 1: b"\xff\x00"}
    assert writer.advice("größe\n.csv") == {1: b""}
    writer.note("one", {})
    assert writer.advice("two") == {}


def test_both_sides_know_the_topology(place: Place) -> None:
    """What was written when the pipeline began."""
    assert place.writer().topology() == TOPOLOGY
    assert place.reader("one").topology() == TOPOLOGY


def test_announcing_is_harmless_and_repeatable(place: Place) -> None:
    """It only shows in `status`."""
    reader = place.reader("one")
    for role in ("standby", "standby", "owner"):
        reader.announce(role)
    assert reader.extent() == Extent(None, None)


def test_an_announced_role_is_shown_by_the_server(real: RedisPlace) -> None:
    """As the name of the connection."""
    real.reader("one", shard=1).announce("owner")
    assert "hft:owner:1" in {client["name"] for client in real.client.client_list()}


def test_a_topology_half_written_is_none_yet(real: RedisPlace) -> None:
    """A creator that was stopped in between: the next one completes it."""
    real.client.delete(KEYS.topology)
    assert real.writer().topology() is None
    real.client.hset(KEYS.topology, "pipeline", "half")
    assert real.writer().topology() is None
    assert write_topology(real.client, KEYS, TOPOLOGY) == Topology("half", 2, 1, 1)


def test_two_creators_with_different_wishes_end_with_one_topology(real: RedisPlace) -> None:
    """At once, many times over: both are told the same, and it is what is there."""
    wishes = [Topology("one", 2, 1, 1), Topology("two", 8, 1, 1)]
    clients = [real.connect(), real.connect()]
    with ThreadPoolExecutor(2) as pool:
        for _ in range(50):
            real.client.delete(KEYS.topology)
            told = list(
                pool.map(
                    lambda pair: write_topology(pair[0], KEYS, pair[1]), zip(clients, wishes, strict=True)
                )
            )
            assert told[0] == told[1] == read_topology(real.client, KEYS)
    for client in clients:
        client.close()


@pytest.mark.parametrize("value", ["", "two", "2.0"])
def test_a_topology_that_cannot_be_read_is_none(real: RedisPlace, value: str) -> None:
    """No number is guessed."""
    real.client.hset(KEYS.topology, "shards", value)
    assert real.reader("one").topology() is None


# --- What a real server does -----------------------------------------------------------------------------------


def test_a_key_of_another_type_stops_the_shard(real: RedisPlace) -> None:
    """Waiting does not help, and nothing of it is touched."""
    real.client.set(KEYS.log(0), "something else")
    reader = real.reader("one")
    uses: list[Callable[[], object]] = [
        reader.extent,
        lambda: reader.attach(origin(1)),
        lambda: reader.range(EntryId(1, 0), EntryId(1, 9), 9),
        lambda: reader.read(1, 0, ids(1), EntryId(1, 1)),
    ]
    for use in uses:
        with pytest.raises(ShardStopped) as stop:
            use()
        assert isinstance(stop.value, LogForeign)
    assert real.client.get(KEYS.log(0)) == b"something else"


def test_a_key_of_another_type_is_a_clear_error_to_a_producer(real: RedisPlace) -> None:
    """No passing fault: it would try for ever."""
    real.client.set(KEYS.log(0), "something else")
    writer = real.writer()
    for use in (lambda: append(writer, 1), lambda: writer.extent(0), lambda: writer.backlog(0)):
        with pytest.raises(HftpipeError, match="WRONGTYPE") as error:
            use()
        assert not isinstance(error.value, LogUnavailable)


def test_a_full_server_confirms_what_it_took_and_goes_on_when_there_is_room(own_server: Server) -> None:
    """OOM is a passing fault behind the confirmed entries; reading and trimming still work."""
    place = RedisPlace(own_server.connect)
    writer, reader = place.writer(), place.reader("one")
    append(writer, 3)
    reader.attach(origin(1))
    large = Outgoing(0, {b"large": b"x" * 200_000})
    place.client.config_set("maxmemory", place.client.info("memory")["used_memory"] + 5_000_000)
    appended = writer.append([large] * 100)
    assert isinstance(appended.fault, LogUnavailable)
    assert 0 < len(appended.ids) < 100
    assert appended.ids == ids(len(appended.ids), 3)
    assert place.client.xlen(KEYS.log(0)) == 3 + len(appended.ids)

    place.client.config_set("maxmemory", 1)
    refused = writer.append([outgoing(9)])
    assert refused.ids == []
    assert isinstance(refused.fault, LogUnavailable)
    with pytest.raises(LogUnavailable):
        writer.note("source", {0: b"advice"})
    with pytest.raises(LogUnavailable):
        reader.bury(foreign(0, {b"a": b"1"}))
    assert take(reader, 3) == ids(3)
    reader.read(0, 0, ids(3), appended.ids[-1].moved(1))
    assert reader.extent() == Extent(None, appended.ids[-1])

    place.client.config_set("maxmemory", 0)
    assert append(writer, 1) == [appended.ids[-1].moved(1)]
    place.close()


def test_a_server_that_is_gone_is_a_passing_fault_everywhere_and_is_found_again(own_server: Server) -> None:
    """Killed without warning and started again: what was confirmed is there, and every method works."""
    place = RedisPlace(own_server.connect)
    writer, reader = place.writer(), place.reader("one")
    append(writer, 3)
    reader.attach(origin(1))
    assert take(reader, 2) == ids(2)
    own_server.kill()

    uses: list[Callable[[], object]] = [
        writer.topology,
        lambda: writer.fetch(0, EntryId(1, 0)),
        lambda: writer.extent(0),
        lambda: writer.backlog(0),
        lambda: writer.note("source", {0: b"advice"}),
        lambda: writer.advice("source"),
        reader.topology,
        reader.extent,
        lambda: reader.attach(origin(1)),
        lambda: reader.range(EntryId(1, 0), EntryId(1, 2), 9),
        lambda: reader.read(1, 0, ids(1), None),
        lambda: reader.read(1, 50, [], None),
        lambda: reader.bury(foreign(0, {b"a": b"1"})),
        lambda: reader.announce("owner"),
    ]
    for use in uses * 2:  # the first of each side breaks a connection, the others find none
        with pytest.raises(LogUnavailable):
            use()
    failed = writer.append([outgoing(3)])
    assert failed.ids == []
    assert isinstance(failed.fault, LogUnavailable)

    own_server.start()
    for use in uses:
        use()
    assert reader.attach(EntryId(1, 0)) >= EntryId(1, 1)
    assert append(writer, 1, start=3) == ids(1, 3)
    assert reader.extent() == Extent(EntryId(1, 0), EntryId(1, 3))
    place.close()


def test_each_method_notices_a_connection_that_broke(own_server: Server) -> None:
    """A server that restarted is never taken for the one before without a fault in between."""
    place = RedisPlace(own_server.connect)
    uses: list[Callable[[], object]] = [
        place.writer().topology,
        partial(place.writer().fetch, 0, EntryId(1, 0)),
        partial(place.writer().extent, 0),
        partial(place.reader("one").range, EntryId(1, 0), EntryId(1, 1), 1),
        place.reader("one").extent,
    ]
    for use in uses:
        use()
    writer = place.writer()
    append(writer, 1)
    own_server.kill()
    own_server.start()
    for use in uses:
        with pytest.raises(LogUnavailable):
            use()
        use()
    assert isinstance(writer.append([outgoing(1)]).fault, LogUnavailable)
    assert append(writer, 1, start=1) == ids(1, 1)
    place.close()
