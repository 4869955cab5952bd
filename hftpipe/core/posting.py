"""From entries to a commit: source chain, then ledger, then journal; pure.

`follow_chain` says which rows of each entry are new, `post` decides them. Between the two the caller teaches the
ledger what the store knows (`Ledger.needs`, `Ledger.learn`).
"""

from collections.abc import Iterable, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from hftpipe.core.chain import first_new_row
from hftpipe.core.commit import Checkpoint, Commit, Totals
from hftpipe.core.entry import Entry, Foreign, Lost
from hftpipe.core.journal import Record, record_dead, record_entry, record_gap, record_lost
from hftpipe.core.ledger import Ledger, Outcome
from hftpipe.core.mentions import index_mentions, named_only
from hftpipe.core.taken import Taken, taken_by
from hftpipe.core.transaction import Batch, Column

_NONE: Final = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Step:
    """An entry and its rows from `first` on, which are to be decided; None when rows before it are missing."""

    entry: Entry
    first: int
    batch: Batch | None


def follow_chain(
    entries: Iterable[Entry | Foreign], positions: MutableMapping[str, int]
) -> list[Step | Foreign]:
    """Finds the new rows of each entry; `positions`, the last applied of each source, moves along."""
    steps: list[Step | Foreign] = []
    for entry in entries:
        if isinstance(entry, Lost):
            for source, position in entry.positions.items():
                positions[source] = max(position, positions.get(source, 0))
        steps.append(entry if isinstance(entry, Foreign) else _step(entry, positions))
    return steps


def sources_of(entries: Iterable[Entry | Foreign]) -> set[str]:
    """The sources whose last position `follow_chain` must know."""
    sources: set[str] = set()
    for entry in entries:
        if isinstance(entry, Lost):
            sources |= entry.positions.keys()
        elif isinstance(entry, Entry):
            sources.add(entry.source)
    return sources


def _step(entry: Entry, positions: MutableMapping[str, int]) -> Step:
    applied = positions.get(entry.source, 0)
    first = first_new_row(entry.previous, entry.batch.rows, applied)
    if first is None:
        return Step(entry, 0, None)
    positions[entry.source] = max(applied, entry.position)
    return Step(entry, first, entry.batch.slice(first, len(entry.batch)) if first else entry.batch)


def batches_of(steps: Iterable[Step | Foreign]) -> list[Batch]:
    """The rows that are to be decided."""
    return [step.batch for step in steps if isinstance(step, Step) and step.batch is not None]


def post(
    ledger: Ledger, before: Checkpoint, steps: Sequence[Step | Foreign], positions: MutableMapping[str, int]
) -> Commit:
    """Decides the rows of all steps, in order.

    before: the checkpoint that the ledger stands at.
    positions: as `follow_chain` left them.
    """
    numbered = list(enumerate(steps, before.number + 1))
    outcomes = iter(
        ledger.apply_all(
            [
                (number, step.batch)
                for number, step in numbered
                if isinstance(step, Step) and step.batch is not None
            ]
        )
    )
    tally = _Tally(before.hash, before.totals)
    for number, step in numbered:
        if isinstance(step, Lost):
            tally.lost(number, step)
        elif isinstance(step, Foreign):
            tally.dead(number, step)
        elif step.batch is None:
            tally.gap(number, step.entry)
        else:
            tally.decided(number, step, step.batch, next(outcomes))
    changes = ledger.take_changes()
    last = tally.records[-1]
    after = replace(
        before,
        id=last.id,
        digest=last.digest,
        number=last.number,
        hash=last.hash,
        highest_tx=ledger.highest_tx,
        totals=tally.totals,
    )
    moved = (step.entry if isinstance(step, Step) else step for step in steps if _moves(step))
    return Commit(
        before,
        after,
        tally.records,
        tally.taken,
        index_mentions(tally.named),
        changes.balances,
        changes.disputes,
        {source: positions[source] for source in sorted(sources_of(moved))},
        [step for step in steps if isinstance(step, Foreign) and step.digest],
    )


def _moves(step: Step | Foreign) -> bool:
    """Whether it moves the position of a source."""
    return isinstance(step, Lost) or (isinstance(step, Step) and step.batch is not None)


@dataclass(slots=True)
class _Tally:
    """What the records of a commit add up to."""

    chain: str
    totals: Totals
    records: list[Record] = field(default_factory=list)
    taken: list[Taken] = field(default_factory=list)
    named: list[tuple[int, Column]] = field(default_factory=list)

    def dead(self, number: int, foreign: Foreign) -> None:
        self._add(record_dead(number, foreign, self.chain), dead=1)

    def lost(self, number: int, lost: Lost) -> None:
        self._add(record_lost(number, lost, self.chain), dead=1 if lost.digest else 0)

    def gap(self, number: int, entry: Entry) -> None:
        self._add(record_gap(number, entry, self.chain), gaps=1)

    def decided(self, number: int, step: Step, batch: Batch, outcome: Outcome) -> None:
        refused = np.concatenate([_NONE, *outcome.refused.values()])
        self._add(
            record_entry(number, step.entry, step.first, outcome.refused, self.chain),
            applied=len(batch) - len(refused),
            refused=len(refused),
            skipped=step.first,
        )
        taken = taken_by(number, batch, outcome.taken, refused)
        if taken is not None:
            self.taken.append(taken)
        if len(outcome.taken) < len(batch):
            self.named.append((number, named_only(batch, outcome.taken)))

    def _add(self, record: Record, **counts: int) -> None:
        self.records.append(record)
        self.chain = record.hash
        self.totals = replace(
            self.totals, **{name: getattr(self.totals, name) + count for name, count in counts.items()}
        )
