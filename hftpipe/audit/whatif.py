"""What if the rules were others: the same entries decided by both, and where that makes a difference."""

import secrets
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from hftpipe.audit.changed_rules import load_rules
from hftpipe.audit.material import Recording, opened
from hftpipe.audit.parallel import Tell
from hftpipe.audit.recount import COMMIT_TRANSACTIONS, decide, groups
from hftpipe.audit.scratch import Scratch
from hftpipe.audit.tally import Tally, Teller
from hftpipe.core.columnar_ledger import ColumnarLedger
from hftpipe.core.entry import Entry
from hftpipe.core.journal import Record
from hftpipe.core.ledger import Ledger
from hftpipe.core.picked_ledger import Wanted
from hftpipe.core.transaction import Kind
from hftpipe.core.why import APPLIED, KIND_NAMES
from hftpipe.store.reading import Balance, balances

OUTCOME_COLUMNS = ("entry", "source", "row", "kind", "client", "tx", "amount", "then", "now")

Differing = tuple[str, str, int, str, int, int | None, int, str, str]
"""The columns of OUTCOME_COLUMNS; the amount in ten-thousandths, 0 for dispute, resolve and chargeback."""


@dataclass(slots=True)
class Sums:
    """All accounts of one side, in ten-thousandths."""

    accounts: int = 0
    available: int = 0
    held: int = 0
    locked: int = 0

    def add(self, balance: Balance) -> None:
        """Counts an account."""
        self.accounts += 1
        self.available += balance.available
        self.held += balance.held
        self.locked += balance.locked

    def merge(self, other: "Sums") -> None:
        """Adds another shard's."""
        for name in ("accounts", "available", "held", "locked"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(slots=True)
class Compared:
    """What came of the comparison of one shard, or several.

    changes: how many outcomes became which others. accounts: how many end with another balance.
    tally: of the standard rules. disagrees: the first journal record that these do not make again, by shard.
    """

    tally: Tally = field(default_factory=Tally)
    changes: Counter[tuple[str, str]] = field(default_factory=Counter)
    accounts: int = 0
    then: Sums = field(default_factory=Sums)
    now: Sums = field(default_factory=Sums)
    disagrees: dict[int, int] = field(default_factory=dict)

    def merge(self, other: "Compared") -> None:
        """Adds another shard's."""
        self.tally.merge(other.tally)
        self.changes.update(other.changes)
        self.accounts += other.accounts
        self.then.merge(other.then)
        self.now.merge(other.now)
        self.disagrees |= other.disagrees


@dataclass(frozen=True, slots=True)
class WhatIf:
    """Decides any shard of a recording by both rules: a `parallel.Task`.

    rules: the file with the changed ones. folder: gets two stores for each shard, and the outcomes that differ.
    wanted: of these alone it is told which outcomes differ; None for all.
    """

    recording: Recording
    rules: Path
    folder: Path
    wanted: Wanted | None = None

    def __call__(self, shard: int, tell: Tell) -> Compared:
        rules = load_rules(self.rules)
        compared = Compared()
        with ExitStack() as stack:
            material = stack.enter_context(opened(self.recording, shard))
            file = stack.enter_context(_differences(self.folder, shard).open("wb"))
            then, now = (
                stack.enter_context(Scratch(path, material.identity, material.generation, journal=False))
                for path in self._sides(shard)
            )
            standard = ColumnarLedger(seed=secrets.randbits(64))
            teller = Teller(shard, material.records, tell)
            known: dict[str, int] = {}
            for group in groups(material.feed(), COMMIT_TRANSACTIONS):
                commit = decide(then, group, standard, known)
                # Made anew each time: the plain ledger never forgets an account.
                other = decide(now, group, Ledger(now.checkpoint().highest_tx, rules))
                if (number := material.compare(commit.records)) and shard not in compared.disagrees:
                    compared.disagrees[shard] = number
                meant = [record.number >= material.reported_from for record in commit.records]
                pairs = zip(group, commit.records, other.records, meant, strict=True)
                compared.tally.add(record for _, record, _, is_meant in pairs if is_meant)
                pairs = zip(group, commit.records, other.records, meant, strict=True)
                for entry, one, another, is_meant in pairs:
                    if is_meant and one.outcomes != another.outcomes and isinstance(entry, Entry):
                        for row in self._differing(shard, entry, one, another):
                            compared.changes[row[-2:]] += 1
                            file.write(orjson.dumps(row) + b"\n")
                teller.add(commit)
        self._weigh(shard, compared)
        return compared

    def _differing(self, shard: int, entry: Entry, then: Record, now: Record) -> Iterator[Differing]:
        before, after = _refused(then), _refused(now)
        batch = entry.batch
        meant = None if self.wanted is None else self.wanted.among(batch)
        for index in sorted(before.keys() | after.keys()):
            outcomes = before.get(index, APPLIED), after.get(index, APPLIED)
            if outcomes[0] != outcomes[1] and (meant is None or meant[index]):
                yield (
                    f"{shard}/{entry.id}",
                    entry.source,
                    int(batch.rows[index]),
                    KIND_NAMES[Kind(batch.kinds[index])],
                    int(batch.accounts[index]),
                    None if batch.txs is None else int(batch.txs[index]),
                    int(batch.amounts[index]),
                    *outcomes,
                )

    def _weigh(self, shard: int, compared: Compared) -> None:
        """Both sides end with the same accounts: each exists from the first transaction that names it."""
        then, now = map(balances, self._sides(shard))
        for one, other in zip(then, now, strict=True):
            compared.then.add(one)
            compared.now.add(other)
            compared.accounts += one != other

    def _sides(self, shard: int) -> list[Path]:
        """A folder for each side of a shard."""
        paths = [self.folder / f"{side}-{shard:04}" for side in ("then", "now")]
        for path in paths:
            path.mkdir(exist_ok=True)
        return paths


def differing_outcomes(folder: Path, shards: Iterable[int]) -> Iterator[Differing]:
    """What `WhatIf` has found to differ, shard by shard."""
    for shard in shards:
        with _differences(folder, shard).open("rb") as file:
            for line in file:
                yield tuple(orjson.loads(line))


def _differences(folder: Path, shard: int) -> Path:
    return folder / f"outcomes-{shard:04}.jsonl"


def _refused(record: Record) -> dict[int, str]:
    """Index of each refused row, and why."""
    refused = orjson.loads(record.outcomes).get("refused", {})
    return {index: reason for reason, indexes in refused.items() for index in indexes}
