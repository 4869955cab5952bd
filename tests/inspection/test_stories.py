"""What is told about an account, a transaction and an entry."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from hftpipe.core.entry import EntryId
from hftpipe.core.ledger import Account, DisputeState
from hftpipe.errors import NotThere, UsageError
from hftpipe.inspection.account import AccountStory, account_story
from hftpipe.inspection.entry import EntryState, journaled
from hftpipe.inspection.home import Home, home_at
from hftpipe.inspection.telling import (
    account_lines,
    account_told,
    entry_lines,
    entry_told,
    transaction_lines,
    transaction_told,
)
from hftpipe.inspection.transaction import namings_of
from hftpipe.moments import Address, Instant, Moment
from hftpipe.ports import Movement
from tests.core.driver import Row
from tests.inspection.prepared import TIME_MS, Books

MONEY = 10_000


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Books]:
    """A pipeline of two shards: even accounts are in shard 0."""
    with closing(Books(tmp_path / "home", shards=2)) as books:
        yield books


def home_of(books: Books) -> Home:
    found = home_at(books.home)
    assert found is not None
    return found


def whys(books: Books, tx: int) -> list[str]:
    return [naming.why for naming in namings_of(home_of(books), tx).namings]


def story_of(books: Books, account: int, at: Moment | None = None, last: int = 10) -> AccountStory:
    return account_story(home_of(books), account, at, steps_max=last, is_whole=False)


DISPUTED: list[list[Row]] = [
    [("D", 2, 1, 5 * MONEY), ("W", 2, 2, 2 * MONEY)],
    [("P", 2, 1, 0), ("D", 4, 3, MONEY)],
    [("R", 2, 1, 0)],
    [("P", 2, 1, 0), ("C", 2, 1, 0), ("D", 2, 4, MONEY)],
]


# --- account -------------------------------------------------------------------------------------------------------


def test_an_account_is_told_with_its_last_movements_and_disputes(books: Books) -> None:
    """The balance behind each, where the disputes were opened and changed, and what locked it."""
    books.add(*DISPUTED)
    story = story_of(books, 2, last=3)
    assert (story.standing, story.records, story.is_whole) == (Account(-2 * MONEY, 0, True), 4, True)
    assert [step.movement.kind.value for step in story.steps] == ["P", "C", "D"]
    assert [step.movement.outcome for step in story.steps] == ["applied", "applied", "account_locked"]
    assert [step.movement.row for step in story.steps] == [7, 8, 9]
    assert [step.after for step in story.steps] == [
        Account(-2 * MONEY, 5 * MONEY),
        Account(-2 * MONEY, 0, True),
        Account(-2 * MONEY, 0, True),
    ]
    (dispute,) = story.disputes
    assert (dispute.tx, dispute.amount, dispute.state) == (1, 5 * MONEY, DisputeState.CHARGED_BACK)
    assert (dispute.opened, dispute.changed) == (EntryId(1, 1), EntryId(1, 3))
    assert dispute.opened_ms == TIME_MS + 1_000
    assert account_lines(story)[-1] == "  locked     yes, since the chargeback of tx 1 at 0/1-3"
    told = account_told(story)
    assert (told["available"], told["total"], told["locked"]) == ("-2.0000", "-2.0000", True)
    assert told["transactions"] == 7


@pytest.mark.parametrize(
    ("at", "standing", "state"),
    [
        (Address(0, EntryId(1, 0)), Account(3 * MONEY), None),
        (Address(None, EntryId(1, 1)), Account(-2 * MONEY, 5 * MONEY), DisputeState.DISPUTED),
        (Instant(TIME_MS + 1_999), Account(-2 * MONEY, 5 * MONEY), DisputeState.DISPUTED),
        (Instant(TIME_MS + 2_000), Account(3 * MONEY), DisputeState.RESOLVED),
        (Instant(TIME_MS + 10**9), Account(-2 * MONEY, 0, True), DisputeState.CHARGED_BACK),
    ],
)
def test_an_account_as_it_stood(
    books: Books, at: Moment, standing: Account, state: DisputeState | None
) -> None:
    """Behind an entry, or at a time: balance and disputes of then."""
    books.add(*DISPUTED)
    story = story_of(books, 2, at)
    assert story.standing == standing
    assert [dispute.state for dispute in story.disputes] == ([] if state is None else [state])


@pytest.mark.parametrize(
    ("account", "at", "error", "says"),
    [
        (6, None, NotThere, "account 6 is not known"),
        (4, Address(0, EntryId(1, 0)), NotThere, "account 4 is not known: no .* by then"),
        (2, Instant(TIME_MS - 1), NotThere, "had applied nothing by then"),
        (2, Address(0, EntryId(1, 9)), NotThere, "entry 0/1-9 is not in the journal, which ends with 0/1-3"),
        (2, Address(1, EntryId(1, 0)), UsageError, "account 2 is in shard 0"),
        (3, None, NotThere, "its shard 1 has applied nothing yet"),
    ],
)
def test_what_is_not_known_is_said(
    books: Books, account: int, at: Moment | None, error: type[Exception], says: str
) -> None:
    """With the reason."""
    books.add(*DISPUTED)
    with pytest.raises(error, match=says):
        story_of(books, account, at)


# --- transaction ---------------------------------------------------------------------------------------------------


def test_a_transaction_is_told_with_all_that_named_it(books: Books) -> None:
    """Where it came from, the balance around it, and each dispute with the state that it found."""
    books.add(*DISPUTED)
    namings = namings_of(home_of(books), 1).namings
    assert [naming.why for naming in namings] == [
        "deposit: 5.0000 comes in → applied",
        "dispute: 5.0000 of tx 1, which was undisputed, is held → applied",
        "resolve: 5.0000 of tx 1, which was disputed, is available again → applied",
        "dispute: 5.0000 of tx 1, which was resolved, is held → applied",
        "chargeback: 5.0000 of tx 1, which was disputed, goes back, and the account is locked → applied",
    ]
    assert [naming.is_taker for naming in namings] == [True, False, False, False, False]
    assert (namings[0].before, namings[0].after) == (Account(), Account(5 * MONEY))
    assert (namings[4].before, namings[4].after) == (
        Account(-2 * MONEY, 5 * MONEY),
        Account(-2 * MONEY, 0, True),
    )
    lines = transaction_lines(1, namings)
    assert "  source   /data/monday.csv, line 2" in lines
    assert "  balance  available 0.0000 → 5.0000, held 0.0000 → 0.0000" in lines
    told = transaction_told(1, namings)
    assert told["tx"] == 1
    assert len(told["transactions"]) == 5  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rows", "tx", "says"),
    [
        (
            [("D", 2, 1, 5 * MONEY), ("W", 2, 2, 7 * MONEY)],
            2,
            "7.0000 wanted, 5.0000 available → insufficient_funds",
        ),
        ([("D", 2, 1, 1), ("W", 2, 1, 1)], 1, "tx 1 was taken before, by 0/1-0, row 2 → duplicate_tx"),
        (
            DISPUTED[0] + DISPUTED[3],
            4,
            "account 2 is locked, since the chargeback of tx 1 at 0/1-0 → account_locked",
        ),
        ([("P", 2, 1, 0), ("D", 2, 1, MONEY)], 1, "no transaction before has taken tx 1 → unknown_tx"),
        ([("W", 2, 1, 5), ("P", 2, 1, 0)], 1, "tx 1 (0/1-0, row 2) is a withdrawal, or a deposit that"),
        ([("D", 2, 1, 5), ("P", 4, 1, 0)], 1, "tx 1 is a deposit of account 2, not of 4 → wrong_account"),
        ([("D", 2, 1, 5), ("R", 2, 1, 0)], 1, "tx 1 is undisputed, and not disputed → not_disputed"),
        (
            [("D", 2, 1, 5), ("P", 2, 1, 0), ("P", 2, 1, 0)],
            1,
            "0.0005 of tx 1 is held already → already_disputed",
        ),
        (
            [("D", 2, 1, 5), ("P", 2, 1, 0), ("C", 2, 1, 0), ("R", 2, 1, 0)],
            1,
            "account 2 is locked, since the chargeback of tx 1 at 0/1-0 → account_locked",
        ),
    ],
    ids=lambda value: str(value)[-20:],
)
def test_why_is_told_in_words_with_numbers(books: Books, rows: list[Row], tx: int, says: str) -> None:
    """Every reason, with what it was decided on."""
    books.add(rows)
    assert any(says in why for why in whys(books, tx))


def test_an_id_that_several_shards_took_is_told_of_each(books: Books) -> None:
    """Nothing keeps sources from using it twice."""
    books.add([("D", 2, 1, MONEY)])
    books.add([("W", 3, 1, MONEY)], shard=1)
    assert [naming.movement.shard for naming in namings_of(home_of(books), 1).namings] == [0, 1]
    assert namings_of(home_of(books), 2).namings == []


def test_a_row_that_is_no_line_of_a_file_is_not_called_one(books: Books) -> None:
    """Those of the service and of the inbox are counted."""
    books.commit(books.entry([("D", 2, 1, MONEY)], source="serve:host:1"))
    lines = transaction_lines(1, namings_of(home_of(books), 1).namings)
    assert "  source   serve:host:1, row 2" in lines


# --- entry ---------------------------------------------------------------------------------------------------------


def outcomes(movements: "list[Movement]") -> list[str]:
    return [movement.outcome for movement in movements]


def test_an_entry_is_told_row_by_row(books: Books) -> None:
    """Those too that had been decided before, and all of one that was left alone for a gap."""
    first = books.entry([("D", 2, 1, MONEY), ("W", 2, 2, 5 * MONEY)])
    again = books.entry([("D", 2, 3, MONEY)])
    books.commit(first)
    books.commit(again)
    found = journaled(home_of(books), 0, EntryId(1, 0))
    assert found is not None
    assert (found.state, found.number, found.source) == (EntryState.APPLIED, 1, "/data/monday.csv")
    assert outcomes(list(found.movements)) == ["applied", "insufficient_funds"]
    assert entry_lines(found)[0] == "entry 0/1-0: applied"
    assert [row["row"] for row in entry_told(found)["transactions"]] == [2, 3]  # type: ignore[attr-defined]


def test_a_dead_letter_is_told_with_reason_and_fields(books: Books) -> None:
    """Bytes that are no text are legible."""
    books.commit(books.foreign())
    found = journaled(home_of(books), 0, EntryId(1, 0))
    assert found is not None
    assert (found.state, found.reason, dict(found.fields)) == (
        EntryState.DEAD,
        "missing field b",
        {"hello": "w\\xffrld"},
    )
    assert "  field    hello: w\\xffrld" in entry_lines(found)


def test_an_entry_that_is_in_no_journal_is_not_found(books: Books) -> None:
    """In a shard that has a store, and in one that has none."""
    books.add([("D", 2, 1, MONEY)])
    assert journaled(home_of(books), 0, EntryId(1, 1)) is None
    assert journaled(home_of(books), 0, EntryId(2, 0)) is None
    assert journaled(home_of(books), 1, EntryId(1, 0)) is None


def test_a_home_without_a_store_is_none(tmp_path: Path) -> None:
    """Whether its folder is there or not."""
    assert home_at(tmp_path) is None
    assert home_at(tmp_path / "nowhere") is None
