"""What operators have decided, beside the journal: a decision follows from nothing, but is about a record."""

import sqlite3
from collections import Counter
from collections.abc import Mapping
from typing import Final, NamedTuple

from hftpipe.audit.findings import Findings
from hftpipe.core.commit import ACCEPTED_LOSS, REBUILT
from hftpipe.core.entry import Lost
from hftpipe.core.journal import loss_told
from hftpipe.store.dead_letters import DROPPED, RETRIED

_DECISIONS = (
    "SELECT decisions.number, action, decisions.entry, record, epoch, dead.entry "
    "FROM decisions LEFT JOIN dead ON dead.number = record ORDER BY decisions.number"
)
_ACTIONS: Final = (ACCEPTED_LOSS, DROPPED, REBUILT, RETRIED)


class _Decided(NamedTuple):
    """A decision. letter: the entry of the dead letter that has its record, None for none."""

    number: int
    action: str
    entry: str
    record: int
    epoch: int
    letter: str | None


class DecisionCheck:
    """The decisions of one shard, whose journal is whole. losses: of that journal, by the number of their record."""

    def __init__(self, shard: int, losses: Mapping[int, Lost], findings: Findings) -> None:
        self._shard = shard
        self._losses = losses
        self._findings = findings
        self._accepted: Counter[int] = Counter()
        self._epoch = 0
        self.is_rebuilt = False
        """Whether the database was once made anew: decisions before that may be lost."""

    def run(self, live: sqlite3.Connection, epoch: int) -> None:
        """epoch: of the shard; none was decided under a later one. Raises sqlite3.Error."""
        expected = 1
        for row in live.execute(_DECISIONS):
            decided = _Decided(*row)
            if decided.number != expected:
                next_one = f"nothing; next is number {decided.number}"
                self._findings.add("decisions", f"number {expected}", next_one, "a decision")
            expected = decided.number + 1
            self._look(decided, epoch)
        if not self.is_rebuilt:
            for number, lost in self._losses.items():
                if number not in self._accepted:
                    told = f"the decision to give up {loss_told(lost.first, lost.id)}"
                    self._findings.add("decisions", f"record {number}", "nothing", told)

    def _look(self, decided: _Decided, epoch: int) -> None:
        if decided.action == ACCEPTED_LOSS:
            self._look_at_loss(decided)
        elif decided.action in {DROPPED, RETRIED}:
            self._look_at_letter(decided)
        elif decided.action == REBUILT:
            self.is_rebuilt = True
            self._compare(decided, record=0, entry="", epoch=0)
        else:
            self._add(decided, "action", decided.action, f"one of {', '.join(_ACTIONS)}")
        if decided.action != REBUILT:
            if not self._epoch <= decided.epoch <= epoch:
                self._add(decided, "epoch", decided.epoch, f"{self._epoch} to {epoch}")
            self._epoch = max(self._epoch, min(decided.epoch, epoch))

    def _look_at_loss(self, decided: _Decided) -> None:
        lost = self._losses.get(decided.record)
        if lost is None:
            self._add(decided, "record", decided.record, "the record of a loss")
            return
        self._compare(decided, entry=f"{self._shard}/{lost.first or lost.id}")
        self._accepted[decided.record] += 1
        if self._accepted[decided.record] > 1:
            self._add(decided, "record", decided.record, "a loss that is not accepted yet")

    def _look_at_letter(self, decided: _Decided) -> None:
        if decided.letter is None:
            self._add(decided, "record", decided.record, "the record of a dead letter")
        else:
            self._compare(decided, entry=f"{self._shard}/{decided.letter}")

    def _compare(self, decided: _Decided, **expected: object) -> None:
        for name, value in expected.items():
            self._findings.check(
                "decisions", f"number {decided.number}: {name}", getattr(decided, name), value
            )

    def _add(self, decided: _Decided, name: str, there: object, expected: object) -> None:
        self._findings.add("decisions", f"number {decided.number}: {name}", there, expected)
