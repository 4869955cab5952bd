"""How far back a shard's log reaches: what a worker keeps of the entries that it has applied.

The worker knows when it applied an entry, by a clock that nobody sets, and how many bytes it had. What was applied
before it attached is looked up in the log, in a bounded number of reads:

* by the times of append that the entries carry, halving (ids are dense). They come from the producers' clocks, which
  may be set and may differ. So *now* is the earlier of the worker's clock and the time of the last applied entry plus
  what has passed since: one clock ahead trims nothing early, and while no worker runs nothing ages. An entry is as new
  as the newest of itself and the three behind it, and is taken for new when it claims to be older than the oldest one:
  so a clock far behind trims nothing early either. At worst an entry stays until the worker has run for the whole time.
* by the sizes of a few entries of each part of the log: the bytes of the others are estimated by them.

Nothing here is read by a decision about balances.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from hftpipe.core.entry import Entry, EntryId, Foreign, appended_ms
from hftpipe.ports import Clock, LogReader
from hftpipe.retention.setting import Retention

MARKS_PER_BOUND: Final = 512
"""Entries are remembered together until they are this part of a bound: so precise is it kept."""

PARTS: Final = 64
"""Parts of the log whose entries are weighed, when it is met."""

WEIGHED_OF_PART: Final = 4
"""Entries weighed of each part, one behind the other."""

NEIGHBOURS: Final = 4
"""Entries, one behind the other, of which the newest tells the time of the first."""

_ROUNDS_MAX: Final = 8
_FRAME_BYTES: Final = 80
"""Names and numbers of an entry, beside payload and source."""
_GOLDEN: Final = 0.618
"""Where in its part each sample lies: moved on by so much, it falls into step with no pattern of the entries."""


@dataclass(slots=True)
class _Mark:
    """Entries behind the mark before, up to `last`, applied from `since_ms` to `until_ms` of the monotonic clock."""

    last: EntryId
    since_ms: int
    until_ms: int
    size_bytes: float


class Reach:
    """What an attached worker keeps of its shard's log, and what it may trim.

    applied: the entry that the worker goes on behind.
    """

    def __init__(self, retention: Retention, log: LogReader, clock: Clock, applied: EntryId) -> None:
        self._retention = retention
        self._log = log
        self._clock = clock
        self._attached_at = applied
        self._attached_ms = clock.monotonic_ms()
        self._floor = EntryId(applied.generation, 0)
        self._trimmed_to: EntryId | None = None
        self._marks: deque[_Mark] = deque()
        self._size_bytes = 0.0
        self._add(applied, self._attached_ms, 0.0)
        self._is_met = False

    def look(self) -> None:
        """Looks up what was applied before; to be called now and then. Raises LogUnavailable."""
        if self._retention.age_ms is None and self._retention.size_bytes is None:
            return
        if not self._is_met:
            self._floor = max(self._floor, self._log.extent().first or self._floor)
            self._weigh()
            self._is_met = True
        self._find_age()

    def note(self, entries: Sequence[Entry | Foreign]) -> None:
        """These were applied just now."""
        bytes_max = self._retention.size_bytes
        if self._retention.age_ms is None and bytes_max is None:
            return
        now_ms = self._clock.monotonic_ms()
        size_bytes = 0 if bytes_max is None else sum(map(_size_of_applied, entries))
        mark = self._marks[-1] if self._marks else None
        if mark is None or self._is_full(mark, now_ms, size_bytes):
            self._add(entries[-1].id, now_ms, size_bytes)
        else:
            mark.last, mark.until_ms = entries[-1].id, now_ms
            mark.size_bytes += size_bytes
            self._size_bytes += size_bytes

    def trim_to(self, checkpoint: EntryId) -> EntryId | None:
        """What is below may be trimmed, and was not named before; None when that is nothing.

        The entry at the checkpoint always stays: it is what the next attach looks for.
        """
        self._let_go(self._clock.monotonic_ms())
        keep_from = self._floor
        if self._retention.entries is not None:
            keep_from = max(keep_from, checkpoint.moved(-self._retention.entries))
        keep_from = min(keep_from, checkpoint)
        if self._trimmed_to is not None and keep_from <= self._trimmed_to:
            return None
        self._trimmed_to = keep_from
        return keep_from

    def _add(self, last: EntryId, now_ms: int, size_bytes: float) -> None:
        self._marks.append(_Mark(last, now_ms, now_ms, size_bytes))
        self._size_bytes += size_bytes

    def _is_full(self, mark: _Mark, now_ms: int, size_bytes: int) -> bool:
        """Whether a mark that took these as well would be too coarse; what was there before stays apart."""
        age_ms, bytes_max = self._retention.age_ms, self._retention.size_bytes
        return (
            mark.last <= self._attached_at
            or (age_ms is not None and (now_ms - mark.since_ms) * MARKS_PER_BOUND > age_ms)
            or (bytes_max is not None and (mark.size_bytes + size_bytes) * MARKS_PER_BOUND > bytes_max)
        )

    def _let_go(self, now_ms: int) -> None:
        """Moves the floor above what is beyond a bound."""
        age_ms, bytes_max = self._retention.age_ms, self._retention.size_bytes
        while self._marks:
            oldest = self._marks[0]
            is_old = age_ms is not None and now_ms - oldest.until_ms > age_ms
            is_beyond = bytes_max is not None and self._size_bytes - oldest.size_bytes >= bytes_max
            if not (is_old or is_beyond or oldest.last < self._floor):
                return
            self._floor = max(self._floor, oldest.last.moved(1))
            self._size_bytes -= oldest.size_bytes
            self._marks.popleft()

    # --- what was applied before ---------------------------------------------------------------------------------

    def _weigh(self) -> None:
        """Estimates the bytes of what is there; again of what is left, while much of it is beyond the bound."""
        if self._retention.size_bytes is None:
            return
        for _ in range(_ROUNDS_MAX):
            before = self._attached_at.sequence - self._floor.sequence + 1
            if before <= 0:
                return
            self._marks, self._size_bytes = deque(), 0.0
            self._weigh_parts(before)
            self._let_go(self._attached_ms)
            if self._attached_at.sequence - self._floor.sequence + 1 > before // 2:
                return

    def _weigh_parts(self, count: int) -> None:
        first, parts, mean = self._floor, min(PARTS, count), 0.0
        for part in range(parts):
            start, stop = count * part // parts, count * (part + 1) // parts
            sample = start + int((stop - start) * (part * _GOLDEN % 1))
            found = self._log.range(first.moved(sample), first.moved(stop - 1), WEIGHED_OF_PART)
            if found:
                mean = sum(size_of(entry.fields) for entry in found) / len(found)
            self._add(first.moved(stop - 1), self._attached_ms, mean * (stop - start))

    def _find_age(self) -> None:
        """Moves the floor to the first entry, of those applied before, that is not too old."""
        age_ms, passed_ms = self._retention.age_ms, self._clock.monotonic_ms() - self._attached_ms
        if age_ms is None or passed_ms > age_ms or self._floor >= self._attached_at:
            return
        now_ms, newest_ms = self._clock.unix_ms(), self._time_of(self._attached_at)
        if newest_ms is not None:
            now_ms = min(now_ms, newest_ms + passed_ms)
        oldest_ms = self._time_of(self._floor) or 0
        if oldest_ms >= now_ms - age_ms:
            return
        old, new = self._floor.sequence, self._attached_at.sequence
        while new - old > 1:
            middle = (old + new) // 2
            time_ms = self._time_of(self._floor.moved(middle - self._floor.sequence), NEIGHBOURS)
            if time_ms is not None and oldest_ms <= time_ms < now_ms - age_ms:
                old = middle
            else:
                new = middle
        self._floor = self._floor.moved(new - self._floor.sequence)

    def _time_of(self, entry_id: EntryId, count: int = 1) -> int | None:
        """The latest time of append of an entry and those behind it, so many in all; None when none tells."""
        found = map(appended_ms, self._log.range(entry_id, self._attached_at, count))
        return max((time_ms for time_ms in found if time_ms is not None), default=None)


def size_of(fields: Mapping[bytes, bytes]) -> int:
    """Bytes of an entry: those of its names and values. The server needs somewhat more for small entries."""
    return sum(len(name) + len(value) for name, value in fields.items())


def _size_of_applied(entry: Entry | Foreign) -> int:
    if isinstance(entry, Entry):
        return len(entry.payload) + len(entry.source) + _FRAME_BYTES
    return size_of(entry.fields)
