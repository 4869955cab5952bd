"""A shard's log beside its journal: what both hold must be the same, and behind the checkpoint nothing be missing."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Final, Protocol, TypeAlias

from hftpipe.audit.findings import Findings
from hftpipe.audit.journal import Journal, read_legible
from hftpipe.audit.journal_check import JournalCheck
from hftpipe.core.entry import EntryId, Foreign, RawEntry, decode, origin
from hftpipe.core.journal import Record
from hftpipe.core.recorded import Fields, fields_of
from hftpipe.errors import EntryDamaged, HftpipeError
from hftpipe.ports import Extent, Topology

_PAGE_ENTRIES: Final = 128
_DEAD_OF = "SELECT reason, fields FROM dead WHERE entry = ?"


class AuditedLog(Protocol):
    """One shard's log, as far as an audit looks at it; see `ports.LogReader`. Methods raise LogUnavailable."""

    def topology(self) -> Topology | None:
        """What the log belongs to."""

    def extent(self) -> Extent:
        """What it holds."""

    def range(self, first: EntryId, last: EntryId, count: int) -> list[RawEntry]:
        """Up to `count` entries from `first` to `last`."""

    def group(self) -> tuple[EntryId, int] | None:
        """The last id that the group has handed out, and how many entries are pending; None when there is no group."""

    def buried(self, above: EntryId, count: int) -> list[RawEntry]:
        """Dead letters above an id, ascending, each with its `reason` among its fields; at most so many."""


Logs: TypeAlias = Callable[[int], AbstractContextManager[AuditedLog]]
"""Opens the log of a shard."""


class LogCheck:
    """Compares one shard's log with its journal. looked: called now and then; what it raises ends the look."""

    def __init__(
        self, log: AuditedLog, shard: int, shards: int, findings: Findings, looked: Callable[[], None]
    ) -> None:
        self._looked = looked
        self._log = log
        self._shard = shard
        self._shards = shards
        self._findings = findings
        self._is_given_up: Callable[[EntryId, EntryId], bool] = lambda _first, _last: False

    def run(
        self,
        journal: Journal | None,
        walked: JournalCheck | None,
        checkpoint: EntryId,
        applied_now: Callable[[], EntryId],
    ) -> None:
        """Looks at all that the log holds. Raises LogUnavailable and others as the log does.

        journal, walked: None for a shard that has no store, or none that can be read. checkpoint: of the journal's
        moment. applied_now: asks the store again, for a worker may have gone on, and trimmed, since then.
        """
        if walked is not None:
            self._is_given_up = walked.is_given_up
        extent = self._log.extent()
        newest = extent.last or origin(checkpoint.generation)
        first = extent.first or newest.moved(1)
        is_needed = checkpoint.sequence >= 0 and not self._is_given_up(checkpoint, checkpoint)
        if newest < checkpoint:
            self._add(checkpoint, f"the log ends with {newest}", "the entry that was applied last")
        elif is_needed and first > checkpoint and first > applied_now():
            there = "the log is empty" if extent.first is None else f"the log begins with {first}"
            self._add(checkpoint, there, "the entry that was applied last")
        if first > checkpoint.moved(1) and first > applied_now().moved(1):
            self._add_missing(checkpoint.moved(1), first.moved(-1))
        for page in self._pages(first, newest):
            self._compare([raw for raw in page if raw.id <= checkpoint], journal, walked)
            for raw in page:
                if raw.id > checkpoint:
                    self._check_decodes(raw)
        self._check_group(newest)
        self._check_buried(journal, checkpoint)

    def _pages(self, first: EntryId, newest: EntryId) -> Iterator[list[RawEntry]]:
        """All entries; a hole is named, unless what was there has been trimmed meanwhile."""
        while first <= newest:
            page = self._log.range(first, newest, _PAGE_ENTRIES)
            expected = first
            for raw in page:
                if raw.id != expected and not self._is_trimmed(raw.id):
                    self._add_missing(expected, raw.id.moved(-1))
                expected = raw.id.moved(1)
            if not page:
                if not self._is_trimmed(newest.moved(1)):
                    self._add_missing(first, newest)
                return
            yield page
            self._looked()
            first = expected

    def _is_trimmed(self, entry_id: EntryId) -> bool:
        """Whether the log begins with that entry, or behind it, by now."""
        first = self._log.extent().first
        return first is not None and first >= entry_id

    def _compare(self, page: list[RawEntry], journal: Journal | None, walked: JournalCheck | None) -> None:
        if journal is None or walked is None:
            return
        recorded = self._recorded(page, journal, walked)
        for raw in page:
            fields = recorded.get(raw.id)
            if fields is None:
                self._add(raw.id, "an entry", "none: it is in no journal record that can be read")
            elif fields != raw.fields:
                self._add(raw.id, *_told(raw.fields, fields))

    def _recorded(
        self, page: list[RawEntry], journal: Journal, walked: JournalCheck
    ) -> dict[EntryId, Fields]:
        """The fields of a page's entries as the journal has them."""
        numbers = [number for raw in page if (number := walked.number_of(raw.id)) is not None]
        wanted = set(numbers)
        found: dict[EntryId, Fields] = {}
        if not numbers:
            return found
        try:
            for read in journal.records(min(numbers), max(numbers)):
                for record in read:
                    if record.number in wanted:
                        found[record.id] = _fields(journal, record)
        except HftpipeError:
            pass  # the journal's check has named the record
        return found

    def _check_decodes(self, raw: RawEntry) -> None:
        try:
            decode(
                raw, self._shard, self._shards
            )  # one that is none of ours will be a dead letter: that is no damage
        except EntryDamaged as damage:
            self._add(raw.id, damage, "an entry that matches its digest")

    def _check_group(self, newest: EntryId) -> None:
        group = self._log.group()
        if group is not None and group[0] > newest and group[0] > (self._log.extent().last or newest):
            self._findings.add(
                "log", f"group of shard {self._shard}", f"handed out up to {group[0]}", f"at most {newest}"
            )

    def _check_buried(self, journal: Journal | None, checkpoint: EntryId) -> None:
        above = EntryId(0, -1)
        while page := self._log.buried(above, _PAGE_ENTRIES):
            for raw in page:
                kept = [] if journal is None else _kept(journal, raw.id)
                # Buried first, committed then: above the checkpoint a dead letter may be ahead of its record.
                if dict(raw.fields) not in kept and (kept or raw.id <= checkpoint):
                    self._add(
                        raw.id, f"dead letter {dict(raw.fields)}", kept[0] if kept else "no dead letter"
                    )
            self._looked()
            above = page[-1].id

    def _add_missing(self, first: EntryId, last: EntryId) -> None:
        if self._is_given_up(first, last):
            return
        self._add(first, f"nothing up to {self._shard}/{last}", "entries, one behind the other")

    def _add(self, entry_id: EntryId, there: object, expected: object) -> None:
        self._findings.add("log", f"{self._shard}/{entry_id}", there, expected)


def _told(there: Fields, expected: Fields) -> Iterator[str]:
    """Both, as far as they differ."""
    names = [name for name in there.keys() | expected.keys() if there.get(name) != expected.get(name)]
    for side in (there, expected):
        yield " ".join(f"{name.decode(errors='replace')}={side.get(name, b'')!r}" for name in sorted(names))


def _fields(journal: Journal, record: Record) -> Fields:
    """The fields of the entry that a record was made of. Raises JournalDamaged for a dead letter that is none."""
    if record.payload:
        return fields_of(record)
    entry = journal.entry_of(record)
    return entry.fields if isinstance(entry, Foreign) else {}


def _kept(journal: Journal, entry_id: EntryId) -> list[dict[bytes, bytes]]:
    """The dead letters that a store keeps of an entry, as they are buried in the log."""
    kept = []
    for reason, fields in journal.connection.execute(_DEAD_OF, (str(entry_id),)):
        try:
            kept.append({**read_legible(fields), b"reason": reason.encode()})
        except (ValueError, TypeError, AttributeError):
            continue  # the journal's check has named the record
    return kept
