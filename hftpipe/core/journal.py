"""The journal: one record for each entry of the log, hash-chained, the same for any worker and any commit size."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

import orjson

from hftpipe.core.entry import Entry, EntryId, Foreign
from hftpipe.core.ledger import Deposit, Refusal, Undisputable
from hftpipe.core.transaction import MOVING, Column, Kind

GENESIS: Final = "0" * 32
"""The hash before the first record."""

Outcomes = Mapping[str, object]
"""What became of an entry: `{}` when all its rows were applied, else some of
`skipped` (that many leading rows were applied before), `refused` (reason → indexes of rows),
`gap` (rows before it are missing, none was applied), `dead` (why it is no entry of ours)."""


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
    number: int, entry: Entry, skipped: int, refused: Mapping[Refusal, Column], before: str
) -> Record:
    """The record of an entry whose rows from `skipped` on were decided; indexes of `refused` count from there."""
    outcomes: dict[str, object] = {}
    if skipped:
        outcomes["skipped"] = skipped
    if refused:
        outcomes["refused"] = {reason.value: indexes + skipped for reason, indexes in refused.items()}
    return _record_ours(number, entry, outcomes, before)


def record_gap(number: int, entry: Entry, before: str) -> Record:
    """The record of an entry that was left alone because rows of its source are missing before it."""
    return _record_ours(number, entry, {"gap": True}, before)


def record_dead(number: int, foreign: Foreign, before: str) -> Record:
    """The record of an entry that no producer of ours can have made; its fields go to the dead letters."""
    return _seal(number, foreign.id, ("", 0, 0, 0, 0, ""), {"dead": foreign.reason}, foreign.digest, before)


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
