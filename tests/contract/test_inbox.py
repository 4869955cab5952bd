"""What every inbox guarantees its validators, asked of each of them; and what a real server does to one."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import fakeredis
import pytest
import redis

from hftpipe.core.entry import EntryId
from hftpipe.errors import LogForeign, LogUnavailable
from hftpipe.log.inbox import InboxStatus, RedisInbox, inspect_inbox
from hftpipe.log.keys import INBOX_GROUP, Keys
from hftpipe.log.memory import MemoryInbox
from hftpipe.ports import Inbox, InboxEntry, Rejection
from tests.contract.test_log import Server, new_server, wait_for

KEYS = Keys()
NOTHING = EntryId(0, 0)
LEASE_MS = 200
REPORTS_MAX = 5


@pytest.fixture(scope="module")
def shared_server() -> Iterator[Server]:
    yield from new_server()


@pytest.fixture
def own_server() -> Iterator[Server]:
    """For tests that stop it or change its settings."""
    yield from new_server()


class Place(Protocol):
    """An inbox, and what its clients and accidents do to it."""

    def validator(self, owner: str = "one") -> Inbox: ...

    def add(self, *fields: bytes, entry_id: EntryId | None = None) -> EntryId:
        """A client adds an entry."""

    def reports(self) -> list[tuple[str, str]]:
        """Id and reason of each report that is kept."""

    def reports_ever(self) -> int: ...

    def close(self) -> None: ...


class MemoryPlace:
    """In memory."""

    def __init__(self) -> None:
        self._inbox = MemoryInbox(lambda: time.monotonic_ns() // 1_000_000)

    def validator(self, owner: str = "one") -> Inbox:
        return self._inbox.reader(owner, lease_ms=LEASE_MS, reports_max=REPORTS_MAX)

    def add(self, *fields: bytes, entry_id: EntryId | None = None) -> EntryId:
        return self._inbox.add(*fields, entry_id=entry_id)

    def reports(self) -> list[tuple[str, str]]:
        return [(str(report.id), report.reason) for report in self._inbox.reports.values()]

    def reports_ever(self) -> int:
        return self._inbox.reports_ever

    def close(self) -> None:
        pass


class RedisPlace:
    """On a server, real or not."""

    def __init__(self, connect: Callable[[], "redis.Redis"]) -> None:
        self.connect = connect
        self._opened: list[RedisInbox] = []
        self.client: Any = connect()
        self.client.flushall()

    def validator(self, owner: str = "one") -> RedisInbox:
        self._opened.append(RedisInbox(self.connect, KEYS, owner, lease_ms=LEASE_MS, reports_max=REPORTS_MAX))
        return self._opened[-1]

    def add(self, *fields: bytes, entry_id: EntryId | None = None) -> EntryId:
        given = "*" if entry_id is None else str(entry_id)
        return EntryId.parse(self.client.execute_command("XADD", KEYS.inbox, given, *fields))

    def reports(self) -> list[tuple[str, str]]:
        return [
            (fields[b"id"].decode(), fields[b"reason"].decode())
            for _, fields in self.client.xrange(KEYS.invalid)
        ]

    def reports_ever(self) -> int:
        ever: int = self.client.xinfo_stream(KEYS.invalid)["entries-added"]
        return ever

    def pending(self) -> dict[str, int]:
        """Entries pending by consumer."""
        found = self.client.xinfo_consumers(KEYS.inbox, INBOX_GROUP)
        return {consumer["name"].decode(): consumer["pending"] for consumer in found}

    def close(self) -> None:
        for each in self._opened:
            each.close()
        self.client.close()


def _memory(_: pytest.FixtureRequest) -> Place:
    return MemoryPlace()


def _fake(_: pytest.FixtureRequest) -> Place:
    server = fakeredis.FakeServer()
    return RedisPlace(lambda: fakeredis.FakeRedis(server=server, protocol=2))


def _real(request: pytest.FixtureRequest) -> RedisPlace:
    server: Server = request.getfixturevalue("shared_server")
    return RedisPlace(server.connect)


@pytest.fixture(params=[_memory, _fake, _real], ids=["memory", "fake", "real"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    place = request.param(request)
    yield place
    place.close()


@pytest.fixture(params=[_memory, _real], ids=["memory", "real"])
def exact_place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """Without the imitation: it does not count reports that were trimmed, and cannot raise a stream's newest id."""
    place = request.param(request)
    yield place
    place.close()


@pytest.fixture
def real(request: pytest.FixtureRequest) -> Iterator[RedisPlace]:
    place = _real(request)
    yield place
    place.close()


def add(place: Place, count: int) -> list[EntryId]:
    return [place.add(b"tx", b"%d" % number) for number in range(count)]


def attached(place: Place, owner: str = "one") -> Inbox:
    inbox = place.validator(owner)
    assert inbox.attach(NOTHING).removed == 0
    return inbox


def ids_of(entries: Sequence[InboxEntry]) -> list[EntryId]:
    return [entry.id for entry in entries]


def drained(inbox: Inbox, *, count: int = 100, pages_max: int = 100) -> list[EntryId]:
    """What is taken and done, page by page, until nothing is left or so many pages were."""
    found: list[EntryId] = []
    page: list[InboxEntry] = []
    for _ in range(pages_max):
        page = inbox.read(count, 0, page)
        found += ids_of(page)
        if not page:
            break
    inbox.read(0, 0, page)
    return found


def taken(inbox: Inbox, count: int = 100, done: Sequence[InboxEntry] = ()) -> list[EntryId]:
    return ids_of(inbox.read(count, 0, done))


def rejection(entry_id: EntryId, reason: str = "bad_amount", *, keeps_id: bool = True) -> Rejection:
    return Rejection(entry_id, "amount", reason, "[]", keeps_id=keeps_id)


# --- reading --------------------------------------------------------------------------------------------------


def test_entries_come_as_they_were_written_in_the_order_of_their_ids(place: Place) -> None:
    """Names that are repeated too, whatever the bytes."""
    first = place.add(b"tx", b"1", b"tx", b"2", b"\xff", b"")
    second = place.add(b"a", b"b")
    entries = attached(place).read(10, 0, [])
    assert [(entry.id, list(entry.fields)) for entry in entries] == [
        (first, [b"tx", b"1", b"tx", b"2", b"\xff", b""]),
        (second, [b"a", b"b"]),
    ]


def test_an_inbox_that_is_not_there_yet_is_empty(place: Place) -> None:
    """A validator may be there before the first client."""
    inbox = attached(place)
    assert inbox.is_empty()
    assert taken(inbox) == []
    added = add(place, 2)
    assert not inbox.is_empty()
    assert taken(inbox) == added


def test_what_is_done_does_not_come_again_and_leaves_nothing(place: Place) -> None:
    """For nobody; the next ones come at once."""
    added = add(place, 7)
    inbox = attached(place)
    first = inbox.read(3, 0, [])
    second = inbox.read(3, 0, first)
    assert ids_of(first) + ids_of(second) == added[:6]
    assert inbox.read(0, 0, second) == []
    assert taken(attached(place, "two")) == added[6:]
    assert not inbox.is_empty()
    assert taken(inbox, done=inbox.read(1, 0, [])) == []
    assert inbox.is_empty()


def test_what_is_not_done_comes_again_to_whoever_attaches(place: Place) -> None:
    """Before what is new, and page by page."""
    added = add(place, 8)
    inbox = attached(place)
    inbox.read(3, 0, inbox.read(2, 0, []))
    assert drained(attached(place, "one"), count=2, pages_max=1) == added[2:4]
    added += add(place, 2)
    assert drained(attached(place, "two"), count=2) == added[4:]


def test_no_validator_sees_an_entry_while_a_lower_one_is_undone(place: Place) -> None:
    """Two of them at once, which each believe to be the only one: both begin with the lowest."""
    one, two = attached(place, "one"), attached(place, "two")
    undone = add(place, 12)
    hands: dict[int, list[InboxEntry]] = {0: [], 1: []}
    for turn in (0, 1, 0, 1, 1, 0, 0, 0, 1, 0, 1, 1, 0, 1):
        done = hands[turn]
        undone = [entry_id for entry_id in undone if not done or entry_id > done[-1].id]
        hands[turn] = (one, two)[turn].read(3, 0, done)
        assert ids_of(hands[turn]) == undone[: len(hands[turn])]
        assert hands[turn] or not undone
        undone += add(place, 1)


def test_a_validator_that_wakes_late_removes_only_what_it_has_done(place: Place) -> None:
    """What another one has read since stays."""
    added = add(place, 4)
    late, other = attached(place, "late"), attached(place, "other")
    old = late.read(2, 0, [])
    assert ids_of(other.read(4, 0, [])) == added
    late.read(0, 0, old)
    assert taken(attached(place, "third")) == added[2:]


def test_ids_stay_above_what_was_done_when_the_inbox_was_removed(exact_place: Place) -> None:
    """Even with the clock of its server set back: below, they would count as applied before."""
    floor = EntryId(1 << 42, 7)
    inbox = exact_place.validator()
    assert inbox.attach(floor).removed == 0
    added = exact_place.add(b"tx", b"1")
    assert added > floor
    assert taken(inbox) == [added]


# --- reports --------------------------------------------------------------------------------------------------


def test_a_report_is_made_once_however_often_it_is_repeated(place: Place) -> None:
    """Under the entry's own id."""
    added = add(place, 3)
    inbox = attached(place)
    inbox.read(3, 0, [])
    for _ in range(3):
        inbox.reject([rejection(added[0]), rejection(added[2], "bad_tx")])
    assert place.reports() == [(str(added[0]), "bad_amount"), (str(added[2]), "bad_tx")]


def test_reports_without_an_id_of_their_own_are_made_once_too(place: Place) -> None:
    """Those of entries whose ids are no positions; the ids of others stay free."""
    added = add(place, 3)
    inbox = attached(place)
    inbox.read(3, 0, [])
    for _ in range(3):
        inbox.reject([rejection(added[2], "bad_id", keeps_id=False)])
    inbox.reject([rejection(added[0])])
    assert sorted(place.reports()) == [(str(added[0]), "bad_amount"), (str(added[2]), "bad_id")]


def test_an_entry_that_is_done_was_reported(place: Place) -> None:
    """By another validator, whose report may be trimmed by now."""
    added = add(place, 2)
    late, other = attached(place, "late"), attached(place, "other")
    late.read(2, 0, [])
    entries = other.read(2, 0, [])
    other.reject([rejection(added[1])])
    other.read(0, 0, entries)
    late.reject([rejection(added[0]), rejection(added[1])])
    assert place.reports() == [(str(added[1]), "bad_amount")]


def test_the_newest_reports_stay_and_all_are_counted(exact_place: Place) -> None:
    """Bounded, and nothing is invalid without being told."""
    added = add(exact_place, 2 * REPORTS_MAX)
    inbox = attached(exact_place)
    inbox.read(100, 0, [])
    inbox.reject([rejection(entry_id) for entry_id in added])
    assert [entry_id for entry_id, _ in exact_place.reports()] == list(map(str, added[REPORTS_MAX:]))
    assert exact_place.reports_ever() == 2 * REPORTS_MAX


# --- lease ------------------------------------------------------------------------------------------------------


def test_one_validator_at_a_time_has_the_lease(place: Place) -> None:
    """It keeps it as long as it says so, and gives it up at once."""
    one, two = place.validator("one"), place.validator("two")
    assert one.own()
    assert one.own()
    assert not two.own()
    two.release()
    assert one.own()
    one.release()
    assert two.own()
    assert not one.own()


def test_a_lease_that_is_not_renewed_runs_out(place: Place) -> None:
    """Then another validator gets it."""
    one, two = place.validator("one"), place.validator("two")
    assert one.own()
    wait_for(two.own, "the end of the lease")
    assert not one.own()


# --- a real server -----------------------------------------------------------------------------------------------


def test_entries_of_dead_validators_are_shown_as_those_of_the_living(real: RedisPlace) -> None:
    """Those are gone from the group, and nothing stays pending for ever."""
    for owner in ("a", "b"):
        inbox = attached(real, owner)
        add(real, 2)
        inbox.read(4, 0, [])
    inbox = attached(real, "c")
    assert real.pending() == {"c": 2}
    assert len(drained(inbox)) == 4
    assert real.pending() == {"c": 0}


def test_entries_that_a_client_removed_are_told(real: RedisPlace) -> None:
    """They were in hand, and were never done."""
    added = add(real, 3)
    attached(real).read(3, 0, [])
    real.client.xdel(KEYS.inbox, str(added[1]))
    inbox = real.validator("two")
    assert inbox.attach(NOTHING).removed == 1
    assert taken(inbox) == [added[0], added[2]]
    assert real.pending() == {"two": 2}


def test_a_group_that_is_gone_is_made_anew(real: RedisPlace) -> None:
    """From the beginning: what is done is there no longer."""
    added = add(real, 3)
    inbox = attached(real)
    page = inbox.read(1, 0, [])
    inbox.read(0, 0, page)
    real.client.xgroup_destroy(KEYS.inbox, INBOX_GROUP)
    with pytest.raises(LogUnavailable, match="group is gone"):
        inbox.read(10, 0, [])
    inbox.attach(NOTHING)
    assert taken(inbox) == added[1:]


@pytest.mark.parametrize("position", ["$", "18446744073709551615-1"])
def test_a_group_that_was_set_forward_hides_nothing(real: RedisPlace, position: str) -> None:
    """By an operator, or because the stream lost its tail."""
    inbox = attached(real)
    added = add(real, 2)
    real.client.xgroup_setid(KEYS.inbox, INBOX_GROUP, position)
    assert taken(inbox) == added
    more = add(real, 1)
    assert drained(attached(real, "two"), count=1) == added + more


def test_a_read_waits_for_the_first_entry(real: RedisPlace) -> None:
    """But not longer than it was told to."""
    inbox = attached(real)
    began = time.monotonic()
    assert inbox.read(10, 60, []) == []
    assert time.monotonic() - began > 0.05
    added = add(real, 1)
    assert ids_of(inbox.read(10, 10_000, [])) == added


def test_an_entry_with_the_last_id_of_all_is_removed_too(real: RedisPlace) -> None:
    """Nothing can be added behind it."""
    last = EntryId(2**64 - 1, 2**64 - 1)
    real.add(b"a", b"b", entry_id=EntryId(5, 5))
    real.add(b"a", b"b", entry_id=last)
    inbox = attached(real)
    entries = inbox.read(10, 0, [])
    inbox.reject([rejection(last, "bad_id", keeps_id=False)])
    assert inbox.read(10, 0, entries) == []
    assert inbox.is_empty()
    assert real.reports() == [(str(last), "bad_id")]


def test_a_report_that_was_overtaken_is_made_under_another_id(real: RedisPlace) -> None:
    """An attempt that failed half-way: the first was refused, the second was not."""
    added = add(real, 3)
    inbox = attached(real)
    inbox.read(3, 0, [])
    inbox.reject([rejection(added[1])])
    for _ in range(2):
        inbox.reject([rejection(entry_id) for entry_id in added])
    assert sorted(entry_id for entry_id, _ in real.reports()) == list(map(str, added))


@pytest.mark.parametrize("key", [KEYS.inbox, KEYS.inbox_owner, KEYS.invalid])
def test_a_key_of_another_type_is_named(real: RedisPlace, key: str) -> None:
    """With what to do."""
    added = add(real, 1) if key != KEYS.inbox else [EntryId(1, 1)]
    real.client.delete(key)
    real.client.rpush(key, "something")
    inbox = real.validator()

    def work() -> None:
        inbox.own()
        inbox.attach(NOTHING)
        inbox.read(1, 0, [])
        inbox.reject([rejection(added[0])])

    with pytest.raises(LogForeign, match=rf"^{key} cannot be used: .*Rename or remove"):
        work()


def test_a_full_server_lets_a_lease_be_renewed_and_entries_be_removed(own_server: Server) -> None:
    """And refuses reports, as a fault that passes."""
    place = RedisPlace(own_server.connect)
    inbox = attached(place)
    added = add(place, 2)
    assert inbox.own()
    entries = inbox.read(2, 0, [])
    place.client.config_set("maxmemory", 1)
    assert inbox.own()
    with pytest.raises(LogUnavailable, match="OOM"):
        inbox.reject([rejection(added[0])])
    assert inbox.attach(NOTHING).removed == 0
    assert inbox.read(2, 0, entries) == []
    place.client.config_set("maxmemory", 0)
    place.close()


def test_a_connection_that_broke_is_told_and_made_anew(own_server: Server) -> None:
    """What was in hand comes again."""
    place = RedisPlace(own_server.connect)
    added = add(place, 2)
    inbox = attached(place)
    inbox.read(2, 0, [])
    own_server.kill()
    with pytest.raises(LogUnavailable):
        inbox.read(1, 0, [])
    own_server.start()
    inbox.attach(NOTHING)
    assert taken(inbox) == added
    place.close()


def test_the_inbox_is_shown(real: RedisPlace) -> None:
    """How much waits, who works, who waits, what was invalid."""
    client = real.connect()
    assert inspect_inbox(client, KEYS) is None
    one, two = real.validator("one"), real.validator("two")
    one.own()
    assert inspect_inbox(client, KEYS) == InboxStatus(0, 0, 0, "one", 0)
    added = add(real, 3)
    one.attach(NOTHING)
    one.announce("owner")
    two.announce("standby")
    one.read(2, 0, [])
    one.reject([rejection(added[0])])
    assert inspect_inbox(client, KEYS) == InboxStatus(3, 2, 1, "one", 1)
    client.close()
