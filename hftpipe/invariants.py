"""What must hold of a shard at every moment, checked from its journal alone.

| invariant | checked here |
|---|---|
| I1 conservation | balances are the fold of the journal; deposits - withdrawals - chargebacks = money there |
| I2 exactly once | each row of a source is decided once, each transaction id taken once |
| I3 no loss | every row said to be durable is in the journal |
| I4 order | the rows of a source are decided in its order |
| I5 fencing | epochs never decrease |
| I8 determinism | the journal, replayed entry by entry, gives the same outcomes, hashes and tables |
| I9 contiguity | entry ids are gapless, but where the checkpoint went back |
| I10 no partial batch | checkpoint and totals are those of the last record |

I6 and I7 are about moments, not states: whoever stops and starts processes compares snapshots.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise

import orjson

from hftpipe.core.commit import Commit, Totals
from hftpipe.core.entry import Entry, Foreign, digest_of, origin
from hftpipe.core.journal import GENESIS, Record, follows, is_loss, lost_in
from hftpipe.core.ledger import Ledger
from hftpipe.core.payload import read_columns
from hftpipe.core.posting import batches_of, follow_chain, post
from hftpipe.core.recorded import fields_of
from hftpipe.core.snapshot import Snapshot, Tables
from hftpipe.core.transaction import Kind
from hftpipe.ports import Topology
from hftpipe.store.memory import MemoryStore


def violations(
    snapshot: Snapshot,
    *,
    durable: Mapping[str, Iterable[int]] | None = None,
    earlier: Snapshot | None = None,
) -> list[str]:
    """One line for everything that does not hold; empty when all is well.

    durable: rows of this shard, by source, that were acknowledged as durable.
    earlier: a former look at the same shard.
    """
    if broken := list(_broken_digests(snapshot.tables.records)):
        return broken  # what was changed cannot be decided again
    return [
        *_broken_ids(snapshot),
        *_broken_replay(snapshot),
        *_broken_money(snapshot.tables),
        *_broken_rows(snapshot.tables, durable or {}),
        *_broken_end(snapshot),
        *_broken_epoch(snapshot, earlier),
    ]


def replay(snapshot: Snapshot) -> Iterator[tuple[Record, Commit, MemoryStore]]:
    """Decides the journal anew, entry by entry: each record, what it came to, and the store up to it."""
    store = MemoryStore(Topology(snapshot.pipeline, snapshot.shards, 1, 1), snapshot.shard)
    epoch = store.take("replay", store.ownership()) or 0
    for record in snapshot.tables.records:
        before = store.checkpoint()
        entry = _entry(record)
        positions = store.positions({record.source})
        steps = follow_chain([entry], positions)
        ledger = Ledger(before.highest_tx)
        needs = ledger.needs(batches_of(steps))
        ledger.learn(needs, store.facts(needs))
        commit = post(ledger, before, steps, positions)
        store.commit(epoch, commit)
        yield record, commit, store


def _entry(record: Record) -> Entry | Foreign:
    if is_loss(record):
        return lost_in(record, {})
    if reason := orjson.loads(record.outcomes).get("dead"):
        return Foreign(record.id, reason, {}, record.digest)
    return Entry(
        record.id,
        record.source,
        record.previous,
        record.position,
        record.time_ms,
        record.payload,
        record.digest,
        read_columns(record.payload.encode(), record.previous, record.count),
    )


def _broken_digests(records: Iterable[Record]) -> Iterator[str]:
    for record in records:
        if record.payload and digest_of(fields_of(record)) != record.digest:
            yield f"I8: the content of record {record.number} does not match its digest"
        elif not record.payload and "dead" not in record.outcomes and not is_loss(record):
            yield f"I8: record {record.number} holds nothing, and does not say why: {record.outcomes}"
        elif is_loss(record) and not _is_readable(record):
            yield f"I8: the loss of record {record.number} cannot be read: {record.outcomes}"


def _is_readable(record: Record) -> bool:
    try:
        lost_in(record, {})
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return False
    return True


def _broken_ids(snapshot: Snapshot) -> Iterator[str]:
    records = snapshot.tables.records
    jumps = sum(not follows(after, before.id) for before, after in pairwise(records))
    if jumps > snapshot.checkpoint.incarnation:
        yield f"I9: entry ids jump {jumps} times, the checkpoint went back {snapshot.checkpoint.incarnation} times"
    for number, record in enumerate(records, 1):
        if record.number != number:
            yield f"I9: record {record.number} stands at place {number}"
            return
    if records and not follows(records[0], origin(records[0].id.generation)):
        yield f"I9: the journal begins with entry {records[0].id}"


def _broken_replay(snapshot: Snapshot) -> Iterator[str]:
    tables = snapshot.tables
    store: MemoryStore | None = None
    for record, commit, store in replay(snapshot):  # noqa: B007 - the last store is the whole journal's
        if (again := commit.records[0]) != record:
            yield f"I8: record {record.number} says {record.outcomes}, replayed {again.outcomes}; or its hash differs"
            return
    replayed = store.snapshot().tables if store is not None else Tables([], {}, {}, {}, {}, {}, {}, {}, {})
    for name in ("balances", "id_ranges", "late_ids", "taken_ids", "mentions", "disputes", "sources", "dead"):
        there, expected = getattr(tables, name), getattr(replayed, name)
        for key in sorted(there.keys() | expected.keys(), key=str):
            if there.get(key) != expected.get(key):
                yield f"I1: {name} {key} is {there.get(key)}, the journal says {expected.get(key)}"


def _broken_money(tables: Tables) -> Iterator[str]:
    """Counted in one sum, without the ledger: what came in, went out and was charged back is what is there."""
    money = 0
    for record in tables.records:
        outcomes = orjson.loads(record.outcomes)
        if not record.payload or "gap" in outcomes:
            continue
        batch = read_columns(record.payload.encode(), record.previous, record.count)
        refused = {index for indexes in outcomes.get("refused", {}).values() for index in indexes}
        for index in range(outcomes.get("skipped", 0), len(batch)):
            if index not in refused:
                money += _SIGNS.get(batch.kinds[index], 0) * int(batch.amounts[index])
    money -= sum(amount for _, amount, state in tables.disputes.values() if state == "charged_back")
    there = sum(available + held for available, held, _, _ in tables.balances.values())
    if there != money:
        yield f"I1: balances hold {there}, the journal's rows sum up to {money}"


_SIGNS = {Kind.DEPOSIT.value: 1, Kind.WITHDRAWAL.value: -1}


def _broken_rows(tables: Tables, durable: Mapping[str, Iterable[int]]) -> Iterator[str]:
    decided: dict[str, list[int]] = {}
    for record in tables.records:
        outcomes = orjson.loads(record.outcomes)
        if record.payload and "gap" not in outcomes:
            batch = read_columns(record.payload.encode(), record.previous, record.count)
            decided.setdefault(record.source, []).extend(batch.rows[outcomes.get("skipped", 0) :].tolist())
    for source, rows in decided.items():
        for before, row in pairwise(rows):
            if row <= before:
                kind = "I2: row {} of {} was decided twice" if row == before else "I4: row {} of {} came late"
                yield kind.format(row, source)
    for source, rows_durable in durable.items():
        for row in sorted(set(rows_durable) - set(decided.get(source, ()))):
            yield f"I3: row {row} of {source} was durable and is not in the journal"


def _broken_end(snapshot: Snapshot) -> Iterator[str]:
    checkpoint, records = snapshot.checkpoint, snapshot.tables.records
    last_hash = records[-1].hash if records else GENESIS
    if (checkpoint.number, checkpoint.hash) != (len(records), last_hash):
        yield f"I10: the checkpoint is at record {checkpoint.number}, the journal ends with {len(records)}"
    if not checkpoint.incarnation and checkpoint.id != (records[-1].id if records else origin(1)):
        yield f"I10: the checkpoint is {checkpoint.id}, the last record {records[-1].id if records else 'none'}"
    if checkpoint.totals != (totals := _totals(records)):
        yield f"I10: the totals are {checkpoint.totals}, the journal's {totals}"
    if checkpoint.highest_tx != (highest := max(snapshot.tables.id_ranges, default=-1)):
        yield f"I10: the highest transaction id is {checkpoint.highest_tx}, in the table {highest}"


def _totals(records: Iterable[Record]) -> Totals:
    applied = refused = skipped = gaps = dead = 0
    for record in records:
        outcomes = orjson.loads(record.outcomes)
        if not record.payload:
            dead += "dead" in outcomes
        elif "gap" in outcomes:
            gaps += 1
        else:
            refusals = sum(map(len, outcomes.get("refused", {}).values()))
            skipped += outcomes.get("skipped", 0)
            refused += refusals
            applied += record.count - outcomes.get("skipped", 0) - refusals
    return Totals(applied, refused, skipped, gaps, dead)


def _broken_epoch(snapshot: Snapshot, earlier: Snapshot | None) -> Iterator[str]:
    if snapshot.tables.records and snapshot.epoch < 1:
        yield "I5: entries were applied, but nobody ever owned the shard"
    if earlier is None:
        return
    if snapshot.epoch < earlier.epoch:
        yield f"I5: the epoch is {snapshot.epoch}, it was {earlier.epoch}"
    kept = snapshot.tables.records[: len(earlier.tables.records)]
    if list(kept) != list(earlier.tables.records):
        yield "I10: records that were committed have changed or gone"
