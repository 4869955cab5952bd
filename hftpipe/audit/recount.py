"""Decides entries anew: the real ledger, the real source chain, into a store of its own, commit by commit."""

from collections.abc import Iterable, Iterator
from typing import Final, Protocol

from hftpipe.core.commit import Checkpoint, Commit
from hftpipe.core.entry import Entry, Foreign
from hftpipe.core.ledger import Facts, Ledger, Needs
from hftpipe.core.posting import batches_of, follow_chain, post, sources_of

COMMIT_TRANSACTIONS: Final = 524_288
"""Transactions decided at a time: the more, the fewer times a balance is written."""

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
    before = books.checkpoint()
    known: dict[str, int] = {}
    for group in groups(entries, transactions):
        positions = _positions(books, known, group)
        steps = follow_chain(group, positions)
        needs = ledger.needs(batches_of(steps))
        ledger.learn(needs, books.facts(needs))
        commit = post(ledger, before, steps, positions)
        books.commit(commit)
        before = commit.after
        yield commit


def groups(entries: Iterable[Entry | Foreign], transactions: int) -> Iterator[list[Entry | Foreign]]:
    """Entries in commits of so many transactions at least, but for the last one."""
    group: list[Entry | Foreign] = []
    count = 0
    for entry in entries:
        group.append(entry)
        count += len(entry.batch) if isinstance(entry, Entry) else 1
        if count >= transactions:
            yield group
            group, count = [], 0
    if group:
        yield group


def _positions(books: Books, known: dict[str, int], group: list[Entry | Foreign]) -> dict[str, int]:
    """The positions of all sources; those of the group among them."""
    if len(known) > _SOURCES_MAX:
        known.clear()
    if unknown := sources_of(group) - known.keys():
        known.update(books.positions(unknown))
    return known
