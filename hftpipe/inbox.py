"""The validation service: entries that any client has put into the inbox are validated and routed into the shards.

The id of an entry is its position in one source, so the chain applies it once however often this is repeated. In
order: durable in the log, noted for a successor, reported if invalid, removed from the inbox. A crash between any
two of them repeats the entries that are still there.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import orjson

from hftpipe.backoff import Backoff
from hftpipe.config import ValidateLimits
from hftpipe.core.entry import EntryId
from hftpipe.errors import Interrupted, PassingFault, TailLost
from hftpipe.event import Event, Level, passing
from hftpipe.ports import Clock, Inbox, InboxEntry, Rejection
from hftpipe.producer import Producer
from hftpipe.source.framing import Mark
from hftpipe.validation.columnar_entries import ColumnarEntryValidator
from hftpipe.validation.entries import Positioned
from hftpipe.validation.reasons import shown_bytes

BAD_ID: Final = "bad_id"
"""Why an entry whose id is no position is not let through."""

_SEQUENCE_BITS: Final = 20
_MILLISECOND_BITS: Final = 43

_SHOWN_PARTS_MAX: Final = 16
"""Names and values of an invalid entry that its report shows."""

_RENEWALS_PER_LEASE: Final = 4


def source_of(prefix: str) -> str:
    """The id under which the log knows the inbox."""
    return f"inbox:{prefix}"


def position_of(entry_id: EntryId) -> int | None:
    """An inbox id as a position, 1..2^63-1, in the same order; None for one that does not fit."""
    if entry_id.generation >> _MILLISECOND_BITS or entry_id.sequence >> _SEQUENCE_BITS:
        return None
    return entry_id.generation << _SEQUENCE_BITS | entry_id.sequence


def id_at(position: int) -> EntryId:
    """The inbox id that is a position; `0-0`, which is before every entry, for 0."""
    return EntryId(position >> _SEQUENCE_BITS, position & (1 << _SEQUENCE_BITS) - 1)


_NOWHERE: Final = EntryId(0, 0)


@dataclass(slots=True)
class Tally:
    """What became of the entries that this process has taken; those taken again count again."""

    taken: int = 0
    appended: int = 0
    invalid: Counter[str] = field(default_factory=Counter)


class Lease:
    """Whether this validator is the one that works. Renewed several times while it runs, asked anew once lost."""

    def __init__(self, inbox: Inbox, clock: Clock, lease_ms: int) -> None:
        self._inbox = inbox
        self._clock = clock
        self._renew_ms = lease_ms // _RENEWALS_PER_LEASE
        self._due_ms = clock.monotonic_ms()
        self._is_held = False

    def holds(self) -> bool:
        """Raises LogUnavailable."""
        now_ms = self._clock.monotonic_ms()
        if not self._is_held or now_ms >= self._due_ms:
            self._is_held = self._inbox.own()
            self._due_ms = now_ms + self._renew_ms
        return self._is_held

    def release(self) -> None:
        """Lets a standby take over at once. Raises LogUnavailable."""
        if self._is_held:
            self._is_held = False
            self._inbox.release()


class TendingClock:
    """A clock whose waits keep a lease: a validator that waits for a full backlog has not stalled."""

    def __init__(self, clock: Clock, lease: Lease) -> None:
        self._clock = clock
        self._lease = lease

    def monotonic_ms(self) -> int:
        return self._clock.monotonic_ms()

    def unix_ms(self) -> int:
        return self._clock.unix_ms()

    def sleep_ms(self, milliseconds: int) -> None:
        with suppress(PassingFault):  # what the producer waits for may be the very same log
            self._lease.holds()
        self._clock.sleep_ms(milliseconds)


@dataclass(frozen=True, slots=True)
class Bench:
    """What a validation service works with.

    clock: its waits keep the lease. backoff: between attempts after passing faults. stopping: whether the process was
    told to stop. report: takes one line for people. reach: called with the name of each step where a fault may be
    planted.
    """

    inbox: Inbox
    lease: Lease
    producer: Producer
    validator: ColumnarEntryValidator
    clock: Clock
    backoff: Backoff
    stopping: Callable[[], bool]
    report: Callable[[str], None]
    reach: Callable[[str], None] = lambda _: None


class ValidationService:
    """Takes entries from the inbox until it is told to stop; or, with `until_idle`, until none is left."""

    def __init__(self, bench: Bench, limits: ValidateLimits, *, until_idle: bool) -> None:
        self._bench = bench
        self._inbox = bench.inbox
        self._lease = bench.lease
        self._producer = bench.producer
        self._limits = limits
        self._until_idle = until_idle
        self._is_waiting = False
        self._passed = _NOWHERE
        """Entries up to here were taken, or cannot be any more: one that comes now was added with too low an id."""
        self.tally = Tally()

    def run(self) -> None:
        """Works whenever it has the lease, and stands by while another has it.

        Raises LogForeign when the log is no longer this pipeline's, or a key of the inbox is something else.
        """
        try:
            while not self._bench.stopping():
                try:
                    if self._is_over():
                        return
                except PassingFault as fault:
                    wait_ms = self._bench.backoff.next_ms()
                    self._bench.report(passing(fault, wait_ms))
                    self._bench.clock.sleep_ms(wait_ms)
                except TailLost as lost:
                    # What is not done is still in the inbox, and is appended again from the lowest on.
                    self._producer.begin_again(
                        lost,
                        "What had left the inbox before is gone, and to be added again. Going on with what is there",
                    )
        except Interrupted as told:
            self._bench.report(Event("inbox_interrupted", f"{told}. What is not done stays in the inbox"))
        finally:
            with suppress(PassingFault):
                self._lease.release()

    def _is_over(self) -> bool:
        """Works, or stands by for a moment; True when nothing is left and that is enough."""
        if self._lease.holds():
            self._is_waiting = False
            return self._work()
        if self._until_idle and self._inbox.is_empty():
            return True
        if not self._is_waiting:
            self._bench.report(Event("standing_by", "standing by: another validator reads the inbox"))
            self._is_waiting = True
        self._inbox.announce("standby")
        self._bench.clock.sleep_ms(self._limits.standby_poll_ms)
        return False

    def _work(self) -> bool:
        """Takes entries until told to stop, idle or replaced; True when idle."""
        self._attach()
        done: list[InboxEntry] = []
        while not self._bench.stopping() and self._lease.holds():
            entries = self._inbox.read(self._limits.read_entries_max, self._wait_ms(), done)
            done = []
            if entries:
                self._take(entries)
                done = entries
                self._bench.backoff.reset()
            elif self._until_idle and self._inbox.is_empty():
                return True
        self._inbox.read(0, 0, done)
        return False

    def _attach(self) -> None:
        """All that is not done comes first, whoever had it in hand."""
        known = self._producer.resume().known
        floor = id_at(max((mark.line for mark in known), default=0))
        attached = self._inbox.attach(floor)
        # What is there with a lower id was never taken: the chain would skip it as if it had been.
        self._passed = floor if attached.is_anew else _NOWHERE
        if attached.removed:
            told = (
                f"{attached.removed} entries were removed from the inbox by a client (XDEL, XTRIM, MAXLEN) before "
                "they were done"
            )
            self._bench.report(Event("inbox_entries_removed", told, Level.WARNING, entries=attached.removed))
        self._inbox.announce("owner")

    def _wait_ms(self) -> int:
        return 0 if self._until_idle else self._limits.read_wait_ms

    def _take(self, entries: Sequence[InboxEntry]) -> None:
        """Everything about some entries but their removal."""
        reach = self._bench.reach
        reach("inbox.read")
        positioned: dict[int, InboxEntry] = {}
        rejections: list[Rejection] = []
        for entry in entries:
            position = position_of(entry.id)
            if position is None or entry.id <= self._passed:
                rejections.append(Rejection(entry.id, "", BAD_ID, _content(entry), keeps_id=False))
            else:
                positioned[position] = entry
        validated = self._bench.validator.validate(
            [Positioned(position, entry.fields) for position, entry in positioned.items()]
        )
        rejections[:0] = [
            Rejection(positioned[row.line].id, row.field, row.reason, _content(positioned[row.line]))
            for row in validated.invalid
        ]
        if len(validated.batch):
            self._producer.append(validated.batch)
            reach("inbox.appended")
            self._producer.note(Mark(int(validated.batch.rows[-1]), 0, "", unfinished=False))
            reach("inbox.noted")
        if rejections:
            self._inbox.reject(rejections)
            reach("inbox.rejected")
        self._passed = max(self._passed, entries[-1].id)
        self.tally.taken += len(entries)
        self.tally.appended += len(validated.batch)
        self.tally.invalid.update(rejection.reason for rejection in rejections)


def _content(entry: InboxEntry) -> str:
    """An entry for its report, as pairs in JSON: bounded and printable, whatever it holds."""
    parts = [shown_bytes(part) for part in entry.fields[:_SHOWN_PARTS_MAX]]
    return orjson.dumps(list(zip(parts[::2], parts[1::2], strict=True))).decode()
