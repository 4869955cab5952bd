"""From entries to a commit: source chain, then ledger, then journal; pure.

`follow_chain` says which rows of each entry are new, `post` decides them. Between the two the caller teaches the
ledger what the store knows (`Ledger.needs`, `Ledger.learn`).
"""

from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, replace

from hftpipe.core.chain import first_new_row
from hftpipe.core.commit import Checkpoint, Commit, Totals
from hftpipe.core.entry import Entry, Foreign
from hftpipe.core.journal import Record, record_dead, record_entry, record_gap
from hftpipe.core.ledger import Ledger, Outcome
from hftpipe.core.transaction import Batch


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
    return [entry if isinstance(entry, Foreign) else _step(entry, positions) for entry in entries]


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
    records: list[Record] = []
    taken: list[tuple[int, Sequence[int]]] = []
    totals, chain = before.totals, before.hash
    for number, step in numbered:
        record, ids, totals = _record(number, step, outcomes, chain, totals)
        records.append(record)
        chain = record.hash
        if ids:
            taken.append((number, ids))
    changes = ledger.take_changes()
    last = records[-1]
    after = replace(
        before,
        id=last.id,
        digest=last.digest,
        number=last.number,
        hash=chain,
        highest_tx=ledger.highest_tx,
        totals=totals,
    )
    sources = {step.entry.source for step in steps if isinstance(step, Step) and step.batch is not None}
    return Commit(
        before,
        after,
        records,
        taken,
        changes.balances,
        changes.disputes,
        {source: positions[source] for source in sorted(sources)},
        [step for step in steps if isinstance(step, Foreign)],
    )


def _record(
    number: int, step: Step | Foreign, outcomes: Iterator[Outcome], chain: str, totals: Totals
) -> tuple[Record, Sequence[int], Totals]:
    if isinstance(step, Foreign):
        return record_dead(number, step, chain), (), replace(totals, dead=totals.dead + 1)
    if step.batch is None:
        return record_gap(number, step.entry, chain), (), replace(totals, gaps=totals.gaps + 1)
    outcome = next(outcomes)
    record = record_entry(number, step.entry, step.first, outcome.refused, chain)
    refused = len(outcome.refused)
    totals = replace(
        totals,
        applied=totals.applied + len(step.batch) - refused,
        refused=totals.refused + refused,
        skipped=totals.skipped + step.first,
    )
    return record, outcome.taken, totals
