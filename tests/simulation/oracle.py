"""What must be true of a shard, judged from outside: by the shared invariants, the sources' own words, and a model."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction

import orjson

from hftpipe.core.routing import shard_of
from hftpipe.core.snapshot import Snapshot
from hftpipe.core.transaction import SCALE
from hftpipe.invariants import violations
from tests.core.driver import decided
from tests.core.model import Model
from tests.simulation.workload import Row, Text

Texts = Mapping[str, Text]
"""What each source says, by its name; one that goes on under another name has a + behind it."""

Decided = Mapping[str, Mapping[int, str]]
"""Outcome by row, by source, over all shards."""


def text_of_source(texts: Texts, source: str) -> Text:
    """What a source says, under whatever name it goes on."""
    return texts[source.partition("+")[0]]


def broken_shards(
    snapshots: Iterable[Snapshot],
    earlier: Iterable[Snapshot],
    durable: Mapping[str, Iterable[int]],
    texts: Texts,
) -> Iterator[str]:
    """What the shared invariants say of each shard; `durable` are the rows of all shards, by source."""
    for snapshot, before in zip(snapshots, earlier, strict=True):
        here = {
            source: [
                row
                for row in rows
                if shard_of(text_of_source(texts, source).rows[row][1], snapshot.shards) == snapshot.shard
            ]
            for source, rows in durable.items()
        }
        for line in violations(snapshot, durable=here, earlier=before):
            yield f"shard {snapshot.shard}: {line}"


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


def broken_content(snapshot: Snapshot, texts: Texts) -> Iterator[str]:
    """The journal holds what the sources said, and every row is in the shard of its account."""
    for record in snapshot.tables.records:
        if not record.payload:
            continue
        text = text_of_source(texts, record.source)
        for row, said in _rows_of(record.payload, record.previous):
            if text.rows.get(row) != said:
                yield f"I1: row {row} of {record.source} says {text.rows.get(row)}, the journal {said}"
            if shard_of(said[1], snapshot.shards) != snapshot.shard:
                yield f"I4: row {row} of {record.source} is in shard {snapshot.shard}"


def broken_outcomes(snapshot: Snapshot, texts: Texts, order: Iterable[tuple[str, int]]) -> Iterator[str]:
    """Outcomes and balances are those of an independent model that is told each row once, in an order."""
    records, tables = snapshot.tables.records, snapshot.tables
    outcomes = {(source, row): outcome for source, row, outcome in decided(records)}
    model = Model()
    for source, row in order:
        expected = model.tell(*text_of_source(texts, source).rows[row])
        if (outcome := outcomes.get((source, row))) != expected:
            yield f"I2: row {row} of {source} is {outcome}, the model says {expected}"
    for account in sorted(model.accounts() | tables.balances.keys()):
        available, held, locked, _ = tables.balances.get(account, (0, 0, False, 0))
        if (Fraction(available, SCALE), Fraction(held, SCALE), locked) != model.balance(account):
            yield f"I1: account {account} has {available}, {held}, {locked}; the model {model.balance(account)}"


def journal_order(snapshot: Snapshot) -> list[tuple[str, int]]:
    """The rows in the order in which they were decided."""
    return [(source, row) for source, row, _ in decided(snapshot.tables.records)]


def file_order(snapshot: Snapshot, outcomes: Decided, texts: Texts) -> list[tuple[str, int]]:
    """The same rows, one source after the other: for sources that name no common account or id."""
    return [
        (source, row)
        for source in sorted(outcomes)
        for row in sorted(outcomes[source])
        if shard_of(text_of_source(texts, source).rows[row][1], snapshot.shards) == snapshot.shard
    ]


def _rows_of(payload: str, previous: int) -> Iterator[tuple[int, Row]]:
    columns = orjson.loads(payload)
    row = previous
    txs = columns["tx"] or [None] * len(columns["account"])
    for kind, account, tx, amount, step in zip(
        columns["kind"], columns["account"], txs, columns["amount"], columns["row"], strict=True
    ):
        row += step
        yield row, (kind, account, tx, amount)
