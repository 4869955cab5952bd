"""Decided entries told transaction by transaction: the rule that decided, and what it changed."""

import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import orjson

from hftpipe.audit.material import Recording, TakenAt, opened
from hftpipe.audit.parallel import Tell
from hftpipe.audit.recount import COMMIT_TRANSACTIONS, Books, decide, groups
from hftpipe.audit.scratch import Scratch
from hftpipe.audit.tally import Teller as Progressing
from hftpipe.core.amount import render
from hftpipe.core.commit import Commit
from hftpipe.core.entry import Entry, Foreign
from hftpipe.core.journal import Record, skipped_in
from hftpipe.core.picked_ledger import PickedLedger, Wanted
from hftpipe.core.rules import Account, DisputeState
from hftpipe.core.transaction import Kind
from hftpipe.core.walked_ledger import Decision, Place, WalkedLedger
from hftpipe.core.why import APPLIED, GAP, KIND_NAMES, SKIPPED, Grounds, dispute_state, why

Taker = Callable[[int], TakenAt | None]
"""Which transaction took an id; None when that is not known."""


@dataclass(frozen=True, slots=True)
class Explained:
    """One transaction as it was decided, and why.

    number, address: of the journal record, and of its entry. amount: ten-thousandths; of a dispute, resolve and
    chargeback that of the deposit, None where there is none. rule: in words with numbers.
    before, after: the account; None for a row that was not decided here. dispute_before, dispute_after: of the deposit
    that `tx` stands for, None where it stands for none.
    """

    number: int
    address: str
    source: str
    row: int
    kind: Kind
    account: int
    tx: int | None
    amount: int | None
    outcome: str
    rule: str
    before: Account | None
    after: Account | None
    dispute_before: DisputeState | None
    dispute_after: DisputeState | None


def explain_wanted(
    books: Books,
    shard: int,
    entries: Iterable[Entry | Foreign],
    wanted: Wanted,
    taker: Taker,
    transactions: int = COMMIT_TRANSACTIONS,
) -> Iterator[tuple[Commit, list[Explained]]]:
    """Decides all entries, going on where `books` stand, and tells the wanted transactions of each commit.

    transactions: of a commit, about.
    """
    highest_tx, seed = books.checkpoint().highest_tx, secrets.randbits(64)
    ledger = PickedLedger(wanted, books.facts, highest_tx, seed)
    telling = Telling(shard, taker)
    known: dict[str, int] = {}
    for group in groups(entries, transactions):
        commit = decide(books, group, ledger, known)
        yield commit, telling.tell(group, commit.records, ledger.decisions, wanted)


def explain_all(
    books: Books, entries: Sequence[Entry | Foreign], telling: "Telling"
) -> tuple[Commit, list[Explained]]:
    """Decides some entries in one commit, and tells all their transactions. entries: one at least."""
    ledger = WalkedLedger(books.checkpoint().highest_tx)
    commit = decide(books, entries, ledger)
    return commit, telling.tell(entries, commit.records, ledger.decisions, None)


@dataclass(slots=True)
class Telling:
    """Tells decisions of one shard; remembers which chargeback locked an account."""

    shard: int
    taker: Taker
    _locks: dict[int, str] = field(default_factory=dict)

    def tell(
        self,
        entries: Sequence[Entry | Foreign],
        records: Sequence[Record],
        decisions: Sequence[Decision],
        wanted: Wanted | None,
    ) -> list[Explained]:
        """The decisions in words, and with them the rows that were not decided anew: skipped, or behind a gap.

        entries: those of the records. decisions: in their order. wanted: None for all rows.
        """
        by_number: dict[int, list[Decision]] = {}
        for decision in decisions:
            by_number.setdefault(decision.place.number, []).append(decision)
        told: list[Explained] = []
        named = {record.number: (record, entry) for record, entry in zip(records, entries, strict=True)}
        for number, (record, entry) in named.items():
            if isinstance(entry, Foreign):
                continue
            told += self._undecided(record, entry, wanted)
            first = skipped_in(record.outcomes)
            for decision in by_number.get(number, ()):
                told.append(self._decided(record, entry, first, decision, named))
        return told

    def _undecided(self, record: Record, entry: Entry, wanted: Wanted | None) -> Iterator[Explained]:
        outcome = GAP if _GAP in record.outcomes else SKIPPED
        count = len(entry.batch) if outcome == GAP else skipped_in(record.outcomes)
        if not count:
            return
        batch = entry.batch.slice(0, count)
        flags = [True] * count if wanted is None else wanted.among(batch).tolist()
        for index in (index for index, is_meant in enumerate(flags) if is_meant):
            kind, account = Kind(batch.kinds[index]), int(batch.accounts[index])
            tx = None if batch.txs is None else int(batch.txs[index])
            amount = int(batch.amounts[index])
            yield Explained(
                record.number,
                self._address(record),
                entry.source,
                int(batch.rows[index]),
                kind,
                account,
                tx,
                amount or None,
                outcome,
                why(outcome, Grounds(kind, account, tx, amount)),
                None,
                None,
                None,
                None,
            )

    def _decided(
        self,
        record: Record,
        entry: Entry,
        first: int,
        decision: Decision,
        named: dict[int, tuple[Record, Entry | Foreign]],
    ) -> Explained:
        row = int(entry.batch.rows[first + decision.place.index])
        outcome = APPLIED if decision.refusal is None else str(decision.refusal)
        deposit = decision.stood if decision.kind not in _MOVING else None
        grounds = Grounds(
            decision.kind,
            decision.account_id,
            decision.tx,
            decision.amount,
            decision.before,
            deposit,
            self._taken_by(decision, outcome, named),
            self._locks.get(decision.account_id, ""),
        )
        address = self._address(record)
        if decision.after.locked and not decision.before.locked:
            self._locks[decision.account_id] = f"the chargeback of tx {decision.tx} at {address}, row {row}"
        disputed = getattr(deposit, "amount", None)
        return Explained(
            record.number,
            address,
            entry.source,
            row,
            decision.kind,
            decision.account_id,
            decision.tx,
            decision.amount if decision.kind in _MOVING else disputed,
            outcome,
            why(outcome, grounds),
            decision.before,
            decision.after,
            dispute_state(decision.stood),
            dispute_state(decision.stands),
        )

    def _taken_by(
        self, decision: Decision, outcome: str, named: dict[int, tuple[Record, Entry | Foreign]]
    ) -> str:
        if outcome not in _ABOUT_IDS or decision.tx is None:
            return ""
        if decision.taken_by is not None:
            return self._place(decision.taken_by, named)
        taken = self.taker(decision.tx)
        return "" if taken is None else str(taken)

    def _place(self, place: Place, named: dict[int, tuple[Record, Entry | Foreign]]) -> str:
        record, entry = named[place.number]
        if isinstance(entry, Foreign):
            return ""
        skipped = skipped_in(record.outcomes)
        return f"{self._address(record)}, row {int(entry.batch.rows[skipped + place.index])}"

    def _address(self, record: Record) -> str:
        return f"{self.shard}/{record.id}"


_MOVING = frozenset({Kind.DEPOSIT, Kind.WITHDRAWAL})
_GAP = '"gap":true'
_ABOUT_IDS = frozenset({"duplicate_tx", "not_disputable"})


EXPLAINED_COLUMNS: Final = (
    "entry",
    "source",
    "row",
    "kind",
    "client",
    "tx",
    "amount",
    "outcome",
    "rule",
    "available_before",
    "held_before",
    "locked_before",
    "available",
    "held",
    "locked",
    "dispute_before",
    "dispute",
)


def explained_row(explained: Explained) -> list[object]:
    """The values of EXPLAINED_COLUMNS; amounts with four decimals, None for what is not known or not there."""
    return [
        explained.address,
        explained.source,
        explained.row,
        KIND_NAMES[explained.kind],
        explained.account,
        explained.tx,
        None if explained.amount is None else render(explained.amount),
        explained.outcome,
        explained.rule,
        *_balance(explained.before),
        *_balance(explained.after),
        explained.dispute_before,
        explained.dispute_after,
    ]


def _balance(account: Account | None) -> list[object]:
    return (
        [None] * 3 if account is None else [render(account.available), render(account.held), account.locked]
    )


@dataclass(frozen=True, slots=True)
class Explain:
    """Replays any shard of a recording and tells the wanted transactions: a `parallel.Task`.

    It returns how many, and the first journal record that the ledger does not make again; 0 for none.
    folder: gets a store for each shard, and the told transactions.
    """

    recording: Recording
    folder: Path
    wanted: Wanted

    def __call__(self, shard: int, tell: Tell) -> tuple[int, int]:
        count = disagrees = 0
        with (
            opened(self.recording, shard) as material,
            Scratch(self.folder, material.identity, material.generation, journal=False) as scratch,
            _told(self.folder, shard).open("wb") as file,
        ):
            progress = Progressing(shard, material.records, tell)
            entries = material.feed()
            for commit, told in explain_wanted(scratch, shard, entries, self.wanted, material.taker):
                progress.add(commit)
                disagrees = material.compare(commit.records)
                for explained in told:
                    if explained.number >= material.reported_from:
                        file.write(orjson.dumps(explained_row(explained)) + b"\n")
                        count += 1
        return count, disagrees


def told_rows(folder: Path, shards: Iterable[int]) -> Iterator[list[object]]:
    """What `Explain` has told, shard by shard: rows of EXPLAINED_COLUMNS."""
    for shard in shards:
        with _told(folder, shard).open("rb") as file:
            for line in file:
                yield orjson.loads(line)


def _told(folder: Path, shard: int) -> Path:
    return folder / f"explained-{shard:04}.jsonl"
