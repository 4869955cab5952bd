"""A shard's journal from its first record to its last: is each one there, in its place, and what it was?"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from hftpipe.audit.findings import Findings
from hftpipe.audit.journal import Journal
from hftpipe.core.entry import Entry, EntryId, Foreign, Lost, origin
from hftpipe.core.journal import GENESIS, Record, follows, is_loss, link, lost_in
from hftpipe.errors import JournalDamaged, StoreDamaged, StoreUnavailable

_UNREADABLE: Final = (ValueError, KeyError, TypeError, IndexError, AttributeError)
_FIRST: Final = -(2**63)
_LAST: Final = 2**63 - 1


@dataclass(slots=True)
class _Run:
    """Records whose entries follow each other without a jump."""

    number: int
    first: EntryId
    last: EntryId


class JournalCheck:
    """The records of a journal, and what is wrong with them.

    `entries` gives them to be decided anew, `compare` takes in what the ledger has made of them. Where a record is
    missing, or not what it was, what follows cannot be decided: `broken_at` is then its number, and `rest` looks at
    the records from there on one by one. last: entry of the last record that was looked at. jumps: of entry ids.
    losses: by the number of their record. steps_back: as many times, at most, can the checkpoint have gone back.
    """

    def __init__(self, journal: Journal, incarnation: int, findings: Findings) -> None:
        """incarnation: so often may entry ids jump back."""
        self._journal = journal
        self.incarnation = incarnation
        self._findings = findings
        self._runs: list[_Run] = []
        self._highest = EntryId(0, 0)
        self._said: deque[Record] = deque()
        self._before = GENESIS
        self._is_named = False
        self._is_over = False
        self.losses: dict[int, Lost] = {}
        self.last: EntryId | None = None
        self.jumps = 0
        self.steps_back = 0
        self.number = 0
        self.broken_at = 0

    def number_of(self, entry_id: EntryId) -> int | None:
        """The newest record of an entry, as far as it was looked at."""
        for run in reversed(self._runs):
            if run.first <= entry_id <= run.last:
                return run.number + entry_id.sequence - run.first.sequence
        return None

    def is_given_up(self, first: EntryId, last: EntryId) -> bool:
        """Whether an operator has accepted the loss of all entries from first to last."""
        for start, end in sorted((lost.first or lost.id, lost.id) for lost in self.losses.values()):
            if start <= first <= end:
                first = end.moved(1)
        return first > last

    def entries(self) -> Iterator[Entry | Foreign]:
        """The entries up to the first record that is not in order."""
        try:
            for page in self._journal.records(_FIRST, _LAST):
                for record in page:
                    if not self._follows(record):
                        self.broken_at = record.number
                        return
                    entry = self._journal.entry_of(record)
                    self._note(record, entry)
                    self._advance(record)
                    self._said.append(record)
                    yield entry
        except JournalDamaged as damage:
            self._add_damage(damage)
            self.broken_at, self._is_named = damage.number, True
        except (StoreDamaged, StoreUnavailable) as error:
            self._add_unreadable(error)
            self.broken_at, self._is_over = self.number + 1, True

    def compare(self, records: Sequence[Record]) -> None:
        """Takes in what the ledger has made of the next entries."""
        for expected in records:
            there = self._said.popleft()
            if there != expected:
                self._findings.check_all("entries", _place(there), asdict(there), asdict(expected))

    def rest(self) -> None:
        """Looks at the records from the broken one on: content, digest, number, id, and hash upon the one before."""
        number = self.broken_at
        while not self._is_over:
            try:
                for page in self._journal.records(number, _LAST):
                    for record in page:
                        if record.number != self.broken_at:
                            self._look(record)
                        elif not self._is_named:
                            self._check_content(record)
                        self._advance(record)
                        number = max(number, record.number + 1)
                self._is_over = True
            except JournalDamaged as damage:
                if damage.number != self.broken_at:
                    self._add_damage(damage)
                number = max(number, damage.number) + 1  # a damaged number may lie behind us: always go on
                self.number = damage.number
            except (StoreDamaged, StoreUnavailable) as error:
                self._add_unreadable(error)
                self._is_over = True

    def _look(self, record: Record) -> None:
        self._follows(record)
        try:
            expected = link(self._before, record.number, record.id, record.digest, record.outcomes)
        except UnicodeEncodeError:
            expected = "that of text in UTF-8"
        self._findings.check("entries", f"{_place(record)}: hash upon the one before", record.hash, expected)
        self._check_content(record)

    def _check_content(self, record: Record) -> None:
        try:
            self._note(record, self._journal.entry_of(record))
        except JournalDamaged as damage:
            self._add_damage(damage)

    def _follows(self, record: Record) -> bool:
        """Whether a record stands in its place: the next number, and the next entry."""
        expected = self.number + 1
        if record.number != expected:
            self._findings.add(
                "entries", f"record {expected}", f"nothing; next is {_place(record)}", "a record"
            )
            return False
        before = origin(record.id.generation) if self.last is None else self.last
        if _comes_behind(record, before):
            return True
        first, next_id = _first(record), before.moved(1)
        if self.jumps < self.incarnation and self._is_recorded(first.moved(-1)):
            self.jumps += 1  # the log had lost its tail, and the worker went back to what was left
            self.steps_back += max(next_id.sequence - first.sequence, 1)
            return True
        self._findings.add("entries", f"record {record.number}", f"entry {first}", f"entry {next_id}")
        return False

    def _is_recorded(self, entry_id: EntryId) -> bool:
        """Whether the checkpoint can have gone back to an entry, as far as the journal was looked at."""
        is_known = self.number_of(entry_id) is not None
        return is_known or any(lost.id == entry_id for lost in self.losses.values())

    def _note(self, record: Record, entry: Entry | Foreign) -> None:
        """Takes in a loss: its entries are no longer asked for, nor is that behind which an emptied log goes on."""
        if isinstance(entry, Lost):
            self.losses[record.number] = entry

    def _advance(self, record: Record) -> None:
        if record.id > self._highest:
            self._highest = record.id
        else:  # it may have gone back to another entry of the same id
            self.steps_back += 1
            if is_loss(record) and self.last is not None:
                # The log may have been emptied behind a step back.
                self.steps_back += max(self.last.sequence - record.id.sequence, 0)
        if not is_loss(record) or record.digest:  # a damaged entry that was given up is still in the log
            run = self._runs[-1] if self._runs else None
            if run is not None and record.id == run.first.moved(record.number - run.number):
                run.last = record.id
            else:
                self._runs.append(_Run(record.number, record.id, record.id))
        self.last, self.number, self._before = record.id, record.number, record.hash

    def _add_damage(self, damage: JournalDamaged) -> None:
        self._findings.add("entries", f"record {damage.number}", f"it {damage.problem}", "what was recorded")

    def _add_unreadable(self, error: Exception) -> None:
        self._findings.add("entries", f"behind record {self.number}", error, "records that can be read")


def _comes_behind(record: Record, before: EntryId) -> bool:
    try:
        return follows(record, before)
    except _UNREADABLE:
        return record.id == before.moved(1)  # its content is looked at next


def _first(record: Record) -> EntryId:
    """The first entry that a record is of; of more than one for a loss."""
    try:
        return (lost_in(record, {}).first if is_loss(record) else None) or record.id
    except _UNREADABLE:
        return record.id


def _place(record: Record) -> str:
    return f"record {record.number} ({record.id})"
