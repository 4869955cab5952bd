"""Transactions told one by one are those that the fast ledger has decided: outcome by outcome, balance by balance."""

from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftpipe.audit.explain import Explained, Telling, explain_all, explain_wanted
from hftpipe.audit.recount import recount
from hftpipe.core.columnar_ledger import ColumnarLedger
from hftpipe.core.commit import Checkpoint, Commit
from hftpipe.core.entry import Entry
from hftpipe.core.ledger import Facts, Needs
from hftpipe.core.picked_ledger import Wanted
from hftpipe.core.rules import Account
from hftpipe.store.memory import MemoryStore
from tests.core.driver import TOPOLOGY, Row, cut, decided, entry_of
from tests.core.test_columnar_ledger import Traffic

NOBODY = Telling(0, lambda _: None)


class MemoryBooks:
    """A store in memory, as something that entries are counted into."""

    def __init__(self) -> None:
        self.store = MemoryStore(TOPOLOGY, 0)
        self._epoch = self.store.take("test", self.store.ownership()) or 0

    def checkpoint(self) -> Checkpoint:
        return self.store.checkpoint()

    def facts(self, needs: Needs) -> Facts:
        return self.store.facts(needs)

    def positions(self, sources: set[str]) -> dict[str, int]:
        return self.store.positions(sources)

    def commit(self, commit: Commit) -> None:
        self.store.commit(self._epoch, commit)


def entries_of(rows: list[Row], random: Random) -> list[Entry]:
    """Rows in entries, each with ids or without; some entries come twice."""
    pieces = cut(len(rows), [random.randrange(1, len(rows) + 1) for _ in range(len(rows) // 7)])
    entries: list[Entry] = []
    for piece in pieces:
        group = [rows[index] for index in piece]
        if any(tx is None for _, _, tx, _ in group):
            group = [(kind, account, None, amount) for kind, account, _, amount in group if kind in "DW"]
        if group:
            previous = entries[-1].position if entries else 0
            entries.append(entry_of(len(entries), group, first=previous + 1))
            if random.random() < 0.1:
                entries.append(entry_of(len(entries), group, first=previous + 1))
    return entries


def folded(told: list[Explained]) -> dict[int, Account]:
    """Each account's last balance; every row must begin with the one before."""
    accounts: dict[int, Account] = {}
    for row in told:
        assert (row.before is None) == (row.after is None) == (row.outcome == "skipped")
        if row.before is not None and row.after is not None:
            assert row.before == accounts.get(row.account, Account())
            accounts[row.account] = row.after
            assert (row.outcome == "applied") or row.before == row.after
        assert row.rule.endswith(f" → {row.outcome}")
    return accounts


def counted(entries: list[Entry], transactions: int) -> MemoryStore:
    books = MemoryBooks()
    for _ in recount(books, entries, ColumnarLedger(), transactions):
        pass
    return books.store


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_what_is_told_is_what_the_fast_ledger_decides(seed: int) -> None:
    random = Random(seed)
    entries = entries_of(Traffic(random).made(120), random)
    store = counted(entries, random.choice([1, 50, 10_000]))
    books, telling = MemoryBooks(), Telling(0, lambda _: None)
    told = [row for entry in entries for row in explain_all(books, [entry], telling)[1]]
    assert [(row.source, row.row, row.outcome) for row in told if row.outcome != "skipped"] == decided(
        store.records
    )
    assert [(row.source, row.row) for row in told] == [
        ("source", row) for entry in entries for row in entry.batch.rows.tolist()
    ]
    balances = {
        account: (state.available, state.held, state.locked) for account, state in folded(told).items()
    }
    assert balances == {account: balance[:3] for account, balance in store.balances.items()}


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_the_wanted_ones_are_told_as_all_are(seed: int) -> None:
    """Those of some accounts and ids, picked out of commits of any size, are what a walk through all of them says."""
    random = Random(seed)
    entries = entries_of(Traffic(random).made(120), random)
    books, telling = MemoryBooks(), Telling(0, lambda _: None)
    every = [row for entry in entries for row in explain_all(books, [entry], telling)[1]]
    named = [row.tx for row in every if row.tx is not None]
    wanted = Wanted(
        frozenset(random.sample(range(4), random.choice([0, 1, 2]))),
        frozenset(random.choices(named, k=2) if named and random.random() < 0.7 else []),
    )
    expected = [row for row in every if row.account in wanted.accounts or row.tx in wanted.txs]
    found = list(picked(entries, wanted, random.choice([1, 50, 10_000])))
    assert [plain(row) for row in found] == [plain(row) for row in expected]


def picked(entries: list[Entry], wanted: Wanted, transactions: int) -> Iterator[Explained]:
    books = MemoryBooks()
    for _, told in explain_wanted(books, 0, entries, wanted, lambda _: None, transactions):
        yield from told


def plain(row: Explained) -> tuple[object, ...]:
    """All but the words, which tell where an id was taken only as far as they have seen it."""
    return (
        *(row.number, row.row, row.kind, row.account, row.tx, row.amount, row.outcome),
        *(row.before, row.after, row.dispute_before, row.dispute_after),
    )


SCENE: list[Row] = [
    ("D", 1, 1, 50_000),
    ("W", 1, 2, 70_000),
    ("D", 1, 1, 10_000),
    ("P", 1, 1, 0),
    ("P", 1, 1, 0),
    ("R", 2, 1, 0),
    ("P", 1, 2, 0),
    ("R", 1, 9, 0),
    ("R", 1, 1, 0),
    ("R", 1, 1, 0),
    ("P", 1, 1, 0),
    ("C", 1, 1, 0),
    ("D", 1, 3, 10_000),
]
RULES = [
    "deposit: 5.0000 comes in → applied",
    "withdrawal: 7.0000 wanted, 5.0000 available → insufficient_funds",
    "deposit: tx 1 was taken before, by 0/1-0, row 1 → duplicate_tx",
    "dispute: 5.0000 of tx 1, which was undisputed, is held → applied",
    "dispute: 5.0000 of tx 1 is held already → already_disputed",
    "resolve: tx 1 is a deposit of account 1, not of 2 → wrong_account",
    "dispute: tx 2 (0/1-0, row 2) is a withdrawal, or a deposit that was refused → not_disputable",
    "resolve: no transaction before has taken tx 9 → unknown_tx",
    "resolve: 5.0000 of tx 1, which was disputed, is available again → applied",
    "resolve: tx 1 is resolved, and not disputed → not_disputed",
    "dispute: 5.0000 of tx 1, which was resolved, is held → applied",
    "chargeback: 5.0000 of tx 1, which was disputed, goes back, and the account is locked → applied",
    "deposit: account 1 is locked, since the chargeback of tx 1 at 0/1-0, row 12 → account_locked",
]


@pytest.mark.parametrize("transactions", [1, 100])
def test_each_rule_is_told_in_words_with_numbers(transactions: int) -> None:
    entry = entry_of(0, SCENE)
    _, told = explain_all(MemoryBooks(), [entry], Telling(0, lambda _: None))
    assert [row.rule for row in told] == RULES
    assert [row.rule for row in picked([entry], Wanted(accounts={1, 2}), transactions)] == RULES


def test_a_dispute_shows_its_deposit_before_and_after() -> None:
    _, told = explain_all(MemoryBooks(), [entry_of(0, SCENE)], Telling(0, lambda _: None))
    assert [(row.dispute_before, row.dispute_after) for row in told[:4]] == [
        (None, "undisputed"),
        (None, None),
        (None, None),
        ("undisputed", "disputed"),
    ]
    assert told[3].amount == 50_000
    assert (told[3].before, told[3].after) == (Account(50_000, 0), Account(0, 50_000))
    assert told[11].after == Account(0, 0, locked=True)
    assert told[7].amount is None


def test_rows_that_were_decided_before_are_told_as_such() -> None:
    books, telling = MemoryBooks(), Telling(0, lambda _: None)
    explain_all(books, [entry_of(0, SCENE[:2])], telling)
    _, told = explain_all(books, [entry_of(1, SCENE[:3], previous=0)], telling)
    assert [row.outcome for row in told] == ["skipped", "skipped", "duplicate_tx"]
    _, behind = explain_all(books, [entry_of(2, SCENE[3:4], first=9)], telling)
    assert [(row.outcome, row.before) for row in behind] == [("gap", None)]
    assert behind[0].rule == "dispute: rows of its source before it are missing → gap"
