"""An operator's side of the log, and where entries stand in a journal with losses: each adapter, each shape."""

from collections.abc import Callable, Iterator
from contextlib import closing
from random import Random

import pytest

from hftpipe.core.entry import EntryId, Foreign
from hftpipe.log.keys import Keys
from hftpipe.log.memory import MemoryLog
from hftpipe.log.mending import RedisLogMender
from hftpipe.log.redis import RedisLogReader, RedisLogWriter
from hftpipe.ports import LogMender, LogReader, LogWriter, Outgoing, Topology
from hftpipe.store.places import Loss, Places
from tests.contract.test_log import Server, new_server

TOPOLOGY = Topology("mended", 2, 1, 1)
FIELDS = {b"x": b"1"}

Sides = tuple[LogMender, LogWriter, LogReader]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    yield from new_server()


def in_memory(_: Callable[[], Server]) -> Iterator[Sides]:
    log = MemoryLog(TOPOLOGY)
    log.topology = None
    yield log.mender(0), log.writer(), log.reader(0, "worker")


def on_redis(server: Callable[[], Server]) -> Iterator[Sides]:
    connect = server().connect
    with closing(connect()) as client:
        client.flushall()
    with (
        closing(RedisLogMender(connect, Keys(), 0)) as mender,
        closing(RedisLogWriter(connect, Keys(), TOPOLOGY)) as writer,
        closing(RedisLogReader(connect, Keys(), 0, "worker")) as reader,
    ):
        yield mender, writer, reader


@pytest.fixture(params=[in_memory, on_redis])
def sides(request: pytest.FixtureRequest) -> Iterator[Sides]:
    """Mender, producer and worker of one log that belongs to nothing yet."""
    yield from request.param(lambda: request.getfixturevalue("server"))


def append(writer: LogWriter) -> EntryId:
    (entry_id,) = writer.append([Outgoing(0, FIELDS)]).ids
    return entry_id


def test_an_empty_log_goes_on_behind_an_entry(sides: Sides) -> None:
    """Whether its key is there or not, with or without a group; and a worker attaches there."""
    mender, writer, reader = sides
    assert mender.begin_behind(EntryId(1, 41))
    assert mender.begin_behind(EntryId(1, 41))
    assert mender.extent().last == EntryId(1, 41)
    assert reader.attach(EntryId(1, 41)) == EntryId(1, 41)
    assert mender.begin_behind(EntryId(1, 50))
    assert append(writer) == EntryId(1, 51)
    assert [entry.id for entry in reader.read(9, 0, (), None)] == [EntryId(1, 51)]


def test_an_empty_log_whose_group_stands_lower_goes_on_without_a_backlog(sides: Sides) -> None:
    """Nobody will ever hand out what lies between."""
    mender, writer, reader = sides
    reader.attach(EntryId(1, -1))
    assert mender.begin_behind(EntryId(1, 41))
    assert reader.attach(EntryId(1, 41)) == EntryId(1, 41)
    assert writer.backlog(0) == 0


def test_a_log_that_holds_or_gave_more_is_left_alone(sides: Sides) -> None:
    """What somebody has appended meanwhile would have an id that nobody reads."""
    mender, writer, _ = sides
    append(writer)
    assert not mender.begin_behind(EntryId(1, 41))
    assert append(writer) == EntryId(1, 1)


def test_an_entry_is_appended_under_the_next_id_or_not_at_all(sides: Sides) -> None:
    """The second one comes too late."""
    mender, writer, _ = sides
    assert mender.append_as(EntryId(1, 0), FIELDS)
    assert not mender.append_as(EntryId(1, 0), {b"x": b"2"})
    assert append(writer) == EntryId(1, 1)
    assert [entry.fields for entry in mender.range(EntryId(1, 0), EntryId(1, 9), 9)] == [FIELDS] * 2


def test_a_pipeline_is_founded_again_once(sides: Sides) -> None:
    """Whoever wrote first holds."""
    mender, writer, _ = sides
    assert writer.topology() is None
    assert mender.found(TOPOLOGY) == TOPOLOGY
    assert mender.found(Topology("other", 2, 1, 1)) == TOPOLOGY


def test_a_loss_is_announced_to_producers(sides: Sides) -> None:
    """By a number that changes."""
    mender, writer, _ = sides
    assert writer.losses() == {}
    mender.announce_loss(7)
    assert writer.losses() == {0: 7}


def test_a_dead_letter_leaves_the_log(sides: Sides) -> None:
    """Also one that is not there."""
    mender, _, reader = sides
    mender.bury(Foreign(EntryId(1, 3), "why", FIELDS, ""))
    for _ in range(2):
        mender.unbury(EntryId(1, 3))
    assert reader.topology() is None


def test_producers_are_found_and_disconnected(server: Server) -> None:
    """By the name of their connections; what they say next fails, and they look what is there."""
    with (
        closing(RedisLogMender(server.connect, Keys(), 0)) as mender,
        closing(server.connect()) as producer,
    ):
        assert mender.producers() == []
        producer.client_setname("hft:ingest")
        mender.disconnect(mender.producers())
        assert mender.producers() == []
        assert mender.lowest_in_inbox() is None


# --- places -----------------------------------------------------------------------------------------------------


Span = tuple[int, int]
"""First and last sequence of the entries that a record is of."""


def journal(random: Random) -> tuple[list[Span], list[Loss], int]:
    """Records, those of losses, and how often sequences fall because the log had lost its tail."""
    records, losses, falls, last = [(0, 0)], list[Loss](), 0, 0
    for _ in range(random.randint(0, 25)):
        kind = random.choices(["entry", "loss", "unknown loss", "fall"], [7, 1, 1, 1])[0]
        falls += kind == "fall"
        first = random.randint(0, last) if kind in ("unknown loss", "fall") else last + 1
        last = first + (random.randint(0, 5) if kind == "loss" else 0)
        records.append((first, last))
        if "loss" in kind:
            losses.append(Loss(len(records), EntryId(1, first), EntryId(1, last)))
    return records, losses, falls


@pytest.mark.parametrize("seed", range(60))
def test_an_entry_is_found_behind_losses_and_falls(seed: int) -> None:
    """Its first place from before; some place from behind, where the journal ends at or behind it."""
    records, losses, falls = journal(Random(seed))
    places = Places(losses, falls)

    def entry_at(number: int) -> EntryId | None:
        return EntryId(1, records[number - 1][1]) if 1 <= number <= len(records) else None

    for sequence in range(max(last for _, last in records) + 2):
        there = [number for number, (first, last) in enumerate(records, 1) if first <= sequence <= last]
        found = places.find(EntryId(1, sequence), sequence + 1, entry_at)
        assert found == (there[0] if there else 0), (sequence, records)
        behind = places.find(EntryId(1, sequence), places.of(len(records)), entry_at)
        assert behind in there or records[-1][1] < sequence, (sequence, records)
