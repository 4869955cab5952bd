"""The account rules: every example of their specification, every reason to refuse, and equality with the model."""

from collections.abc import Sequence
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftpipe.core.ledger import (
    Account,
    Deposit,
    DisputeState,
    Facts,
    Ledger,
    Outcome,
    Refusal,
    Undisputable,
)
from hftpipe.core.transaction import AMOUNT_MAX, INT64_MAX, INT64_MIN, Batch
from hftpipe.store.memory import MemoryStore

from .driver import TOPOLOGY, Row, Shard, batch_of, cut, decided, entry_of
from .model import APPLIED, Model

UNIT = 10_000


def rows_of(text: str) -> list[Row]:
    """`D 1 1 10.0 · P 1 1` as rows; `-` stands for an absent transaction id."""
    return [_row(line.split()) for line in text.split("·")]


def _row(fields: list[str]) -> Row:
    kind, account, tx, *amount = fields
    units = Fraction(amount[0]) if amount else Fraction(0)
    return kind, int(account), None if tx == "-" else int(tx), int(units * UNIT)


def ledger_with(
    accounts: dict[int, Account] | None = None,
    deposits: dict[int, Deposit | Undisputable] | None = None,
    rows: Sequence[Row] = (),
) -> Ledger:
    """A ledger that has learnt what it needs for the rows from a store with just these accounts and deposits."""
    deposits = deposits or {}
    ledger = Ledger(max(deposits, default=-1))
    needs = ledger.needs([batch_of(rows, range(1, len(rows) + 1))])
    taken = deposits.keys() & needs.txs.tolist()
    ledger.learn(needs, Facts(dict(accounts or {}), taken, dict(deposits)))
    return ledger


def decide(
    text: str,
    accounts: dict[int, Account] | None = None,
    deposits: dict[int, Deposit | Undisputable] | None = None,
) -> tuple[Ledger, list[str]]:
    """The outcome of each row, as one batch."""
    rows = rows_of(text)
    ledger = ledger_with(accounts, deposits, rows)
    return ledger, _each(ledger.apply_all([(1, batch_of(rows, range(1, len(rows) + 1)))])[0], len(rows))


def _refused(outcome: Outcome) -> dict[int, Refusal]:
    return {index: reason for reason, indexes in outcome.refused.items() for index in indexes.tolist()}


def _each(outcome: Outcome, count: int) -> list[str]:
    refused = _refused(outcome)
    return [refused[index].value if index in refused else APPLIED for index in range(count)]


def balances(ledger: Ledger) -> dict[int, tuple[Fraction, Fraction, Fraction, bool]]:
    """Available, held and total in units, and whether it is locked, of each account that was named."""
    return {
        account: (
            Fraction(available, UNIT),
            Fraction(held, UNIT),
            Fraction(available + held, UNIT),
            bool(locked),
        )
        for account, available, held, locked, _ in ledger.take_changes().balances.tolist()
    }


# --- Specification by example ---------------------------------------------------------------------------------


def in_units(*values: str) -> tuple[Fraction, ...]:
    return tuple(map(Fraction, values))


@pytest.mark.parametrize(
    ("text", "last", "expected"),
    [
        ("D 1 1 10.0 · W 1 2 3.5", APPLIED, {1: (*in_units("6.5", "0", "6.5"), False)}),
        ("D 1 1 10 · W 1 2 11", "insufficient_funds", {1: (*in_units("10", "0", "10"), False)}),
        ("D 1 1 10 · W 1 2 6 · P 1 1", APPLIED, {1: (*in_units("-6", "10", "4"), False)}),
        ("D 1 1 10 · W 1 2 6 · P 1 1 · C 1 1", APPLIED, {1: (*in_units("-6", "0", "-6"), True)}),
        (
            "D 1 1 10 · P 1 1 · R 1 1 · P 1 1 · C 1 1 · D 1 2 5",
            "account_locked",
            {1: (*in_units("0", "0", "0"), True)},
        ),
        (
            "D 1 1 10 · P 2 1",
            "wrong_account",
            {1: (*in_units("10", "0", "10"), False), 2: (*in_units("0", "0", "0"), False)},
        ),
        ("D 1 1 10 · D 1 1 10", "duplicate_tx", {1: (*in_units("10", "0", "10"), False)}),
        ("D 1 1 5 · W 1 2 7 · D 1 3 5 · W 1 2 7", "duplicate_tx", {1: (*in_units("10", "0", "10"), False)}),
    ],
)
def test_the_examples_of_the_specification_hold(
    text: str, last: str, expected: dict[int, tuple[object, ...]]
) -> None:
    """Each example's balances, and what became of its last row."""
    ledger, outcomes = decide(text)
    assert outcomes[-1] == last
    assert balances(ledger) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("D 1 1 1", {1: (1, 0, 1, False)}),
        ("D 1 1 2 · W 1 2 2", {1: (0, 0, 0, False)}),
        ("D 1 1 2 · P 1 1", {1: (0, 2, 2, False)}),
        ("D 1 1 2 · P 1 1 · R 1 1", {1: (2, 0, 2, False)}),
        ("D 1 1 2 · P 1 1 · C 1 1", {1: (0, 0, 0, True)}),
        ("D 1 1 0.0001 · D 1 2 0.0002", {1: (Fraction("0.0003"), 0, Fraction("0.0003"), False)}),
    ],
)
def test_each_kind_moves_what_the_table_says(text: str, expected: dict[int, tuple[object, ...]]) -> None:
    """One accepted transaction of each kind, and amounts added to the last decimal."""
    ledger, outcomes = decide(text)
    assert set(outcomes) == {APPLIED}
    assert balances(ledger) == expected


# --- Refusals ------------------------------------------------------------------------------------------------

LOCKED = "D 1 1 10 · P 1 1 · C 1 1 · "


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (LOCKED + "D 1 2 5", Refusal.ACCOUNT_LOCKED),
        (LOCKED + "W 1 2 5", Refusal.ACCOUNT_LOCKED),
        (LOCKED + "P 1 1", Refusal.ACCOUNT_LOCKED),
        (LOCKED + "R 1 1", Refusal.ACCOUNT_LOCKED),
        (LOCKED + "C 1 1", Refusal.ACCOUNT_LOCKED),
        (LOCKED + "P 1 99", Refusal.ACCOUNT_LOCKED),
        (LOCKED + "D 1 1 5", Refusal.ACCOUNT_LOCKED),
        (LOCKED + "D 2 1 5", Refusal.DUPLICATE_TX),
        (LOCKED + "P 2 1", Refusal.WRONG_ACCOUNT),
        ("D 1 1 10 · D 1 1 10", Refusal.DUPLICATE_TX),
        ("D 1 1 10 · W 1 1 1", Refusal.DUPLICATE_TX),
        ("D 1 1 10 · W 1 1 99", Refusal.DUPLICATE_TX),
        ("D 1 1 10 · D 2 1 10", Refusal.DUPLICATE_TX),
        ("W 1 1 10 · D 1 1 10", Refusal.DUPLICATE_TX),
        ("W 1 1 1", Refusal.INSUFFICIENT_FUNDS),
        ("D 1 1 10 · P 1 1 · W 1 2 0.0001", Refusal.INSUFFICIENT_FUNDS),
        ("D 1 1 10 · W 1 2 4 · P 1 1 · W 1 3 1", Refusal.INSUFFICIENT_FUNDS),
        ("P 1 1", Refusal.UNKNOWN_TX),
        ("R 1 1", Refusal.UNKNOWN_TX),
        ("C 1 1", Refusal.UNKNOWN_TX),
        ("P 1 1 · P 1 1", Refusal.UNKNOWN_TX),
        ("D 1 1 10 · W 1 2 1 · P 1 2", Refusal.NOT_DISPUTABLE),
        ("D 1 1 10 · W 1 2 99 · P 1 2", Refusal.NOT_DISPUTABLE),
        ("D 1 1 10 · W 1 2 1 · P 2 2", Refusal.NOT_DISPUTABLE),
        ("W 1 2 1 · D 1 2 5 · P 1 2", Refusal.NOT_DISPUTABLE),
        ("D 1 1 10 · P 1 1 · C 1 1 · D 1 2 5 · R 2 2", Refusal.NOT_DISPUTABLE),
        ("D 1 1 10 · P 2 1", Refusal.WRONG_ACCOUNT),
        ("D 1 1 10 · R 2 1", Refusal.WRONG_ACCOUNT),
        ("D 1 1 10 · P 1 1 · P 2 1", Refusal.WRONG_ACCOUNT),
        ("D 1 1 10 · P 1 1 · C 2 1", Refusal.WRONG_ACCOUNT),
        ("D 1 1 10 · P 1 1 · P 1 1", Refusal.ALREADY_DISPUTED),
        ("D 1 1 10 · R 1 1", Refusal.NOT_DISPUTED),
        ("D 1 1 10 · C 1 1", Refusal.NOT_DISPUTED),
        ("D 1 1 10 · P 1 1 · R 1 1 · R 1 1", Refusal.NOT_DISPUTED),
        ("D 1 1 10 · P 1 1 · R 1 1 · C 1 1", Refusal.NOT_DISPUTED),
    ],
)
def test_the_first_reason_that_fits_is_given(text: str, reason: Refusal) -> None:
    """account_locked before duplicate_tx before the kind's own checks, and those in their own order."""
    _, outcomes = decide(text)
    assert outcomes[-1] == reason.value


@pytest.mark.parametrize("kind", ["P", "R", "C"])
def test_a_charged_back_deposit_is_final_even_if_its_account_were_unlocked(kind: str) -> None:
    """Rules alone never lead here, for a chargeback locks the account: the state is built by hand."""
    deposits: dict[int, Deposit | Undisputable] = {7: Deposit(1, 5, DisputeState.CHARGED_BACK)}
    ledger, outcomes = decide(f"{kind} 1 7", {1: Account(10, 5)}, deposits)
    assert outcomes == ["charged_back"]
    assert ledger.take_changes().disputes == {}


def test_wrong_account_goes_before_charged_back() -> None:
    """Another account learns nothing of how the deposit stands."""
    deposits: dict[int, Deposit | Undisputable] = {7: Deposit(1, 5, DisputeState.CHARGED_BACK)}
    assert decide("P 2 7", deposits=deposits)[1] == ["wrong_account"]


def test_a_refused_row_moves_nothing() -> None:
    """Neither balance nor dispute, whatever the reason."""
    ledger, _ = decide("D 1 1 10 · P 1 1")
    before = balances(ledger)
    again, outcomes = decide("D 1 1 10 · P 1 1 · P 1 1 · W 1 2 1 · D 1 1 1 · R 1 9 · P 1 2")
    assert APPLIED not in outcomes[2:]
    assert balances(again) == before


def test_a_refused_first_use_takes_the_id_for_good() -> None:
    """So that a refusal sent again stays refused."""
    rows = rows_of("W 1 1 5 · D 1 2 9 · W 1 1 5")
    outcome = ledger_with(rows=rows).apply_all([(1, batch_of(rows, [1, 2, 3]))])[0]
    assert outcome.taken.tolist() == [0, 1]
    assert _refused(outcome) == {0: Refusal.INSUFFICIENT_FUNDS, 2: Refusal.DUPLICATE_TX}


def test_a_locked_account_still_takes_the_id() -> None:
    """Its first well-formed use was that refused one."""
    _, outcomes = decide(LOCKED + "D 1 5 1 · D 2 5 1")
    assert outcomes[-2:] == ["account_locked", "duplicate_tx"]


def test_disputes_take_no_id_of_their_own() -> None:
    """A dispute of an unknown id leaves the id free for the deposit that comes later."""
    _, outcomes = decide("P 1 1 · D 1 1 5 · P 1 1")
    assert outcomes == ["unknown_tx", APPLIED, APPLIED]


def test_an_account_exists_from_the_first_transaction_that_names_it() -> None:
    """Even a refused one: the account is written with zero."""
    ledger, _ = decide("W 1 1 5 · P 2 9")
    changes = ledger.take_changes()
    assert changes.balances[:, :4].tolist() == [[1, 0, 0, 0], [2, 0, 0, 0]]


# --- Overflow ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("account", "fits"),
    [
        (Account(INT64_MAX - 5, 0), 5),
        (Account(0, INT64_MAX - 5), 5),
        (Account(-10, INT64_MAX), 10),
        (Account(INT64_MAX - 15, 10), 5),
    ],
)
def test_a_deposit_may_fill_the_total_to_the_last_unit_and_no_further(account: Account, fits: int) -> None:
    """The bound is on available + held: what is held may all become available again."""
    for amount, expected in ((fits, APPLIED), (fits + 1, "overflow")):
        rows: list[Row] = [("D", 1, 9, amount)]
        state = Account(account.available, account.held)
        ledger = ledger_with({1: state}, rows=rows)
        assert _each(ledger.apply_all([(1, batch_of(rows, [1]))])[0], 1) == [expected]
        assert state.available + state.held == (
            INT64_MAX if expected == APPLIED else account.available + account.held
        )


@pytest.mark.parametrize("account", [Account(INT64_MIN + 5, 0), Account(0, INT64_MAX - 5)])
def test_a_dispute_may_move_to_the_bounds_of_available_and_held_and_no_further(account: Account) -> None:
    """Available never goes below, held never above what 64 bits hold."""
    for amount, expected in ((5, APPLIED), (6, "overflow")):
        rows: list[Row] = [("P", 1, 9, 0)]
        state = Account(account.available, account.held)
        ledger = ledger_with({1: state}, {9: Deposit(1, amount)}, rows)
        assert _each(ledger.apply_all([(1, batch_of(rows, [1]))])[0], 1) == [expected]


def test_a_duplicate_goes_before_overflow() -> None:
    """duplicate_tx is the stronger reason."""
    ledger = {1: Account(INT64_MAX, 0)}
    assert decide("D 1 9 1", ledger, {9: Undisputable.TAKEN})[1] == ["duplicate_tx"]


near_bounds = st.one_of(
    st.integers(INT64_MIN, INT64_MIN + 3 * AMOUNT_MAX),
    st.integers(-3 * AMOUNT_MAX, 3 * AMOUNT_MAX),
    st.integers(INT64_MAX - 3 * AMOUNT_MAX, INT64_MAX),
)
amounts = st.one_of(st.integers(1, 5), st.integers(AMOUNT_MAX - 5, AMOUNT_MAX))


@settings(deadline=None, max_examples=200)
@given(
    near_bounds,
    st.integers(0, INT64_MAX),
    st.lists(amounts, min_size=3, max_size=3),
    st.lists(st.tuples(st.sampled_from("DWPPRC"), st.integers(1, 3), amounts), min_size=1, max_size=30),
)
def test_available_held_and_total_always_fit_in_64_bits(
    available: int, held: int, deposits: list[int], wanted: list[tuple[str, int, int]]
) -> None:
    """From any state that fits, no transaction leads to one that does not."""
    if not INT64_MIN <= available + held <= INT64_MAX:
        available = min(available, INT64_MAX - held)
    account = Account(available, held)
    rows: list[Row] = [
        (kind, 1, 100 + index if kind in "DW" else tx, amount if kind in "DW" else 0)
        for index, (kind, tx, amount) in enumerate(wanted)
    ]
    known: dict[int, Deposit | Undisputable] = {
        tx: Deposit(1, amount) for tx, amount in enumerate(deposits, 1)
    }
    ledger = ledger_with({1: account}, known, rows)
    for index, row in enumerate(rows):
        ledger.apply_all([(1, batch_of([row], [index + 1]))])[0]
        assert INT64_MIN <= account.available <= INT64_MAX
        assert 0 <= account.held <= INT64_MAX
        assert INT64_MIN <= account.available + account.held <= INT64_MAX


# --- Rows without transaction ids ---------------------------------------------------------------------------


def test_rows_without_ids_are_never_duplicates_and_take_nothing() -> None:
    """The source chain alone makes them exactly-once."""
    rows = rows_of("D 1 - 5 · D 1 - 5 · W 1 - 3 · W 1 - 8")
    ledger = ledger_with(rows=rows)
    outcome = ledger.apply_all([(1, batch_of(rows, [1, 2, 3, 4]))])[0]
    assert _refused(outcome) == {3: Refusal.INSUFFICIENT_FUNDS}
    assert outcome.taken.tolist() == []
    assert balances(ledger)[1][0] == 7
    assert ledger.highest_tx == -1


def test_a_dispute_without_an_id_is_a_bug_of_the_caller() -> None:
    """Neither validation nor decoding lets one pass."""
    batch = Batch.of("P", [1], None, [0], [1])
    ledger = Ledger()
    needs = ledger.needs([batch])
    ledger.learn(needs, Facts({}, set(), {}))
    with pytest.raises(AssertionError):
        ledger.apply_all([(1, batch)])[0]


# --- What it asks for and hands out --------------------------------------------------------------------------


def test_it_asks_only_for_what_it_cannot_know() -> None:
    """Ids above the highest one taken cannot be duplicates; an account is asked for once."""
    ledger = Ledger(highest_tx=10)
    first = batch_of(rows_of("D 1 10 1 · D 2 11 1 · P 1 3"), [1, 2, 3])
    needs = ledger.needs([first])
    assert [column.tolist() for column in (needs.accounts, needs.txs, needs.disputed)] == [[1, 2], [10], [3]]
    ledger.learn(needs, Facts({}, set(), {}))
    ledger.apply_all([(1, first)])[0]
    ledger.take_changes()
    assert ledger.highest_tx == 11
    again = ledger.needs([batch_of(rows_of("D 1 11 1 · D 3 12 1"), [4, 5])])
    assert [column.tolist() for column in (again.accounts, again.txs, again.disputed)] == [[3], [11], []]


def test_changes_hold_each_account_with_the_entry_that_named_it_last() -> None:
    """And only what was named since the last time."""
    rows = rows_of("D 1 1 5 · D 2 2 5")
    ledger = ledger_with(rows=rows)
    ledger.apply_all([(7, batch_of(rows, [1, 2]))])[0]
    ledger.apply_all([(8, batch_of([("W", 2, None, UNIT)], [3]))])[0]
    changes = ledger.take_changes()
    assert changes.balances.tolist() == [[1, 5 * UNIT, 0, 0, 7], [2, 4 * UNIT, 0, 0, 8]]
    assert ledger.take_changes().balances.tolist() == []


# --- Equal to the model ----------------------------------------------------------------------------------------

TXS = (0, 1, 2, 3, 4, 5, 6, 60)

ordinary = st.tuples(
    st.sampled_from("DDDWPPRC"),
    st.integers(0, 2),
    st.sampled_from(TXS),
    st.sampled_from([1, 2, 3, 5 * UNIT, AMOUNT_MAX]),
)
without_ids = st.tuples(
    st.sampled_from("DW"), st.integers(0, 2), st.none(), st.sampled_from([1, 2, 3, AMOUNT_MAX])
)
mixes = st.one_of(st.lists(ordinary, min_size=1, max_size=50), st.lists(without_ids, min_size=1, max_size=30))
places = st.sets(st.integers(1, 150))

RICH: list[Row] = [("D", 0, 1_000 + index, AMOUNT_MAX) for index in range(92)]
"""After these, account 0 has room for less than one largest deposit."""


def tidied(rows: Sequence[Row]) -> list[Row]:
    return [(kind, account, tx, amount if kind in "DW" else 0) for kind, account, tx, amount in rows]


def run(rows: Sequence[Row], entries_cut: set[int], commits_cut: set[int], restarts: set[int]) -> MemoryStore:
    """All rows of one source through chain, ledger and store, cut into entries, these into commits."""
    store = MemoryStore(TOPOLOGY, 0)
    shard = Shard(store)
    entries = [
        entry_of(number, rows[piece.start : piece.stop], first=piece.start + 1)
        for number, piece in enumerate(cut(len(rows), entries_cut))
    ]
    for number, piece in enumerate(cut(len(entries), commits_cut)):
        if number in restarts:
            shard.forget()
        shard.commit(entries[piece.start : piece.stop])
    return store


@settings(deadline=None, max_examples=300)
@given(mixes, st.booleans(), places, places, places)
def test_every_row_and_every_balance_are_those_of_the_model(
    mixed: list[Row], is_rich: bool, entries_cut: set[int], commits_cut: set[int], restarts: set[int]
) -> None:
    """Outcome by row, balances, disputes and ids, for any cut into entries and commits, and with restarts."""
    rows = tidied(mixed)
    if is_rich and rows[0][2] is not None:
        rows = RICH + rows
    model = Model()
    expected = [("source", position, model.tell(*row)) for position, row in enumerate(rows, 1)]
    store = run(rows, entries_cut, commits_cut, restarts)
    assert decided(store.records) == expected
    assert {
        account: (Fraction(available, UNIT), Fraction(held, UNIT), locked)
        for account, (available, held, locked, _) in store.balances.items()
    } == {account: model.balance(account) for account in model.accounts()}
    assert {tx: deposit.state.value for tx, deposit in store.disputes.items()} == model.disputes()
    assert store.transactions.keys() == model.taken()
    assert store.checkpoint().highest_tx == max(model.taken(), default=-1)


@settings(deadline=None, max_examples=100)
@given(mixes, places, places, places)
def test_how_rows_are_cut_into_entries_changes_no_outcome(
    mixed: list[Row], one: set[int], other: set[int], commits_cut: set[int]
) -> None:
    """The same rows in other batches end in the same balances, disputes and outcomes."""
    rows = tidied(mixed)
    left, right = run(rows, one, commits_cut, set()), run(rows, other, set(), commits_cut)
    assert decided(left.records) == decided(right.records)
    assert {account: balance[:3] for account, balance in left.balances.items()} == {
        account: balance[:3] for account, balance in right.balances.items()
    }
    assert left.disputes == right.disputes
    assert left.transactions.keys() == right.transactions.keys()
