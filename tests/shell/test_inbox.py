"""The validation service over memory adapters, with the real producer and the real workers: whatever happens to it,
each entry takes effect once or is reported once, and none is passed over.
"""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import fakeredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftpipe.backoff import Backoff
from hftpipe.config import IngestLimits, ValidateLimits
from hftpipe.core.entry import Entry, EntryId, RawEntry, decode
from hftpipe.core.transaction import INT64_MAX
from hftpipe.errors import LogUnavailable
from hftpipe.inbox import (
    Bench,
    Lease,
    TendingClock,
    ValidationService,
    id_at,
    position_of,
    source_of,
)
from hftpipe.invariants import violations
from hftpipe.log.inbox import RedisInbox
from hftpipe.log.keys import Keys
from hftpipe.log.memory import MemoryInbox, MemoryInboxReader
from hftpipe.ports import Inbox, InboxEntry, Rejection
from hftpipe.producer import Producer, Surroundings
from hftpipe.validation.columnar_entries import ColumnarEntryValidator
from hftpipe.validation.entries import EntryValidator
from tests.shell.memory_pipeline import INGEST_LIMITS, MemoryPipeline
from tests.shell.producer_desk import UnreliableWriter
from tests.system.support import decided

KEYS = Keys()
POINTS = ("inbox.read", "inbox.appended", "inbox.noted", "inbox.rejected")
LIMITS = ValidateLimits(read_entries_max=3)


class Crash(BaseException):
    """The end of a process at that moment."""


class FaultyInbox(MemoryInboxReader):
    """Its server fails as told: `failing` counts the calls that fail from now on, by method."""

    failing: dict[str, int]

    def read(self, count: int, wait_ms: int, done: Sequence[InboxEntry]) -> list[InboxEntry]:
        self._fail("read")
        return super().read(count, wait_ms, done)

    def reject(self, rejections: Sequence[Rejection]) -> None:
        self._fail("reject")
        super().reject(rejections)

    def own(self) -> bool:
        self._fail("own")
        return super().own()

    def _fail(self, method: str) -> None:
        if self.failing.get(method):
            self.failing[method] -= 1
            raise LogUnavailable(f"the server is full: {method}")


class InboxPipeline(MemoryPipeline):
    """A pipeline of two shards with an inbox, and any number of services over it."""

    def __init__(self) -> None:
        super().__init__()
        self.inbox = MemoryInbox(self.clock.monotonic_ms)
        self.writer = UnreliableWriter(self.log)
        self.failing: dict[str, int] = {}
        self.stopping: Callable[[], bool] = lambda: False
        self.added: dict[EntryId, tuple[int, bool]] = {}

    def add(self, account: int = 0, *, valid: bool = True, entry_id: EntryId | None = None) -> EntryId:
        """A deposit of one; ids of transactions are those of entries."""
        tx = len(self.added) + 1
        pairs = {"type": "deposit", "account": account, "tx": tx, "amount": "1" if valid else "one"}
        given = self.put([str(part).encode() for pair in pairs.items() for part in pair], entry_id)
        self.added[given] = (account, valid)
        return given

    def put(self, fields: list[bytes], entry_id: EntryId | None) -> EntryId:
        """Adds an entry."""
        return self.inbox.add(*fields, entry_id=entry_id)

    def reader(self, owner: str, limits: ValidateLimits) -> Inbox:
        """A validator's side of the inbox."""
        inbox = FaultyInbox(
            self.inbox, owner, limits.lease_ms, limits.invalid_entries_max, self.clock.sleep_ms
        )
        inbox.failing = self.failing
        return inbox

    def end_lease(self) -> None:
        """Whoever has it stands still for so long."""
        self.clock.now_ms += LIMITS.lease_ms

    def waiting(self) -> int:
        """Entries that are not done."""
        return len(self.inbox.entries)

    def reported(self) -> list[EntryId]:
        """Entries that were reported as invalid."""
        return list(self.inbox.reports)

    def service(
        self,
        owner: str = "one",
        *,
        reach: Callable[[str], None] = lambda _: None,
        limits: ValidateLimits = LIMITS,
        ingest_limits: IngestLimits = INGEST_LIMITS,
        until_idle: bool = True,
    ) -> ValidationService:
        """The service of one process."""
        inbox = self.reader(owner, limits)
        lease = Lease(inbox, self.clock, limits.lease_ms)
        clock = TendingClock(self.clock, lease)
        stopping = lambda: self.stopping()  # noqa: E731, PLW0108 - a test may exchange it later
        producer = Producer(
            source_of("hft"),
            self.topology,
            log=self.writer,
            surroundings=Surroundings(clock, Random(1), stopping, self.lines.append, reach),
            limits=ingest_limits,
            resumable=True,
        )
        validator = ColumnarEntryValidator(EntryValidator())
        backoff = Backoff(1, 8, Random(1).random)
        bench = Bench(inbox, lease, producer, validator, clock, backoff, stopping, self.lines.append, reach)
        return ValidationService(bench, limits, until_idle=until_idle)

    def lose_tail(self, kept: int, shard: int = 0) -> None:
        """A shard's log forgets all but its first entries, before a worker has seen them."""
        stream = self.log.streams[shard]
        for entry_id in list(stream.entries)[kept:]:
            del stream.entries[entry_id]
        stream.last = EntryId(1, kept - 1)

    def lose_advice(self) -> None:
        for stream in self.log.streams:
            stream.advice.clear()

    def entries(self, shard: int = 0) -> list[Entry]:
        """What a shard's log holds."""
        found = [
            decode(RawEntry(entry_id, fields), shard, self.topology.shards)
            for entry_id, fields in self.log.streams[shard].entries.items()
        ]
        return [entry for entry in found if isinstance(entry, Entry)]

    def applied(self) -> list[EntryId]:
        """Applies the log, finds nothing wrong; which entries of the inbox took effect, by shard and in order."""
        self.work()
        for store in self.stores:
            assert not violations(store.snapshot())
        rows = [row for store in self.stores for row in decided(store.snapshot())]
        assert {row[-1] for row in rows} <= {"applied"}
        return [id_at(row[1]) for row in rows]

    def check(self, *, but: Sequence[EntryId] = ()) -> None:
        """Every entry that was added, but some, was applied once if valid, else reported once; none is left."""
        assert not self.waiting()
        valid = {entry_id for entry_id, (_, valid) in self.added.items() if valid} - set(but)
        applied = self.applied()
        assert sorted(applied) == sorted(valid)
        invalid = {entry_id for entry_id, (_, valid) in self.added.items() if not valid}
        assert sorted(self.reported()) == sorted(invalid)
        assert not any('"gap"' in outcomes for outcomes in self.outcomes())


class RedisPipeline(InboxPipeline):
    """The same, with the inbox on an imitation of the server."""

    def __init__(self) -> None:
        super().__init__()
        server = fakeredis.FakeServer()
        self._connect = lambda: fakeredis.FakeRedis(server=server, protocol=2)
        self.client: Any = self._connect()

    def reader(self, owner: str, limits: ValidateLimits) -> Inbox:
        return RedisInbox(self._connect, KEYS, owner, lease_ms=60_000, reports_max=limits.invalid_entries_max)

    def put(self, fields: list[bytes], entry_id: EntryId | None) -> EntryId:
        given = "*" if entry_id is None else str(entry_id)
        return EntryId.parse(self.client.execute_command("XADD", KEYS.inbox, given, *fields))

    def end_lease(self) -> None:
        self.client.delete(KEYS.inbox_owner)

    def waiting(self) -> int:
        left: int = self.client.xlen(KEYS.inbox)
        return left

    def reported(self) -> list[EntryId]:
        return [EntryId.parse(fields[b"id"]) for _, fields in self.client.xrange(KEYS.invalid)]


@pytest.fixture
def pipeline() -> InboxPipeline:
    return InboxPipeline()


def fill(pipeline: InboxPipeline, count: int, *, shards: Sequence[int] = (0, 1)) -> None:
    for number in range(count):
        pipeline.add(shards[number % len(shards)], valid=number % 4 != 2)


# --- positions --------------------------------------------------------------------------------------------------


@given(st.integers(1, INT64_MAX))
def test_a_position_is_an_id(position: int) -> None:
    """And the other way round."""
    assert position_of(id_at(position)) == position


@given(*[st.tuples(st.integers(0, 2**43 - 1), st.integers(0, 2**20 - 1))] * 2)
def test_positions_are_ordered_as_ids_are(one: tuple[int, int], other: tuple[int, int]) -> None:
    """Within 63 bits."""
    positions = [position_of(EntryId(*each)) for each in (one, other)]
    assert None not in positions
    assert (positions[0] < positions[1]) == (one < other)  # type: ignore[operator]
    assert max(positions) <= INT64_MAX  # type: ignore[type-var, operator]


@pytest.mark.parametrize("entry_id", [EntryId(2**43, 0), EntryId(1, 2**20), EntryId(2**64 - 1, 2**64 - 1)])
def test_an_id_that_is_no_position_is_reported(pipeline: InboxPipeline, entry_id: EntryId) -> None:
    """And never appended; its neighbours are."""
    first = pipeline.add()
    pipeline.add(valid=False)
    bad = pipeline.add(entry_id=entry_id)
    pipeline.service().run()
    report = pipeline.inbox.reports.pop(bad)
    assert (report.field, report.reason, report.keeps_id) == ("", "bad_id", False)
    assert report.content == '[["type","deposit"],["account","0"],["tx","3"],["amount","1"]]'
    assert pipeline.applied() == [first]


# --- the way of an entry ------------------------------------------------------------------------------------------


def test_entries_are_applied_or_reported_and_leave_the_inbox(pipeline: InboxPipeline) -> None:
    """In the order of their ids, per shard."""
    fill(pipeline, 20)
    service = pipeline.service()
    service.run()
    pipeline.check()
    assert service.tally.taken == 20
    assert service.tally.appended == 15
    assert service.tally.invalid == {"bad_amount": 5}
    for shard in (0, 1):
        rows = [row for entry in pipeline.entries(shard) for row in entry.batch.rows]
        assert rows == sorted(rows)


def test_a_report_shows_what_was_written(pipeline: InboxPipeline) -> None:
    """Bounded and printable."""
    pipeline.inbox.add(b"type", b"\x1b[2J\xff", *[b"x" * 200] * 100)
    pipeline.service().run()
    (report,) = pipeline.inbox.reports.values()
    assert report.reason == "bad_encoding"
    assert report.content.isprintable()
    assert report.content.startswith('[["type","\\\\x1b[2J\\\\xff"],["xxx')
    assert len(report.content) < 2_000


def test_a_service_that_is_told_to_stop_finishes_what_it_has_in_hand(pipeline: InboxPipeline) -> None:
    """The rest stays; the lease is free at once."""
    fill(pipeline, 10)
    pipeline.stopping = lambda: len(pipeline.log.streams[1].entries) > 0
    pipeline.service(until_idle=False).run()
    assert len(pipeline.inbox.entries) == 7
    assert pipeline.inbox.lease[0] == ""
    pipeline.stopping = lambda: False
    pipeline.service("two").run()
    pipeline.check()


# --- crashes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("at", [1, 2])
def test_a_crash_anywhere_repeats_and_changes_nothing(pipeline: InboxPipeline, point: str, at: int) -> None:
    """Several times in a row, and then once not."""
    fill(pipeline, 12)
    for owner in ("a", "b", "c"):
        left = at

        def reach(reached: str) -> None:
            nonlocal left
            left -= reached == point
            if left == 0:
                raise Crash

        with pytest.raises(Crash):
            pipeline.service(owner, reach=reach).run()
        pipeline.clock.now_ms += LIMITS.lease_ms
        fill(pipeline, 4)
    pipeline.service("d").run()
    pipeline.check()


@pytest.mark.parametrize(
    ("make", "seed"),
    [*((InboxPipeline, seed) for seed in range(10)), *((RedisPipeline, seed) for seed in range(100, 112))],
)
def test_any_schedule_of_crashes_stalls_and_takeovers_changes_nothing(
    make: Callable[[], InboxPipeline], seed: int
) -> None:
    """At each step a process may die, or stand still while others work, clients add and workers apply."""
    random, pipeline = Random(seed), make()
    names, depth = iter(range(10_000)), 0

    def reach(_: str) -> None:
        choice = random.random()
        if choice < 0.08:
            raise Crash
        if choice < 0.3:
            fill(pipeline, random.randrange(4), shards=[random.randrange(4)])
        elif choice < 0.3:
            pipeline.work()
        elif choice < 0.4:
            pipeline.lose_advice()
        elif choice < 0.56 and depth < 4:
            pipeline.end_lease()  # this one stands still, and its lease runs out
            run()

    def run() -> None:
        nonlocal depth
        limits = ValidateLimits(read_entries_max=random.randint(1, 6))
        depth += 1
        try:
            pipeline.service(str(next(names)), reach=reach, limits=limits).run()
        except Crash:
            pipeline.end_lease()
        finally:
            depth -= 1

    for _ in range(6):
        fill(pipeline, 8)
        run()
    while pipeline.waiting():
        pipeline.end_lease()
        pipeline.service("last").run()
    pipeline.check()


def test_a_validator_that_stood_still_wakes_and_changes_nothing(pipeline: InboxPipeline) -> None:
    """It has old entries in hand; others were added, validated, reported and applied since."""
    fill(pipeline, 5)

    def reach(point: str) -> None:
        if point == "inbox.read" and len(pipeline.added) == 5:
            pipeline.clock.now_ms += LIMITS.lease_ms
            fill(pipeline, 7)
            pipeline.service("standby").run()
            pipeline.work()

    pipeline.service(reach=reach).run()
    pipeline.check()


# --- what the successor knows -------------------------------------------------------------------------------------


def test_the_chain_goes_on_behind_what_was_noted(pipeline: InboxPipeline) -> None:
    """For a successor, from where its predecessor was."""
    first = pipeline.add()
    pipeline.service().run()
    pipeline.add()
    pipeline.service("two").run()
    assert [entry.previous for entry in pipeline.entries()] == [0, position_of(first)]
    pipeline.check()


@pytest.mark.parametrize("is_applied", [True, False])
def test_without_advice_the_chain_begins_anew(pipeline: InboxPipeline, is_applied: bool) -> None:
    """Whether or not what was before is applied by then: there is no gap, as it is in the log."""
    fill(pipeline, 5)
    pipeline.service().run()
    if is_applied:
        pipeline.work()
    pipeline.lose_advice()
    fill(pipeline, 5)
    pipeline.service("two").run()
    assert [entry.previous for entry in pipeline.entries()].count(0) == 2
    pipeline.check()


def test_advice_that_is_too_low_is_safe(pipeline: InboxPipeline) -> None:
    """A validator that woke late has noted what it knew."""
    fill(pipeline, 3)
    pipeline.service().run()
    old = [dict(stream.advice) for stream in pipeline.log.streams]
    fill(pipeline, 5)
    pipeline.service("two").run()
    for stream, advice in zip(pipeline.log.streams, old, strict=True):
        stream.advice = advice
    fill(pipeline, 5)
    pipeline.service("three").run()
    pipeline.check()


@pytest.mark.parametrize("has_advice", [True, False])
def test_a_lost_tail_holds_nothing_up(pipeline: InboxPipeline, has_advice: bool) -> None:
    """What had left the inbox is lost, with advice loudly; what comes next is applied all the same."""
    kept = pipeline.add()
    pipeline.service().run()
    lost = pipeline.add()
    pipeline.service().run()
    pipeline.lose_tail(1)
    if not has_advice:
        pipeline.lose_advice()
    pipeline.add()
    pipeline.service("two").run()
    assert any("the log lost entries of inbox:hft" in line for line in pipeline.lines) == has_advice
    pipeline.check(but=[lost])
    assert kept in pipeline.applied()


def test_a_tail_lost_while_entries_are_in_hand_loses_none_of_them(pipeline: InboxPipeline) -> None:
    """They are still in the inbox, and are appended again, those that were confirmed too."""
    fill(pipeline, 6)
    pipeline.writer.cuts = [1]

    def lose() -> None:
        if len(pipeline.writer.pipelines) == 1:
            pipeline.lose_tail(0, shard=0)
            pipeline.lose_tail(0, shard=1)

    class Waiting(type(pipeline.clock)):  # type: ignore[misc]
        def sleep_ms(self, milliseconds: int) -> None:
            super().sleep_ms(milliseconds)
            lose()

    pipeline.clock.__class__ = Waiting
    pipeline.service().run()
    assert any("Going on with what is there" in line for line in pipeline.lines)
    pipeline.check()


def test_entries_that_were_applied_before_the_tail_was_lost_are_not_applied_again(
    pipeline: InboxPipeline,
) -> None:
    """They were still in the inbox: the chain skips them."""
    fill(pipeline, 6)

    def reach(point: str) -> None:
        if point == "inbox.appended":
            pipeline.work()
            raise Crash

    with pytest.raises(Crash):
        pipeline.service(reach=reach).run()
    pipeline.clock.now_ms += LIMITS.lease_ms
    pipeline.service("two").run()
    pipeline.check()


def test_an_inbox_that_was_removed_begins_above_what_was_done(pipeline: InboxPipeline) -> None:
    """However low its own next id would be."""
    fill(pipeline, 10)
    pipeline.service().run()
    highest = pipeline.inbox.last
    pipeline.inbox.last = EntryId(0, 0)
    service = pipeline.service("two")
    service.run()
    assert pipeline.inbox.last >= max(
        entry_id for entry_id, (_, valid) in pipeline.added.items() if valid and entry_id <= highest
    )
    fill(pipeline, 4)
    service.run()
    pipeline.check()


def test_entries_of_an_inbox_that_was_begun_anew_with_lower_ids_are_reported(pipeline: InboxPipeline) -> None:
    """The chain would skip them as if they had been applied: they were not."""
    first = pipeline.add(entry_id=EntryId(1_000, 1))
    pipeline.service().run()
    pipeline.inbox.last = EntryId(0, 0)
    strangers = [pipeline.add(entry_id=EntryId(ms, 1)) for ms in (1, 2)]
    later = pipeline.service("two")
    later.run()
    assert [pipeline.inbox.reports[entry_id].reason for entry_id in strangers] == ["bad_id"] * 2
    above = pipeline.add()
    later.run()
    assert pipeline.applied() == [first, above]
    assert not pipeline.inbox.entries


# --- faults and waits -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["read", "reject", "own"])
def test_faults_of_the_inbox_are_waited_out(pipeline: InboxPipeline, method: str) -> None:
    """Told, and done again; nothing is appended twice by the same process."""
    fill(pipeline, 12)
    pipeline.failing[method] = 3
    pipeline.service().run()
    assert any(f"the server is full: {method}. Trying again in" in line for line in pipeline.lines)
    assert not any(pipeline.failing.values())
    rows = [row for shard in (0, 1) for entry in pipeline.entries(shard) for row in entry.batch.rows]
    assert len(rows) == len(set(rows))
    pipeline.check()


def test_faults_of_the_log_are_waited_out(pipeline: InboxPipeline) -> None:
    """An append that broke off half-way."""
    fill(pipeline, 12)
    pipeline.writer.cuts = [1, 0, None, 0]
    pipeline.writer.unconfirmed = 1
    pipeline.service().run()
    pipeline.check()


def test_a_full_backlog_is_waited_out_and_the_lease_is_kept(pipeline: InboxPipeline) -> None:
    """The inbox is not read meanwhile, and no standby takes over from one that waits."""
    fill(pipeline, 12, shards=[0])
    limits = IngestLimits(backlog_entries_max=1)
    waits = 0

    def before_backlog() -> None:
        nonlocal waits
        waits += 1
        assert not pipeline.inbox.reader("standby", lease_ms=1, reports_max=1).own()
        if waits % 400 == 0:
            pipeline.work()

    pipeline.service().run()  # the first of them takes the backlog's room
    pipeline.add(0)
    pipeline.writer.before_backlog = before_backlog
    pipeline.service(ingest_limits=limits).run()
    assert pipeline.clock.now_ms > LIMITS.lease_ms
    pipeline.check()


def test_a_service_that_is_told_to_stop_while_it_waits_leaves_the_rest_in_the_inbox(
    pipeline: InboxPipeline,
) -> None:
    """And says so; a successor goes on."""
    fill(pipeline, 6, shards=[0])
    pipeline.stopping = lambda: pipeline.clock.now_ms > 500
    pipeline.service(ingest_limits=IngestLimits(backlog_entries_max=0)).run()
    assert "What is not done stays in the inbox" in pipeline.lines[-1]
    assert len(pipeline.inbox.entries) == 6
    pipeline.stopping = lambda: False
    pipeline.service("two").run()
    pipeline.check()


def test_a_standby_waits_for_the_lease(pipeline: InboxPipeline) -> None:
    """Says so once, and works when the owner's lease has run out."""
    fill(pipeline, 6)
    assert pipeline.inbox.reader("owner", lease_ms=5_000, reports_max=1).own()
    pipeline.service("two").run()
    assert pipeline.lines == ["standing by: another validator reads the inbox"]
    assert pipeline.clock.now_ms >= 5_000
    pipeline.check()


def test_a_standby_that_is_to_end_when_nothing_is_left_does(pipeline: InboxPipeline) -> None:
    """Though another has the lease."""
    assert pipeline.inbox.reader("owner", lease_ms=5_000, reports_max=1).own()
    pipeline.service("two").run()
    assert pipeline.clock.now_ms == 0
    assert pipeline.inbox.lease[0] == "owner"
