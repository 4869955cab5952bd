"""What decided entries come to, in numbers."""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

import orjson

from hftpipe.audit.parallel import Progress, Tell
from hftpipe.core.commit import Commit, Totals
from hftpipe.core.journal import Record

_TELL_S: Final = 0.1


@dataclass(slots=True)
class Tally:
    """Counts of entries, and of the transactions in them; `refused` by reason."""

    entries: int = 0
    transactions: int = 0
    skipped: int = 0
    gaps: int = 0
    dead: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    @property
    def applied(self) -> int:
        """Transactions that took effect."""
        return self.transactions - self.skipped - self.refused.total()

    def add(self, records: Iterable[Record]) -> None:
        """Counts records. Rows that were left alone for a gap are no transactions here: they come again."""
        for record in records:
            outcomes = orjson.loads(record.outcomes)
            self.entries += 1
            self.dead += "dead" in outcomes
            if "gap" in outcomes:
                self.gaps += 1
                continue
            self.transactions += record.count
            self.skipped += outcomes.get("skipped", 0)
            for reason, places in outcomes.get("refused", {}).items():
                self.refused[reason] += len(places)

    def merge(self, other: "Tally") -> None:
        """Adds what another shard came to."""
        for name in ("entries", "transactions", "skipped", "gaps", "dead"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.refused.update(other.refused)


class Teller:
    """Tells, a few times a second, how far a shard has come. of: the records that it has."""

    def __init__(self, shard: int, of: int, tell: Tell, now: Callable[[], float] = time.monotonic) -> None:
        self._shard = shard
        self._of = of
        self._tell = tell
        self._now = now
        self._told = (0, 0)
        self._due = now()

    def add(self, commit: Commit) -> None:
        """Takes in how far a commit has got."""
        if self._now() >= self._due:
            self.finish(commit)

    def finish(self, commit: Commit) -> None:
        """Tells at once."""
        here = commit.after.number, transactions_of(commit.after.totals)
        records, transactions = (now - before for now, before in zip(here, self._told, strict=True))
        self._tell(Progress(self._shard, records, transactions, self._of))
        self._told = here
        self._due = self._now() + _TELL_S


def transactions_of(totals: Totals) -> int:
    """All rows that totals count."""
    return totals.applied + totals.refused + totals.skipped
