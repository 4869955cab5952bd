"""Decides entries anew: the real ledger, the real source chain, into a store of its own, commit by commit."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Protocol

from hftpipe.core.commit import Checkpoint, Commit
from hftpipe.core.entry import Entry, Foreign
from hftpipe.core.ledger import Facts, Ledger, Needs
from hftpipe.core.posting import batches_of, follow_chain, post, sources_of

COMMIT_TRANSACTIONS: Final = 524_288
"""Transactions decided at a time: the more, the fewer times a balance is written."""

COMMIT_ENTRIES_MAX: Final = 16_384
"""Entries decided at a time, however few transactions they have: all are in memory at once."""

_SOURCES_MAX: Final = 10_000


class Books(Protocol):
    """What decided entries go to, and what the next ones are decided by."""

    def checkpoint(self) -> Checkpoint:
        """How far it has been counted."""

    def facts(self, needs: Needs) -> Facts:
        """What the ledger must know before it decides."""

    def positions(self, sources: set[str]) -> dict[str, int]:
        """The last position applied of each source."""

    def commit(self, commit: Commit) -> None:
        """Takes in what was decided."""


def recount(
    books: Books,
    entries: Iterable[Entry | Foreign],
    ledger: Ledger,
    transactions: int = COMMIT_TRANSACTIONS,
) -> Iterator[Commit]:
    """Decides entries in their order, going on where `books` stand, and yields each commit that they have taken in.

    ledger: one that stands there, too. transactions: of a commit, about.
    """
    known: dict[str, int] = {}
    for group in groups(entries, transactions):
        yield decide(books, group, ledger, known)


def decide(
    books: Books, entries: Sequence[Entry | Foreign], ledger: Ledger, known: dict[str, int] | None = None
) -> Commit:
    """Decides entries in one commit, going on where `books` stand, which take it in. entries: one at least.

    known: the last positions of some sources, from the commit before; it is brought up to date.
    """
    positions = _positions(books, {} if known is None else known, entries)
    steps = follow_chain(entries, positions)
    needs = ledger.needs(batches_of(steps))
    ledger.learn(needs, books.facts(needs))
    commit = post(ledger, books.checkpoint(), steps, positions)
    books.commit(commit)
    return commit


def groups(entries: Iterable[Entry | Foreign], transactions: int) -> Iterator[list[Entry | Foreign]]:
    """Entries in commits of so many transactions, or of COMMIT_ENTRIES_MAX entries; the last one may have fewer."""
    group: list[Entry | Foreign] = []
    count = 0
    for entry in entries:
        group.append(entry)
        count += len(entry.batch) if isinstance(entry, Entry) else 1
        if count >= transactions or len(group) >= COMMIT_ENTRIES_MAX:
            yield group
            group, count = [], 0
    if group:
        yield group


def _positions(books: Books, known: dict[str, int], group: Sequence[Entry | Foreign]) -> dict[str, int]:
    """The positions of all sources; those of the group among them."""
    if len(known) > _SOURCES_MAX:
        known.clear()
    if unknown := sources_of(group) - known.keys():
        known.update(books.positions(unknown))
    return known
