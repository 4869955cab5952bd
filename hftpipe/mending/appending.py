"""Appending an entry behind all others, if none of them may not come before it: look and append are one step.

The next id is known, so the entry is appended under that very id: if anybody else has appended since the look, the
server refuses, and what is new is looked at.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np

from hftpipe.anchoring import repair
from hftpipe.audit.journal import Journal
from hftpipe.core.chain import first_new_row
from hftpipe.core.entry import Entry, EntryId, decode, origin
from hftpipe.core.journal import skipped_in
from hftpipe.errors import EntryDamaged, MendingRefused
from hftpipe.mending.again import Again
from hftpipe.ports import LogMender
from hftpipe.store.dead_letters import DeadBook

ATTEMPTS_MAX: Final = 1_000
_PAGE_ENTRIES: Final = 64


class Appending:
    """One letter that is to be appended to one shard's log.

    path: of the store of that shard, which need not be there. shards: how many there are. since: number of a journal
    record, and a time: entries in later records that are not older come later than the letter.
    """

    def __init__(
        self,
        again: Again,
        log: LogMender,
        path: Path,
        shards: int,
        since: tuple[int, int],
        reach: Callable[[str], None],
    ) -> None:
        self._again = again
        self._log = log
        self._path = path
        self._shards = shards
        self._behind, self._since_ms = since
        self._reach = reach
        self._origin = origin(again.entry.id.generation)
        self._looked_at = self._origin

    def run(self) -> EntryId:
        """The id of the entry, which may have been appended before. Raises MendingRefused."""
        for _ in range(ATTEMPTS_MAX):
            last = self._last()
            if (found := self._find(last, self._check_waiting)) is not None:
                return found
            # Once more: what was applied since the first look was not looked at while it was waiting.
            with self._book() as book:
                if book is not None:
                    if (found := self._applied(book)) is not None:
                        return found
                    if last < book.checkpoint.id <= self._last():
                        continue  # others have appended since the look, and that was applied
                    self._check_applied(book, last)
            self._reach("dead.checked")
            if self._log.append_as(last.moved(1), self._again.fields):
                return last.moved(1)
        raise self._refused("others append to its shard all the time. Try again when there is less to do")

    def found(self) -> EntryId | None:
        """The id under which it was appended before; None when it was not."""
        return self._find(self._last(), lambda _: None)

    def _last(self) -> EntryId:
        return self._log.extent().last or self._origin

    def _find(self, last: EntryId, check: Callable[[Entry], None]) -> EntryId | None:
        """The id of the entry among what is applied, and what waits up to `last`; the others of these are checked."""
        checkpoint = self._origin
        with self._book() as book:
            if book is not None:
                if (found := self._applied(book)) is not None:
                    return found
                checkpoint = book.checkpoint.id
        for entry in self._waiting(max(checkpoint, self._looked_at).moved(1), last):
            if self._is_it(entry):
                return entry.id
            check(entry)
        self._looked_at = max(last, self._looked_at)
        return None

    # --- what was applied ---------------------------------------------------------------------------------------

    @contextmanager
    def _book(self) -> Iterator[DeadBook | None]:
        """One moment of the store; None while there is none."""
        if not self._path.exists():
            yield None
            return
        with DeadBook(self._path) as book:
            yield book

    def _applied(self, book: DeadBook) -> EntryId | None:
        again, entry = self._again, self._again.entry
        if book.position(entry.source) < entry.position:
            return None
        if again.is_own:
            return book.applied_as(entry.source, entry.digest, again.record)
        return book.applied_of(entry.source)

    def _check_applied(self, book: DeadBook, last: EntryId) -> None:
        again, entry = self._again, self._again.entry
        if last < book.checkpoint.id:
            raise self._refused(
                f"the log ends with {again.shard}/{last}, before what was applied ({again.shard}/"
                f"{book.checkpoint.id}). Start the shard's worker first: it finds out what was lost"
            )
        self._check_chain(book.position(entry.source))
        named = book.named_last(np.unique(entry.batch.accounts), self._behind, self._since_ms)
        for each in named:
            if not again.comes_before(each.source):
                raise self._late(each.account, each.entry)
        if named:
            self._look_through_journal()

    def _check_chain(self, applied: int) -> None:
        entry = self._again.entry
        first = first_new_row(entry.previous, entry.batch.rows, applied)
        if first is None:
            raise self._refused(
                f"rows of its source {entry.source} before its row {entry.previous + 1} are missing: it would be left "
                "alone. Ingest that source first"
            )
        if first:
            raise self._refused(
                f"its source {entry.source} was applied up to row {applied} since, and it begins with row "
                f"{int(entry.batch.rows[0])}: the source chain would skip that"
            )

    def _look_through_journal(self) -> None:
        """An earlier letter was retried, and is the last to name an account: entries before it may name it, too."""
        with Journal(self._path, self._again.shard, self._shards) as journal:
            for page in journal.read(self._behind + 1):
                for recorded in page:
                    entry, outcomes = recorded.entry, recorded.record.outcomes
                    if isinstance(entry, Entry) and "gap" not in outcomes:
                        self._check_accounts(entry, skipped_in(outcomes))

    # --- what waits in the log ----------------------------------------------------------------------------------

    def _waiting(self, first: EntryId, last: EntryId) -> Iterator[Entry]:
        shard = self._again.shard
        while first <= last:
            page = self._log.range(first, last, _PAGE_ENTRIES)
            for raw in page:
                if raw.id != first:
                    break
                first = first.moved(1)
                try:
                    entry = decode(raw, shard, self._shards)
                except EntryDamaged as damage:
                    raise self._refused(str(damage)) from None
                if isinstance(entry, Entry):
                    yield entry
            if not page or page[-1].id >= first:
                raise self._refused(
                    f"entry {shard}/{first} is no longer in its log. Run the command again; if that does not help, "
                    f"{repair(shard)}"
                )

    def _is_it(self, entry: Entry) -> bool:
        again = self._again
        same = entry.source == again.entry.source and entry.position == again.entry.position
        return same and (not again.is_own or entry.digest == again.entry.digest)

    def _check_waiting(self, entry: Entry) -> None:
        again = self._again
        if entry.source == again.entry.source:
            raise self._refused(
                f"entry {again.shard}/{entry.id} of its source {entry.source} waits to be applied. Try again when it is"
            )
        self._check_accounts(entry, 0)

    def _check_accounts(self, entry: Entry, skipped: int) -> None:
        """skipped: so many rows were decided before."""
        if entry.time_ms < self._since_ms or self._again.comes_before(entry.source):
            return
        shared = np.intersect1d(entry.batch.accounts[skipped:], self._again.entry.batch.accounts)
        if len(shared):
            raise self._late(int(shared[0]), entry.id)

    def _late(self, account: int, entry_id: EntryId) -> MendingRefused:
        return self._refused(
            f"account {account} was named by entry {self._again.shard}/{entry_id}, which came later: its order would "
            "be broken. To apply it behind that all the same, send it as a new transaction and drop this one"
        )

    def _refused(self, why: str) -> MendingRefused:
        shard, entry_id = self._again.letter
        return MendingRefused(f"dead letter {shard}/{entry_id} cannot be retried: {why}")
