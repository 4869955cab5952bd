"""What became of dead letters: not only what was decided, but what the stores show of it.

A retry that was killed before it was written down has taken effect all the same; and what was appended again may have
been lost before it was applied.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hftpipe.audit.journal import read_legible
from hftpipe.core.entry import EntryId
from hftpipe.errors import StoreDamaged
from hftpipe.mending.again import source_of_letter
from hftpipe.store.dead_letters import RETRIED, DeadBook, DeadRow


@dataclass(slots=True)
class Fates:
    """What some stores show of letters that were retried; letters of any shard may have gone to any other."""

    sources: set[str]
    applied: dict[int, EntryId]

    def add(self, path: Path) -> None:
        """Looks into a store. Raises StoreUnavailable, StoreDamaged."""
        with DeadBook(path) as book:
            self.sources |= book.retried_sources()
            self.applied[shard_at(path)] = book.checkpoint.id

    def of(self, book: DeadBook, shard: int, row: DeadRow) -> tuple[str, str]:
        """What holds of a letter of this book now: the decision, empty for none, and what came of it."""
        if source_of_letter(shard, row) in self.sources:
            return RETRIED, row.note if row.decision == RETRIED else ""
        if row.decision == RETRIED and self._is_lost(book, row):
            return "", f"retried {row.note}, which was lost before it was applied"
        return row.decision, row.note

    def _is_lost(self, book: DeadBook, row: DeadRow) -> bool:
        """Whether what was appended again is neither applied nor waiting. One without its own source is not applied."""
        shard, _, entry = row.note.removeprefix("as ").partition("/")
        try:
            checkpoint, appended = self.applied.get(int(shard)), EntryId.parse(entry)
        except ValueError:
            return False
        if checkpoint is None or appended > checkpoint:
            return False
        whole = next((each for each in book.letters_of(row.entry) if each.number == row.number), row)
        fields = octets_of_letter(whole)
        with suppress(KeyError, ValueError):
            return book.position(fields[b"src"].decode()) <= int(fields[b"prev"])
        return True


def shard_at(path: Path) -> int:
    """Whose store that is."""
    return int(path.stem.removeprefix("shard-"))


def octets_of_letter(row: DeadRow) -> Mapping[bytes, bytes]:
    """The fields of a letter. Raises StoreDamaged."""
    try:
        return read_legible(row.fields)
    except (ValueError, AttributeError) as error:
        raise StoreDamaged(
            f"dead letter {row.entry} cannot be read: {error}. See `hftpipe verify`"
        ) from error
