"""What must be true of a run, judged from outside: by the shared invariants, by what the sources said, and by a model."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction

from hftpipe.core.routing import shard_of
from hftpipe.core.snapshot import Snapshot
from hftpipe.core.transaction import SCALE
from hftpipe.invariants import violations
from tests.core.driver import decided, told
from tests.core.model import Model
from tests.simulation.workload import Row, Text

Decided = Mapping[str, Mapping[int, str]]
"""Outcome by row, by source, over all shards."""


def broken_shards(
    snapshots: Iterable[Snapshot], earlier: Iterable[Snapshot | None], durable: Mapping[str, set[int]]
) -> Iterator[str]:
    """What the shared invariants say of each shard; `durable` rows by source are those of all shards."""
    texts = {}
    for snapshot, before in zip(snapshots, earlier, strict=True):
        for line in violations(snapshot, durable=durable_here(snapshot, durable), earlier=before):
            texts[f"shard {snapshot.shard}: {line}"] = None
    yield from texts


def durable_here(snapshot: Snapshot, durable: Mapping[str, set[int]]) -> Mapping[str, set[int]]:
    """All durable rows, as each shard is asked for its own only."""
    prefix = f"{snapshot.shard}/"
    return {name.removeprefix(prefix): rows for name, rows in durable.items() if name.startswith(prefix)}


def decided_rows(snapshots: Iterable[Snapshot]) -> Decided:
    """Every row that was applied or refused."""
    outcomes: dict[str, dict[int, str]] = defaultdict(dict)
    for snapshot in snapshots:
        for source, row, outcome in decided(snapshot.tables.records):
            outcomes[source][row] = outcome
    return outcomes


def broken_file(name: str, text: Text, outcomes: Decided) -> Iterator[str]:
    """A file that was ingested to its end: each of its valid rows is decided, and none else."""
    there, wanted = outcomes.get(name, {}).keys(), text.rows.keys()
    if missing := sorted(wanted - there):
        yield f"I3: rows {missing} of {name} are not decided"
    if invented := sorted(there - wanted):
        yield f"I12: rows {invented} of {name} were invented"


def broken_content(snapshot: Snapshot, texts: Mapping[str, Text]) -> Iterator[str]:
    """The journal holds what the sources said, and every row is in the shard of its account."""
    for record in snapshot.tables.records:
        if not record.payload:
            continue
        text = texts[record.source.partition("+")[0]]
        for row, said in _rows_of(record.payload, record.previous):
            if text.rows.get(row) != said:
                yield f"I1: row {row} of {record.source} says {text.rows.get(row)}, the journal {said}"
            if shard_of(said[1], snapshot.shards) != snapshot.shard:
                yield f"I4: row {row} of {record.source} is in shard {snapshot.shard}"


def broken_balances(
    snapshot: Snapshot, texts: Mapping[str, Text], order: Iterable[tuple[str, int]] | None
) -> Iterator[str]:
    """Outcomes and balances are those of an independent model that was told each row once, without any fault.

    order: of the rows that the model is told; None for the journal's.
    """
    records, tables = snapshot.tables.records, snapshot.tables
    outcomes = {(source, row): outcome for source, row, outcome in decided(records)}
    model = Model()
    for source, row in outcomes if order is None else order:
        said = texts[source.partition("+")[0]].rows[row]
        if shard_of(said[1], snapshot.shards) != snapshot.shard:
            continue
        expected = model.tell(*said)
        if outcomes.get((source, row)) != expected:
            yield f"I2: row {row} of {source} is {outcomes.get((source, row))}, the model says {expected}"
    for account in sorted(model.accounts() | tables.balances.keys()):
        available, held, locked, _ = tables.balances.get(account, (0, 0, False, 0))
        if (Fraction(available, SCALE), Fraction(held, SCALE), locked) != model.balance(account):
            yield f"I1: account {account} has {available}, {held}, {locked}; the model {model.balance(account)}"


def broken_live(names: Iterable[str], outcomes: Decided) -> Iterator[str]:
    """A live source that had to go on under other names: no row was decided under two of them."""
    seen: dict[tuple[str, int], str] = {}
    for name in names:
        for row in outcomes.get(name, {}):
            first = seen.setdefault((name.partition("+")[0], row), name)
            if first != name:
                yield f"I2: row {row} was decided as one of {first} and again as one of {name}"


def _rows_of(payload: str, previous: int) -> Iterator[tuple[int, Row]]:
    import orjson

    columns = orjson.loads(payload)
    row = previous
    txs = columns["tx"] or [None] * len(columns["account"])
    for kind, account, tx, amount, step in zip(
        columns["kind"], columns["account"], txs, columns["amount"], columns["row"], strict=True
    ):
        row += step
        yield row, (kind, account, tx, amount)


__all__ = ["told"]
