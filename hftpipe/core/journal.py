"""The journal: one record for each entry of the log, hash-chained, the same for any worker and any commit size."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

import orjson

from hftpipe.core.entry import Entry, EntryId, Foreign, Lost
from hftpipe.core.ledger import Deposit, Undisputable
from hftpipe.core.transaction import MOVING, Column, Kind

GENESIS: Final = "0" * 32
"""The hash before the first record."""

Outcomes = Mapping[str, object]
"""What became of an entry: `{}` when all its rows were applied, else some of
`skipped` (that many leading rows were applied before), `refused` (reason → indexes of rows),
`gap` (rows before it are missing, none was applied), `dead` (why it is no entry of ours),
`lost` (first and last of the entries that were given up; empty when nobody knows which) and with it `sources`
(positions of sources that go on without the rows before)."""

_LOST: Final = '{"lost":'


@dataclass(frozen=True, slots=True)
class Record:
    """One entry as it was applied. `hash` covers the record and the hash before it (BLAKE2b-16, hex)."""

    number: int
    id: EntryId
    source: str
    previous: int
    position: int
    time_ms: int
    count: int
    payload: str
    outcomes: str
    digest: str
    hash: str


def record_entry(
    number: int, entry: Entry, skipped: int, refused: Mapping[str, Column], before: str
) -> Record:
    """The record of an entry whose rows from `skipped` on were decided; indexes of `refused` count from there."""
    outcomes: dict[str, object] = {}
    if skipped:
        outcomes["skipped"] = skipped
    if refused:
        outcomes["refused"] = {str(reason): indexes + skipped for reason, indexes in refused.items()}
    return _record_ours(number, entry, outcomes, before)


def record_gap(number: int, entry: Entry, before: str) -> Record:
    """The record of an entry that was left alone because rows of its source are missing before it."""
    return _record_ours(number, entry, {"gap": True}, before)


def record_dead(number: int, foreign: Foreign, before: str) -> Record:
    """The record of an entry that no producer of ours can have made; its fields go to the dead letters."""
    return _seal(number, foreign.id, ("", 0, 0, 0, 0, ""), {"dead": foreign.reason}, foreign.digest, before)


def record_lost(number: int, lost: Lost, before: str) -> Record:
    """The record of a loss that an operator has accepted; what is left of a damaged entry goes to the dead letters."""
    outcomes: dict[str, object] = {"lost": [] if lost.first is None else [str(lost.first), str(lost.id)]}
    if lost.positions:
        outcomes["sources"] = {source: lost.positions[source] for source in sorted(lost.positions)}
    if lost.digest:
        outcomes["dead"] = lost.reason
    return _seal(number, lost.id, ("", 0, 0, 0, 0, ""), outcomes, lost.digest, before)


def is_loss(record: Record) -> bool:
    """Whether it is the record of a loss."""
    return record.outcomes.startswith(_LOST)


def lost_in(record: Record, fields: Mapping[bytes, bytes]) -> Lost:
    """The loss that a record is of. fields: of its dead letter. Raises ValueError when it says anything else."""
    told = orjson.loads(record.outcomes)
    span, positions = told["lost"], told.get("sources", {})
    first = EntryId.parse(span[0]) if span else None
    if span and (len(span) != 2 or span[1] != str(record.id) or first is None or first > record.id):
        raise ValueError(f"it lost {span}, and is the record of {record.id}")
    if not all(type(position) is int and position > 0 for position in positions.values()):
        raise ValueError("it holds a position that is none")
    reason = told.get("dead", f"given up: {loss_told(first, record.id)}")
    return Lost(record.id, reason, fields, record.digest, first, positions)


def follows(record: Record, before: EntryId) -> bool:
    """Whether what a record is of comes right behind the entry of the record before; if not, the log lost its tail.

    Where nobody knows what was lost, the shard goes on at or before that entry.
    """
    if not is_loss(record):
        return record.id == before.moved(1)
    span = orjson.loads(record.outcomes)["lost"]
    return EntryId.parse(span[0]) == before.moved(1) if span else record.id <= before


def loss_told(first: EntryId | None, last: EntryId) -> str:
    """Which entries were given up, in words."""
    if first is None:
        return f"whatever was behind {last}"
    return f"{first}" if first == last else f"{first} to {last}"


def _record_ours(number: int, entry: Entry, outcomes: Outcomes, before: str) -> Record:
    content = (entry.source, entry.previous, entry.position, entry.time_ms, len(entry.batch), entry.payload)
    return _seal(number, entry.id, content, outcomes, entry.digest, before)


def _seal(
    number: int,
    entry_id: EntryId,
    content: tuple[str, int, int, int, int, str],
    outcomes: Outcomes,
    digest: str,
    before: str,
) -> Record:
    text = orjson.dumps(outcomes, option=orjson.OPT_SERIALIZE_NUMPY).decode()
    return Record(number, entry_id, *content, text, digest, link(before, number, entry_id, digest, text))


def link(before: str, number: int, entry_id: EntryId, digest: str, outcomes: str) -> str:
    """The hash of a record: the entry's digest stands for its content."""
    sealed = f"{before} {number} {entry_id} {digest} {outcomes}"
    return blake2b(sealed.encode(), digest_size=16).hexdigest()


def skipped_in(outcomes: str) -> int:
    """How many leading rows of a record's entry had been decided before. outcomes: of the record."""
    return int(orjson.loads(outcomes).get("skipped", 0)) if "skipped" in outcomes else 0


def deposits_in(payload: str, outcomes: str, wanted: Iterable[int]) -> dict[int, Deposit | Undisputable]:
    """What the wanted transaction ids, all taken by this one record, stand for.

    payload, outcomes: of the record in the journal.
    """
    columns, outcome = orjson.loads(payload), orjson.loads(outcomes)
    kinds, txs = columns["kind"], columns["tx"]
    refused = {index for indexes in outcome.get("refused", {}).values() for index in indexes}
    found: dict[int, Deposit | Undisputable] = {}
    for tx in wanted:
        index = txs.index(tx, outcome.get("skipped", 0))
        while kinds[index] not in MOVING:
            index = txs.index(tx, index + 1)
        if kinds[index] == Kind.DEPOSIT.value and index not in refused:
            found[tx] = Deposit(columns["account"][index], columns["amount"][index])
        else:
            found[tx] = Undisputable.TAKEN
    return found
