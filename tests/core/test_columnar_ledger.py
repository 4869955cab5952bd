"""The fast ledger decides as the plain one does: outcome by outcome, balance by balance."""

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftpipe.core.columnar_ledger import SAFE_SUM, ColumnarLedger
from hftpipe.core.entry import Entry, EntryId, RawEntry, decode, encode
from hftpipe.core.ledger import Ledger
from hftpipe.core.transaction import AMOUNT_MAX, INT64_MAX
from hftpipe.store.memory import MemoryStore
from tests.core.driver import Row, Shard, batch_of, decided, entry_of

MakeLedger = Callable[[int], Ledger]
"""Makes a ledger of the highest id that its store holds."""


def forgetful(accounts_max: int) -> MakeLedger:
    """A ledger that knows no more accounts than that from one commit to the next."""
    return lambda highest_tx: ColumnarLedger(highest_tx, accounts_max)


class Traffic:
    """Rows as nobody sends them: each scene puts some that have to do with each other where they may meet.

    ids: those that were used, by account, the latest last.
    """

    def __init__(self, random: Random) -> None:
        self.random = random
        self.rows: list[Row] = []
        self.accounts = random.choice([1, 2, 3, 40])
        self.largest = random.choice([10, 1_000, AMOUNT_MAX])
        self.has_ids = random.choice([1.0, 1.0, 0.7])
        self.is_rising = random.random() < 0.6
        self.ids: list[tuple[int, int]] = []

    def made(self, count: int) -> list[Row]:
        """At least so many rows."""
        scenes = self.random.choices(
            [
                [self.anything],
                [self.anything, self.dispute],
                [self.dispute, self.dispute_of_another],
                [self.dispute, self.lock],
                [self.run_short, self.dispute],
                [self.huge, self.dispute],
                [self.anything, self.dispute, self.dispute_of_another, self.lock, self.run_short, self.huge],
            ],
            k=2,
        )
        while len(self.rows) < count:
            self.random.choice(self.random.choice(scenes))()
        return self.rows

    def account(self) -> int:
        return self.random.randrange(self.accounts)

    def amount(self) -> int:
        return self.random.randint(1, self.largest)

    def new_id(self) -> int:
        """Mostly a new one."""
        if self.ids and self.random.random() < 0.08:
            return self.random.choice(self.ids)[1]
        return 2 * len(self.rows) if self.is_rising else self.random.randrange(1_000_000)

    def deposit(self, account: int, amount: int | None = None, kind: str = "D") -> int:
        tx = self.new_id()
        self.ids.append((account, tx))
        self.rows.append((kind, account, tx, amount or self.amount()))
        return tx

    def anything(self) -> None:
        """A row of any kind, which may name what is not there."""
        kind = self.random.choice("DDDWWPRC")
        account = self.account()
        if kind in "DW" and self.random.random() > self.has_ids:
            self.rows.append((kind, account, None, self.amount()))
        elif kind in "DW":
            self.deposit(account, kind=kind)
        else:
            self.rows.append((kind, account, self.random.randrange(2 * len(self.rows) + 2), 0))

    def recent(self, account: int | None = None) -> tuple[int, int]:
        """An id that was used not long ago, of an account if need be."""
        found = [use for use in self.ids if account in {None, use[0]}]
        if not found:
            return (owner := self.account() if account is None else account), self.deposit(owner)
        return self.random.choice(found[-8:])

    def dispute(self) -> None:
        """A deposit and what is said of it, in an order that need not make sense, with other rows between."""
        account, tx = self.recent()
        if self.random.random() < 0.7:
            account = self.account()
            tx = self.deposit(account)
            if self.random.random() < 0.25:
                made = self.rows.pop()
                self.rows += [("P", account, tx, 0), ("R", account, tx, 0), made]
        kinds = self.random.choice(["P", "PR", "PRP", "PP", "RPR", "PRPRPR", "PRR", "R", "PPRP"])
        for kind in kinds:
            if self.random.random() < 0.3:
                self.deposit(account, kind=self.random.choice("DW"))
            self.rows.append((kind, account, tx, 0))

    def dispute_of_another(self) -> None:
        """An account disputes what is another's: first, meanwhile, or last."""
        owner = self.account()
        tx = self.deposit(owner) if self.random.random() < 0.6 else self.recent()[1]
        other = self.account()
        rows: list[Row] = [(kind, other, tx, 0) for kind in self.random.choice(["P", "PR", "C", "PC"])]
        rows += [(kind, owner, tx, 0) for kind in self.random.choice(["", "P", "PR", "PC"])]
        self.random.shuffle(rows)
        if self.random.random() < 0.3:
            self.rows[-1:] = [*rows[:1], *self.rows[-1:], *rows[1:]]
        else:
            self.rows += rows

    def lock(self) -> None:
        """A chargeback, and whatever comes then to the account."""
        account, tx = self.recent()
        self.rows += [
            (kind, account, tx, 0) for kind in self.random.choice(["PC", "C", "PRC", "PRPC", "PCC"])
        ]
        for _ in range(self.random.randint(0, 5)):
            self.deposit(account, kind=self.random.choice("DW"))
            self.rows.append((self.random.choice("PRC"), *self.recent(account), 0))

    def run_short(self) -> None:
        """A hot account with many withdrawals that it cannot pay, and now and then one that it can."""
        account = self.account()
        for _ in range(self.random.choice([5, 60, 300])):
            kind = "D" if self.random.random() < 0.1 else "W"
            if self.random.random() > self.has_ids:
                self.rows.append((kind, account, None, self.amount()))
            else:
                self.deposit(account, kind=kind)

    def huge(self) -> None:
        """Sums that come near 2^61, reach it, or go beyond 2^63; and disputes of them."""
        account = self.account()
        count = self.random.choice([2, 11, 12, 23, 24, 47, 93, 100])
        for _ in range(count):
            self.deposit(account, AMOUNT_MAX - self.random.choice([0, 0, 1, 7]))
        for _ in range(self.random.choice([0, 1, 12, 60])):
            self.rows.append((self.random.choice("PPPR"), *self.recent(account), 0))
        for _ in range(self.random.choice([0, 1, 30])):
            self.deposit(account, AMOUNT_MAX, kind="W")


def entries_of(random: Random, rows: list[Row]) -> list[Entry]:
    """The rows as entries of random sizes of one or two sources; some begin with rows that came before.

    Rows with and without an id are never in one entry.
    """
    longest = random.choice([1, 30, 400])
    sources = random.choice(["s", "st"])
    sent: dict[str, list[Row]] = {source: [] for source in sources}
    made: list[Entry] = []
    start = 0
    while start < len(rows):
        has_ids = rows[start][2] is not None
        stop = start + 1
        most = start + random.randint(1, longest)
        while stop < min(len(rows), most) and (rows[stop][2] is not None) == has_ids:
            stop += 1
        source = random.choice(sources)
        before = sent[source]
        first = len(before) - (random.randint(0, 5) if random.random() < 0.1 else 0)
        if first < 0 or any((row[2] is not None) != has_ids for row in before[first:]):
            first = len(before)
        before += rows[start:stop]
        batch = batch_of(before[first:], range(first + 1, len(before) + 1))
        entry = decode(RawEntry(EntryId(1, len(made)), encode(source, first, batch, 0)), 0, 1)
        assert isinstance(entry, Entry)
        made.append(entry)
        start = stop
    return made


def applied(make_ledger: MakeLedger, made: list[Entry], sizes: list[int]) -> MemoryStore:
    """The store after the entries were committed, so many at a time; the ledger lives on between commits."""
    shard = Shard()
    shard.ledger = make_ledger(-1)
    start = 0
    for size in sizes:
        if group := made[start : start + size]:
            shard.commit(group)
        start += size
    assert isinstance(shard.store, MemoryStore)
    return shard.store


def check(seed: int, rows: int) -> None:
    """One example: the same traffic, in the same commits, to both."""
    random = Random(seed)
    made = entries_of(random, Traffic(random).made(rows))
    longest = random.choice([1, 3, 8, len(made)])
    sizes = [random.randint(1, longest) for _ in made]
    expected = applied(Ledger, made, sizes).snapshot()
    make_ledger = random.choice([ColumnarLedger, forgetful(1), forgetful(2), forgetful(3)])
    assert applied(make_ledger, made, sizes).snapshot() == expected


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 300))
def test_the_columnar_ledger_equals_the_plain_one(seed: int, rows: int) -> None:
    """The same journal, hashes and tables for any mix of kinds, any entries and any commits."""
    check(seed, rows)


# --- cases by hand -----------------------------------------------------------------------------------------------


def outcomes(*commits: list[Row], make_ledger: MakeLedger = ColumnarLedger) -> list[str]:
    """What becomes of each row, an entry a commit; both ledgers say the same."""
    made: list[Entry] = []
    first = 1
    for rows in commits:
        made.append(entry_of(len(made), rows, first=first))
        first += len(rows)
    sizes = [1] * len(made)
    store = applied(make_ledger, made, sizes)
    assert store.snapshot() == applied(Ledger, made, sizes).snapshot()
    return [outcome for _, _, outcome in decided(store.records)]


def test_a_dispute_before_its_deposit_in_one_commit_names_nothing() -> None:
    """And leaves the deposit as it is: the next one is of it."""
    rows: list[Row] = [("P", 1, 5, 0), ("D", 1, 5, 100), ("P", 1, 5, 0), ("W", 1, 6, 1)]
    assert outcomes(rows) == ["unknown_tx", "applied", "applied", "insufficient_funds"]


def test_a_withdrawal_between_dispute_and_resolve_is_decided_by_what_is_there_then() -> None:
    """All in one commit."""
    rows: list[Row] = [
        ("D", 1, 1, 9),
        ("P", 1, 1, 0),
        ("W", 1, 2, 9),
        ("R", 1, 1, 0),
        ("W", 1, 3, 9),
        ("P", 1, 1, 0),
    ]
    assert outcomes(rows) == ["applied", "applied", "insufficient_funds", "applied", "applied", "applied"]


def test_a_disputed_account_below_zero_may_still_be_deposited_to() -> None:
    """Only withdrawals are refused for what is not there."""
    first: list[Row] = [("D", 1, 1, 9), ("W", 1, 2, 9), ("P", 1, 1, 0)]
    second: list[Row] = [("D", 1, 3, 5), ("W", 1, 4, 1), ("D", 1, 5, 5), ("W", 1, 6, 1), ("W", 1, 7, 1)]
    expected = ["applied"] * 4 + ["insufficient_funds", "applied", "applied", "insufficient_funds"]
    assert outcomes(first, second) == expected


def test_a_dispute_of_what_another_account_deposits_in_the_same_commit_is_refused_in_order() -> None:
    """Before it, it names nothing; behind it, the wrong account."""
    rows: list[Row] = [("P", 2, 5, 0), ("D", 1, 5, 9), ("P", 2, 5, 0), ("P", 1, 5, 0), ("C", 2, 5, 0)]
    assert outcomes(rows) == ["unknown_tx", "applied", "wrong_account", "applied", "wrong_account"]


def test_a_dispute_of_what_a_locked_account_was_refused_is_not_disputable() -> None:
    """Its id is taken all the same, also in the commit of the dispute."""
    first: list[Row] = [("D", 1, 1, 9), ("P", 1, 1, 0), ("C", 1, 1, 0), ("D", 2, 2, 9)]
    second: list[Row] = [("D", 1, 3, 9), ("P", 2, 3, 0), ("P", 1, 3, 0), ("D", 2, 3, 1)]
    refused = ["account_locked", "not_disputable", "account_locked", "duplicate_tx"]
    assert outcomes(first, second) == ["applied"] * 4 + refused


def test_what_comes_before_a_chargeback_in_its_commit_is_applied() -> None:
    """And what comes behind it is not, to that account."""
    rows: list[Row] = [
        ("D", 1, 1, 9),
        ("W", 1, 2, 3),
        ("P", 1, 1, 0),
        ("C", 1, 1, 0),
        ("D", 1, 3, 9),
        ("D", 2, 4, 9),
    ]
    assert outcomes(rows, [("D", 1, 5, 9), ("R", 1, 1, 0)]) == [
        *["applied"] * 4,
        "account_locked",
        "applied",
        "account_locked",
        "account_locked",
    ]


def test_the_dispute_of_a_withdrawal_or_of_a_second_use_is_refused() -> None:
    """In the commit that takes the id, and in a later one."""
    first: list[Row] = [
        ("D", 1, 1, 9),
        ("W", 1, 2, 9),
        ("W", 1, 3, 9),
        ("P", 1, 2, 0),
        ("P", 1, 3, 0),
        ("D", 2, 1, 5),
    ]
    second: list[Row] = [("P", 1, 2, 0), ("P", 1, 3, 0), ("P", 2, 1, 0), ("P", 1, 1, 0), ("P", 1, 1, 0)]
    assert outcomes(first, second) == [
        *["applied", "applied", "insufficient_funds", "not_disputable", "not_disputable", "duplicate_tx"],
        *["not_disputable", "not_disputable", "wrong_account", "applied", "already_disputed"],
    ]


@pytest.mark.parametrize("accounts_max", [1, 2, 3])
def test_accounts_that_are_forgotten_are_asked_for_again(accounts_max: int) -> None:
    """Between any two commits; locks and held amounts with them."""
    rows: list[Row] = [("D", account, account, 10) for account in range(5)]
    disputes: list[Row] = [("P", account, account, 0) for account in range(0, 5, 2)]
    locks: list[Row] = [("C", 2, 2, 0), ("R", 4, 4, 0)]
    last: list[Row] = [("W", account, 10 + account, 10) for account in range(5)]
    assert outcomes(rows, disputes, locks, last, make_ledger=forgetful(accounts_max))[-5:] == [
        "insufficient_funds",
        "applied",
        "account_locked",
        "applied",
        "applied",
    ]


@pytest.mark.parametrize("off", [-2, -1, 0, 1])
@pytest.mark.parametrize("start", [0, SAFE_SUM, 3 * SAFE_SUM])
def test_sums_around_the_bound_of_the_running_sums_are_exact(off: int, start: int) -> None:
    """Of one commit, on a balance that is there; with disputes of all of it."""
    commits: list[list[Row]] = []
    tx = 0
    for total in (start, SAFE_SUM + off):
        rows: list[Row] = []
        for done in range(0, total, AMOUNT_MAX):
            rows.append(("D", 1, tx, min(total - done, AMOUNT_MAX)))
            tx += 1
        if rows:
            commits.append(rows)
    for kind in "PRP":
        commits.append([*((kind, 1, each, 0) for each in range(tx)), ("W", 1, tx, 1), ("D", 1, tx + 1, 1)])
        tx += 2
    assert "overflow" not in outcomes(*commits) or start


def test_no_account_holds_more_than_64_bits() -> None:
    """The deposit that would go beyond is refused, and the next one that fits is not."""
    rows: list[Row] = [("D", 1, number, AMOUNT_MAX) for number in range(INT64_MAX // AMOUNT_MAX + 1)]
    left = INT64_MAX % AMOUNT_MAX
    more: list[Row] = [
        ("D", 1, 1_000, left + 1),
        ("D", 1, 1_001, left),
        ("D", 1, 1_002, 1),
        ("W", 1, 1_003, 1),
    ]
    assert outcomes(rows, more)[-5:] == ["overflow", "overflow", "applied", "overflow", "applied"]


@pytest.mark.parametrize("count", [1, 300, 3_000])
def test_a_hot_account_that_runs_short_pays_what_it_can(count: int) -> None:
    """Hundreds of withdrawals that are not covered, among deposits, with other accounts beside it."""
    random = Random(count)
    rows: list[Row] = []
    for number in range(count):
        rows.append(("D" if random.random() < 0.1 else "W", 1, 2 * number, random.randint(1, 100)))
        rows.append(("D", 2 + number % 7, 2 * number + 1, 5))
    assert {"applied"} <= set(outcomes(rows)) <= {"applied", "insufficient_funds"}


def test_rows_without_ids_lie_among_rows_with_them() -> None:
    """They are never duplicates, and take no id."""
    with_ids: list[Row] = [("D", 1, 7, 5), ("D", 1, 7, 5), ("P", 1, 7, 0)]
    without: list[Row] = [("D", 1, None, 3), ("W", 1, None, 2), ("W", 1, None, 2)]
    made = [
        entry_of(0, without),
        entry_of(1, with_ids, first=4),
        entry_of(2, without, first=7),
        entry_of(3, with_ids, first=10),
    ]
    for sizes in ([4], [1, 1, 1, 1], [2, 2], [1, 3]):
        store = applied(ColumnarLedger, made, sizes)
        assert store.snapshot() == applied(Ledger, made, sizes).snapshot()
        assert store.transactions == {7: 2}


def test_more_accounts_than_16_bits_keep_their_rows_in_order() -> None:
    """Rows are grouped by the lower and the upper half of an account's place."""
    count = 65_540
    rows: list[Row] = [("D", account, account, 1 + account % 5) for account in range(count)]
    again: list[Row] = [("W", account, count + account, 3) for account in range(count - 1, -1, -1)]
    half = count // 2
    made = [
        entry_of(0, [*rows[:half]]),
        entry_of(1, [*rows[half:]], first=half + 1),
        entry_of(2, again[:half], first=count + 1),
        entry_of(3, again[half:], first=count + half + 1),
    ]
    for sizes in ([4], [2, 2]):
        assert applied(ColumnarLedger, made, sizes).snapshot() == applied(Ledger, made, sizes).snapshot()
