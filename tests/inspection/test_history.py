"""An account's history is what the plain ledger went through, whichever part of the journal it is read from."""

import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftpipe.core.ledger import Account, Facts
from hftpipe.core.walked_ledger import Decision, WalkedLedger
from hftpipe.errors import StoreDamaged
from hftpipe.inspection.collecting import collect, disputes_until, plan_of
from hftpipe.store.creation import create
from hftpipe.store.inspecting import inspecting
from hftpipe.store.sqlite import shard_path
from tests.core.driver import TOPOLOGY, Row, batch_of, cut
from tests.inspection.prepared import Books

ACCOUNTS = (0, 1, 300)
KINDS = "DDDWWPPRC"


@pytest.fixture(scope="module")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that was never written to: a copy of it is made sooner than a new one."""
    path = shard_path(tmp_path_factory.mktemp("blank"), 0)
    create(path, TOPOLOGY, 0)
    return path


@st.composite
def rows(draw: st.DrawFn) -> list[Row]:
    """Transactions of few accounts with few ids, so that they meet."""
    return [
        (
            kind,
            draw(st.sampled_from(ACCOUNTS)),
            draw(st.integers(0, 9)),
            draw(st.integers(1, 60)) if kind in "DW" else 0,
        )
        for kind in draw(st.text(KINDS, min_size=1, max_size=30))
    ]


def walked(parts: Sequence[Sequence[Row]]) -> list[Decision]:
    """What the plain ledger decides, in one go; numbers count the parts from 1."""
    ledger = WalkedLedger()
    batches = [batch_of(part, range(1, len(part) + 1)) for part in parts]
    ledger.learn(ledger.needs(batches), Facts({}, set(), {}))
    ledger.apply_all(list(enumerate(batches, 1)))
    return ledger.decisions


@settings(deadline=None, max_examples=60)
@given(rows(), st.lists(st.integers(1, 29), max_size=8), st.data())
def test_the_history_is_what_the_ledger_went_through(
    blank: Path,
    tmp_path_factory: pytest.TempPathFactory,
    all_rows: list[Row],
    places: list[int],
    data: st.DataObject,
) -> None:
    """The balance before and behind every row; the whole of it, or a part that is read from its end."""
    parts = [all_rows[part.start : part.stop] for part in cut(len(all_rows), places)]
    home = tmp_path_factory.mktemp("home")
    shutil.copyfile(blank, shard_path(home, 0))
    with closing(Books(home)) as books:
        books.add(*parts)
        account = data.draw(st.sampled_from(ACCOUNTS))
        last = data.draw(st.integers(0, len(parts)))
        records_max = data.draw(st.none() | st.integers(1, len(parts)))
        decided = [each for each in walked(parts) if each.account_id == account and each.place.number <= last]
        with inspecting(shard_path(home, 0), 0, 1) as shard:
            plan = plan_of(shard, account, last, records_max=records_max)
            collected = collect(shard, plan)
            assert disputes_until(shard, plan) == collected.disputes
    history = collected.history
    told = decided[len(decided) - len(history) :]
    assert collected.records == len({each.place.number for each in decided})
    if records_max is None or records_max >= collected.records:
        assert collected.is_whole
    if collected.is_whole:
        assert len(told) == len(decided)
    places_there = zip(history.movements.numbers.tolist(), history.movements.places.tolist(), strict=True)
    assert list(places_there) == [(each.place.number, each.place.index) for each in told]
    assert [history.after(index) for index in range(len(history))] == [each.after for each in told]
    assert [history.after(index - 1) for index in range(len(history))] == [each.before for each in told]
    assert history.end == (decided[-1].after if decided else Account())
    states = {
        each.tx: getattr(each.stands, "state", None)
        for each in decided
        if each.kind.value in "PRC" and each.refusal is None
    }
    assert {dispute.tx: dispute.state for dispute in collected.disputes} == states


def test_a_balance_that_is_not_what_its_movements_add_up_to_is_damage(tmp_path: Path) -> None:
    """Whoever asks about the account is told so, and not one of two truths."""
    with closing(Books(tmp_path)) as books:
        books.add([("D", 7, 1, 5)])
        path = shard_path(tmp_path, 0)
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE balances SET available = 6")
        with pytest.raises(StoreDamaged, match="account 7 is not what its movements add up to"):  # noqa: SIM117
            with inspecting(path, 0, 1) as shard:
                collect(shard, plan_of(shard, 7, 1))


def test_records_are_found_by_accounts_of_any_size(tmp_path: Path) -> None:
    """Also where the bytes of one account stand within, or across, those of others."""
    accounts = [0, 1, 255, 256, 257, 511, 65_535, 65_536, 2**32 - 1, 2**32, 2**63 - 1]
    with closing(Books(tmp_path)) as books:
        books.add(*[[("D", account, tx, 1)] for tx, account in enumerate(accounts)])
        books.add([("D", account, 100 + place, 1) for place, account in enumerate(accounts[:6])])
        books.add([("P", account, 999, 0) for account in accounts])
        books.commit(books.entry([("D", account, None, 1) for account in accounts], source="without ids"))
        with inspecting(shard_path(tmp_path, 0), 0, 1) as shard:
            for place, account in enumerate(accounts, 1):
                together = [len(accounts) + 1] if account < 512 else []
                expected = [place, *together, len(accounts) + 2, len(accounts) + 3]
                assert shard.records_naming(account) == expected
            assert shard.records_naming(2) == []
            assert shard.records_naming(2**40) == []


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE entries SET payload = 'x' WHERE number = 1",
        "UPDATE entries SET payload = replace(payload, '[7]', '[8]') WHERE number = 1",
        "UPDATE entries SET outcomes = '[]' WHERE number = 1",
        "DELETE FROM entries WHERE number = 1",
        "UPDATE taken_ids SET accounts = x'0707'",
    ],
)
def test_a_damaged_record_is_damage(tmp_path: Path, damage: str) -> None:
    """Never a traceback."""
    with closing(Books(tmp_path)) as books:
        books.add([("D", 7, 1, 5)])
        path = shard_path(tmp_path, 0)
        with closing(sqlite3.connect(path)) as connection, connection:
            assert connection.execute(damage).rowcount == 1
        with pytest.raises(StoreDamaged, match=r"shard-0000\.db"), inspecting(path, 0, 1) as shard:
            collect(shard, plan_of(shard, 7, 1))
