"""Recorded entries appended once more, as they are, to the log of another pipeline.

The very same fields are appended, each shard's in the order recorded. Where a former attempt has stopped shows in the
log that is appended to: its last entry is looked up among the recorded ones. What is appended twice all the same,
because a reply was lost, is skipped by the source chain.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from hftpipe.audit.material import Material
from hftpipe.audit.parallel import Progress, Tell
from hftpipe.backoff import Backoff
from hftpipe.config import IngestLimits
from hftpipe.core.entry import Entry, Foreign, Lost, digest_of
from hftpipe.core.recorded import fields_of_entry
from hftpipe.errors import Interrupted, PassingFault, UsageError
from hftpipe.ports import Clock, LogWriter, Outgoing

_WINDOW_ENTRIES: Final = 32
"""Entries of one shard that are sent before their replies are awaited."""


@dataclass(frozen=True, slots=True)
class Outside:
    """What a re-drive needs from outside; see `producer.Surroundings`. fraction: see `Backoff`."""

    clock: Clock
    fraction: Callable[[], float]
    stopping: Callable[[], bool]
    report: Callable[[str], None]


@dataclass(slots=True)
class _Lane:
    """One shard on its way: the entries to come, those in hand, and the room that the log was found to have."""

    entries: Iterator[Entry | Foreign]
    window: list[Entry | Foreign] = field(default_factory=list)
    room: int = 0


class Redrive:
    """Appends the recorded entries of some shards to a log.

    log: of a pipeline of as many shards, to which nothing else is appended meanwhile.
    appended: how many entries were; found: how many a former attempt had appended.
    """

    def __init__(self, log: LogWriter, limits: IngestLimits, outside: Outside, tell: Tell) -> None:
        self._log = log
        self._limits = limits
        self._outside = outside
        self._tell = tell
        self._backoff = Backoff(limits.retry_first_ms, limits.retry_max_ms, outside.fraction)
        self._has_told_full = False
        self._looked: set[int] = set()
        self.appended = 0
        self.found = 0

    def run(self, materials: Mapping[int, Material]) -> None:
        """Returns when all is durable; waits out full backlogs and passing faults.

        Raises UsageError when a shard's log ends with what was not recorded here, Interrupted when told to stop.
        """
        lanes: dict[int, _Lane | None] = dict.fromkeys(materials)
        while lanes:
            moved = 0
            for shard in list(lanes):
                try:
                    lane = lanes[shard] or self._lane(shard, materials[shard])
                    lanes[shard] = None  # after a fault it is looked up anew what has arrived
                    moved += self._push(shard, lane, materials[shard].records)
                except PassingFault as fault:
                    self._wait_out(fault)
                else:
                    lanes[shard] = lane
                    if not lane.window:
                        del lanes[shard]
            if lanes and not moved:
                self._sleep(self._limits.backlog_poll_ms)
            self._check_not_stopped()

    def _lane(self, shard: int, material: Material) -> _Lane:
        first = self._next_number(shard, material)
        lane = _Lane(_appendable(shard, material.entries(first, material.records)))
        lane.window = list(islice(lane.entries, _WINDOW_ENTRIES))
        if shard not in self._looked:  # later it finds what this attempt has appended
            self._looked.add(shard)
            self.found += first - material.reported_from
        return lane

    def _next_number(self, shard: int, material: Material) -> int:
        """The first recorded entry that the log lacks."""
        last = self._log.extent(shard).last
        if last is None:
            return material.reported_from
        raw = self._log.fetch(shard, last)
        digest = "" if raw is None else digest_of(raw.fields)
        # An attempt that began with the first entry has given each the number that its id says.
        for start in (last.sequence + 1, 1):
            end = start if start > 1 else material.records
            for number, entry in enumerate(material.entries(start, min(end, material.records)), start):
                if digest and entry.digest == digest:
                    return max(number + 1, material.reported_from)
        raise UsageError(
            f"the target's log of shard {shard} ends with entry {shard}/{last}, which is none of those to be "
            "appended: others have written there. Name an empty target"
        )

    def _push(self, shard: int, lane: _Lane, of: int) -> int:
        """Appends as much of the window as there is room for; returns how many entries that was."""
        if not lane.window:
            return 0
        if lane.room <= 0:
            free = self._limits.backlog_entries_max - self._log.backlog(shard)
            lane.room = min(free, self._limits.backlog_share_max)
        if lane.room <= 0:
            self._tell_full(shard)
            return 0
        sending = lane.window[: lane.room]
        appended = self._log.append([Outgoing(shard, _fields(entry)) for entry in sending])
        count = len(appended.ids)
        lane.room -= count
        self.appended += count
        rows = sum(len(entry.batch) for entry in sending[:count] if isinstance(entry, Entry))
        self._tell(Progress(shard, count, rows, of))
        if appended.fault is not None:
            raise appended.fault
        self._backoff.reset()
        lane.window = lane.window[count:] or list(islice(lane.entries, _WINDOW_ENTRIES))
        return count

    def _tell_full(self, shard: int) -> None:
        if not self._has_told_full:
            self._outside.report(
                f"shard {shard} of the target has {self._limits.backlog_entries_max} entries waiting, its cap. "
                "Waiting for its worker (`hftpipe worker` there, if none runs)"
            )
        self._has_told_full = True

    def _wait_out(self, fault: PassingFault) -> None:
        wait_ms = self._backoff.next_ms()
        self._outside.report(f"{fault}. Trying again in {wait_ms} ms")
        self._sleep(wait_ms)

    def _sleep(self, milliseconds: int) -> None:
        self._outside.clock.sleep_ms(milliseconds)
        self._check_not_stopped()

    def _check_not_stopped(self) -> None:
        if self._outside.stopping():
            raise Interrupted(
                f"stopped when {self.appended:,} entries were appended. The same command goes on from there"
            )


def _appendable(shard: int, entries: Iterator[Entry | Foreign]) -> Iterator[Entry | Foreign]:
    """All but the losses that were accepted: they are no entries. Raises UsageError where rows behind one need it."""
    for entry in entries:
        if not isinstance(entry, Lost):
            yield entry
        elif entry.positions:
            raise UsageError(
                f"shard {shard} goes on behind {entry.reason}, without rows of {min(entry.positions)} that nobody "
                "has any more: in another pipeline all behind them would be a gap. End before it, with --to"
            )


def _fields(entry: Entry | Foreign) -> Mapping[bytes, bytes]:
    return entry.fields if isinstance(entry, Foreign) else fields_of_entry(entry)
