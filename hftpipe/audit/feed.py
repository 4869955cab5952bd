"""What a replay is fed: a shard's entries from its journal and, behind it, from the log."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from hftpipe.audit.journal import Journal
from hftpipe.audit.window import Window
from hftpipe.core.entry import Entry, EntryId, Foreign, RawEntry, appended_ms, decode, origin
from hftpipe.core.journal import Record
from hftpipe.errors import LogGap, UsageError
from hftpipe.ports import Extent, Topology

_PAGE_ENTRIES: Final = 64


class ReadableLog(Protocol):
    """Of a shard's log, what a replay needs; see `ports.LogReader`."""

    def topology(self) -> Topology | None: ...

    def extent(self) -> Extent: ...

    def range(self, first: EntryId, last: EntryId, count: int) -> list[RawEntry]: ...


@dataclass(frozen=True, slots=True)
class Span:
    """What a window means for one shard.

    journal_last: last record of the journal that belongs to it; 0 for none. log_last: last entry that is read from
    the log behind that; None when none is. reported_from: number of the first record that is reported.
    """

    journal_last: int
    log_first: EntryId
    log_last: EntryId | None
    reported_from: int

    @property
    def records(self) -> int:
        """How many entries it has."""
        behind = 0 if self.log_last is None else self.log_last.sequence - self.log_first.sequence + 1
        return self.journal_last + behind


def span_of(window: Window, journal: Journal, shard: int, open_log: Callable[[], ReadableLog] | None) -> Span:
    """Finds a window in journal and log. open_log: None when the log must not be asked.

    Raises UsageError when the window names an entry that is not there; LogUnavailable and others as the log does.
    """
    checkpoint = journal.checkpoint
    number, log_last = checkpoint.number, None
    if window.last is not None and (found := journal.number_of(window.last)) is not None:
        number = found
    elif window.last is not None:
        log_last = _found_in_log(shard, window.last, checkpoint.id, open_log)
    elif window.until_ms is not None:
        number = journal.number_until(window.until_ms) or 0
        if number == checkpoint.number and open_log is not None:
            log_last = _last_until(open_log(), checkpoint.id.moved(1), window.until_ms)
    first = checkpoint.id.moved(1)
    reported_from = 1
    if window.first is not None:
        reported_from = _number_of_first(window.first, journal, shard, first, log_last)
    return Span(number, first, log_last, reported_from)


def _number_of_first(
    entry_id: EntryId, journal: Journal, shard: int, behind: EntryId, log_last: EntryId | None
) -> int:
    if (number := journal.number_of(entry_id)) is not None:
        return number
    if log_last is not None and behind <= entry_id <= log_last:
        return journal.checkpoint.number + 1 + entry_id.sequence - behind.sequence
    raise UsageError(
        f"entry {shard}/{entry_id} is not among the entries that are replayed: the shard was applied up to "
        f"{shard}/{journal.checkpoint.id}"
    )


def _found_in_log(
    shard: int, last: EntryId, checkpoint: EntryId, open_log: Callable[[], ReadableLog] | None
) -> EntryId:
    if open_log is None:
        raise UsageError(
            f"entry {shard}/{last} is not in the journal, which ends with {shard}/{checkpoint}. Leave "
            "--record journal away to read on in the log"
        )
    newest = open_log().extent().last
    if last <= checkpoint or newest is None or last > newest:
        raise UsageError(
            f"there is no entry {shard}/{last}: the newest of its shard is {shard}/{newest or checkpoint}"
        )
    return last


def _last_until(log: ReadableLog, first: EntryId, until_ms: int) -> EntryId | None:
    """The last entry from `first` on that was appended at or before a time."""
    newest = log.extent().last
    found = None
    while newest is not None and first <= newest and (page := log.range(first, newest, _PAGE_ENTRIES)):
        for raw in page:
            if (appended_ms(raw) or 0) <= until_ms:
                found = raw.id
        first = page[-1].id.moved(1)
    return found


def check_start(log: ReadableLog, shard: int, generation: int) -> EntryId:
    """The first entry ever. Raises UsageError when the log does not hold it any more."""
    start, first = origin(generation).moved(1), log.extent().first
    if first is not None and first > start:
        raise UsageError(
            f"the log of shard {shard} begins with entry {shard}/{first}: what was before was applied and trimmed. "
            "Leave --record log away: the journal has all of it"
        )
    return start


def span_in_log(window: Window, log: ReadableLog, shard: int, start: EntryId) -> tuple[EntryId, int]:
    """The last entry of a window, and the number of its first one, counting from `start`. Raises UsageError."""
    newest = log.extent().last or start.moved(-1)
    last = newest if window.last is None else window.last
    if window.until_ms is not None:
        last = _last_until(log, start, window.until_ms) or start.moved(-1)
    for entry_id in (last, window.first or start):
        if not start.moved(-1) <= entry_id <= max(newest, start):
            raise UsageError(
                f"there is no entry {shard}/{entry_id}: the newest of its shard is {shard}/{newest}"
            )
    return last, (window.first or start).sequence - start.sequence + 1


class Feed:
    """The entries of a span, in order; what the journal says of those that came from it stays until it is compared."""

    def __init__(self, journal: Journal, span: Span, log: ReadableLog | None) -> None:
        self._journal = journal
        self._span = span
        self._log = log
        self._said: deque[Record] = deque()
        self.disagrees = 0
        """The first record that the ledger does not make the same again; 0 for none."""

    def entries(self) -> Iterator[Entry | Foreign]:
        """Raises JournalDamaged, LogGap, EntryDamaged, LogUnavailable."""
        for page in self._journal.read(1, self._span.journal_last):
            for recorded in page:
                self._said.append(recorded.record)
                yield recorded.entry
        if self._log is not None and self._span.log_last is not None:
            _, shard, shards = self._journal.identity
            yield from log_entries(self._log, shard, shards, self._span.log_first, self._span.log_last)

    def compare(self, records: Sequence[Record]) -> None:
        """Takes in what the ledger has made of the next entries."""
        for record in records:
            said = self._said.popleft() if self._said else record
            if said.hash != record.hash and not self.disagrees:
                self.disagrees = record.number


def log_entries(
    log: ReadableLog, shard: int, shards: int, first: EntryId, last: EntryId
) -> Iterator[Entry | Foreign]:
    """Entries first..last from the log. Raises LogGap where one is missing, EntryDamaged, LogUnavailable."""
    while first <= last:
        page = log.range(first, last, _PAGE_ENTRIES)
        for raw in page:
            if raw.id == first:
                yield decode(raw, shard, shards)
                first = first.moved(1)
        if not page or page[-1].id >= first:
            raise LogGap(f"entry {shard}/{first} is missing from the log. Restore its append-only file")
