"""The account table is a dict in columns: whatever is added, found and written, and however its buckets fill."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftpipe.core.account_table import AccountTable
from hftpipe.core.ledger import Account
from hftpipe.core.slot_table import UNKNOWN
from hftpipe.core.transaction import INT64_MAX, Column

GOLDEN = 0x9E3779B97F4A7C15
"""The factor of the hash."""

INVERSE = pow(GOLDEN, -1, 2**64)

PROBES_MAX = 200
"""Buckets that a search may look at: with a half of them free, a good hash needs some ten."""


def column(accounts: Sequence[int]) -> Column:
    return np.array(accounts, dtype=np.int64)


def crafted(count: int) -> list[int]:
    """Accounts that all hash to the first bucket."""
    ids: list[int] = []
    factor = 0
    while len(ids) < count:
        account = factor * INVERSE % 2**64
        if account <= INT64_MAX:
            ids.append(account)
        factor += 1
    return ids


def longest_search(table: AccountTable) -> int:
    """How far the account that is found last lies from where its hash points."""
    buckets = np.flatnonzero(table._buckets != UNKNOWN)
    first = table._first_buckets(table.ids[table._buckets[buckets]])
    return int(((buckets - first) & (len(table._buckets) - 1)).max())


class Twin:
    """A table and the dict that it must equal."""

    def __init__(self) -> None:
        self.table = AccountTable()
        self.accounts: dict[int, Account] = {}
        self.slots: dict[int, int] = {}
        self.named_by: dict[int, int] = {}

    def add(self, accounts: Sequence[int], known: dict[int, Account]) -> None:
        """Those that are new."""
        new = sorted(set(accounts) - self.accounts.keys())
        known = {account: state for account, state in known.items() if account in new}
        self.table.add(column(new), known)
        self.accounts.update({account: known.get(account) or Account() for account in new})
        self.named_by.update(dict.fromkeys(new, 0))
        self.slots.update(zip(new, self.table.find(column(new)).tolist(), strict=True))

    def put(self, states: dict[int, Account], number: int) -> None:
        """Those that are there."""
        states = {account: state for account, state in states.items() if account in self.accounts}
        slots = self.table.find(column(list(states)))
        self.table.put(slots, list(states.values()))
        self.table.named_by[slots] = number
        self.accounts.update(states)
        self.named_by.update(dict.fromkeys(states, number))

    def check(self, strangers: Sequence[int] = ()) -> None:
        """Everything that can be asked."""
        assert len(self.table) == len(self.accounts)
        unknown = [account for account in strangers if account not in self.accounts]
        assert self.table.find(column(unknown)).tolist() == [UNKNOWN] * len(unknown)
        asked = [*reversed(self.accounts), *self.accounts]
        slots = self.table.find(column(asked))
        assert slots.tolist() == [self.slots[account] for account in asked]
        assert sorted(self.slots.values()) == list(range(len(self.accounts)))
        assert self.table.accounts(slots) == [self.accounts[account] for account in asked]
        assert self.table.balances(self.table.find(column(list(self.accounts)))).tolist() == [
            [account, state.available, state.held, int(state.locked), self.named_by[account]]
            for account, state in sorted(self.accounts.items())
        ]


ids = (
    st.integers(0, 40)
    | st.integers(0, INT64_MAX)
    | st.sampled_from([0, 1, INT64_MAX, INT64_MAX - 1, 2**62, 2**32, 2**31])
    | st.sampled_from(crafted(60))
    | st.integers(0, 30).map(lambda number: number << 58)
    | st.integers(0, 30).map(lambda number: INT64_MAX - (number << 32))
)
states = st.builds(
    Account, st.integers(-INT64_MAX - 1, INT64_MAX), st.integers(0, INT64_MAX), locked=st.booleans()
)
steps = st.tuples(
    st.sampled_from(["add", "put"]), st.lists(ids, max_size=30), st.dictionaries(ids, states, max_size=10)
)


@settings(deadline=None, max_examples=200)
@given(st.lists(steps, max_size=12), st.lists(ids, max_size=20))
def test_a_table_equals_a_dict(
    actions: list[tuple[str, list[int], dict[int, Account]]], asked: list[int]
) -> None:
    """Whatever is added, and written, in any order; slots stay where they are."""
    twin = Twin()
    for number, (name, accounts, given_states) in enumerate(actions, 1):
        if name == "add":
            twin.add([*accounts, *given_states], given_states)
        else:
            twin.put(given_states, number)
        twin.check(asked)


CLUSTERS = {
    "dense": list(range(5_000)),
    "step 4": list(range(3, 20_000, 4)),
    "step 2^16": [number << 16 for number in range(5_000)],
    "step 2^32": [number << 32 for number in range(5_000)],
    "step 2^50": [number << 50 for number in range(5_000)],
    "step 10^12": [number * 10**12 for number in range(5_000)],
    "equal upper bits": [INT64_MAX - number for number in range(5_000)],
    "equal lower bits": [(number << 44) + 12_345 for number in range(5_000)],
    "dates": [20_240_100_000 + 100_000 * day + number for day in range(28) for number in range(180)],
    "one bucket": crafted(1_500),
    "a Fibonacci number apart": [number * 121_393 for number in range(1_500)],
}


@pytest.mark.parametrize("accounts", CLUSTERS.values(), ids=CLUSTERS.keys())
@pytest.mark.parametrize("size", [700, 5_000])
def test_clustered_accounts_are_all_found(accounts: list[int], size: int) -> None:
    """Added some at a time, over several doublings, or all at once; neighbours that were not added are unknown."""
    twin = Twin()
    for start in range(0, len(accounts), size):
        part = accounts[start : start + size]
        twin.add(part, {account: Account(account, start, bool(account % 2)) for account in part[::3]})
    twin.check([account + 1 for account in accounts if account < INT64_MAX])


def test_growth_keeps_everything() -> None:
    """One account at a time around each doubling of the columns."""
    twin = Twin()
    start = 0
    for doubling in (1_024, 2_048, 4_096, 8_192):
        twin.add(range(start, doubling - 1), {start: Account(start, 1, locked=True)})
        twin.put({start: Account(-start - 1, 2)}, doubling)
        for account in range(doubling - 1, doubling + 2):
            twin.add([account], {account: Account(account, account)} if account % 2 else {})
            twin.check([account + 1, INT64_MAX])
        start = doubling + 2


def test_one_addition_may_be_many_doublings() -> None:
    """From the first capacity to a hundred times as much."""
    twin = Twin()
    twin.add([5], {5: Account(7)})
    twin.add(range(10, 100_000), {99_999: Account(9)})
    twin.check([0, 6, 100_000])


def test_an_empty_table_knows_nobody() -> None:
    """Also not the account 0, which empty columns are full of."""
    table = AccountTable()
    assert table.find(column([0, 1, INT64_MAX])).tolist() == [UNKNOWN] * 3
    assert table.find(column([])).tolist() == []
    assert table.balances(table.find(column([]))).shape == (0, 5)
    table.add(column([]), {})
    assert len(table) == 0


def test_the_outermost_accounts_are_accounts_like_any_other() -> None:
    """0 and 2^63-1, with balances at the ends of 64 bits."""
    twin = Twin()
    twin.add([INT64_MAX], {})
    twin.check([0])
    twin.add([0], {0: Account(-(2**63), INT64_MAX, locked=True)})
    twin.put({INT64_MAX: Account(INT64_MAX, 0)}, 3)
    twin.check([1, INT64_MAX - 1])


def test_balances_ascend_by_account_whatever_their_slots() -> None:
    """Only those asked for, each once."""
    table = AccountTable()
    accounts = [90, 5, INT64_MAX, 0, 7]
    for account in accounts:
        table.add(column([account]), {account: Account(account // 2, 1)})
    rows = table.balances(table.find(column([7, INT64_MAX, 0, 90]))).tolist()
    assert rows == [[account, account // 2, 1, 0, 0] for account in (0, 7, 90, INT64_MAX)]
    assert all(before[0] < after[0] for before, after in pairwise(rows))


def test_accounts_are_copies() -> None:
    """What is done with them reaches the table only by `put`."""
    table = AccountTable()
    table.add(column([1]), {1: Account(5)})
    (account,) = table.accounts(table.find(column([1])))
    account.available = 7
    assert table.accounts(table.find(column([1]))) == [Account(5)]


STEPS = [1, 2, 3, 4, 5, 7, 8, 10, 16, 64, 100, 1_000, 1_024, 10**6, 10**9, 2**16, 2**20, 2**32, 2**48]


@pytest.mark.parametrize("step", STEPS)
def test_accounts_a_round_step_apart_are_found_at_once(step: int) -> None:
    """As a bank numbers them, and as the routing deals them out to shards."""
    table = AccountTable()
    table.add(column([number * step for number in range(16_384) if number * step <= INT64_MAX]), {})
    assert longest_search(table) <= PROBES_MAX


@pytest.mark.parametrize(
    "accounts",
    [
        crafted(4_000),
        [number * 121_393 for number in range(4_000)],
        [number * 102_334_155 for number in range(4_000)],
    ],
    ids=["one bucket", "121,393 apart", "102,334,155 apart"],
)
def test_no_choice_of_accounts_makes_the_search_long(accounts: list[int]) -> None:
    """Else a file of 150,000 such rows keeps its worker busy for longer than its lease, again and again."""
    table = AccountTable()
    table.add(column(accounts), {})
    assert longest_search(table) <= PROBES_MAX
