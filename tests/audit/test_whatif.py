"""Rules from a file: which outcomes they would change, and what is said of a file that cannot be used."""

from collections import Counter
from pathlib import Path
from textwrap import dedent

import pytest

from hftpipe.audit.changed_rules import load_rules
from hftpipe.audit.material import Recording, opened
from hftpipe.audit.whatif import Compared, Differing, WhatIf, differing_outcomes
from hftpipe.audit.window import Origin, Window
from hftpipe.cli.replay import RULES_HELP
from hftpipe.core.entry import Entry
from hftpipe.core.ledger import Facts, Ledger
from hftpipe.core.picked_ledger import Wanted
from hftpipe.core.rules import Account, Deposit, DisputeState, Refusal
from hftpipe.core.transaction import Kind
from hftpipe.errors import UsageError
from tests.audit.prepared import SHARDS, Prepared
from tests.core.driver import batch_of

OVERDRAFT = """
from hftpipe.core.rules import Rules

class Rules(Rules):
    def withdraw(self, account, amount):
        if amount > 900_0000:
            return "above_limit"
        account.available -= amount
"""
SAME = "from hftpipe.core.rules import Rules as Standard\n\nclass Rules(Standard):\n    pass\n"


def rules_file(folder: Path, text: str) -> Path:
    path = folder / "changed.py"
    path.write_text(text)
    return path


def recording(prepared: Prepared) -> Recording:
    return Recording(prepared.home, SHARDS, Window(), Origin.JOURNAL)


def compared(
    prepared: Prepared, folder: Path, text: str, wanted: Wanted | None = None
) -> tuple[Compared, list[Differing]]:
    task = WhatIf(recording(prepared), rules_file(folder, text), folder, wanted)
    total = Compared()
    for shard in range(SHARDS):
        total.merge(task(shard, lambda _: None))
    return total, list(differing_outcomes(folder, range(SHARDS)))


def test_the_same_rules_change_nothing(prepared: Prepared, tmp_path: Path) -> None:
    total, rows = compared(prepared, tmp_path, SAME)
    assert not rows
    assert not total.changes
    assert not total.accounts
    assert not total.disagrees
    assert total.then == total.now
    assert total.tally.transactions > 1_000


def test_changed_rules_name_each_outcome_that_is_another(prepared: Prepared, tmp_path: Path) -> None:
    total, rows = compared(prepared, tmp_path, OVERDRAFT)
    assert Counter((then, now) for *_, then, now in rows) == total.changes
    assert {("insufficient_funds", "applied"), ("applied", "above_limit")} <= total.changes.keys()
    for *_, kind, _, _, amount, _, now in rows:
        assert now != "above_limit" or (kind == "withdrawal" and amount > 900_0000)
    assert total.accounts
    assert total.then != total.now


def test_the_rows_are_those_of_the_recorded_entries(prepared: Prepared, tmp_path: Path) -> None:
    _, rows = compared(prepared, tmp_path, OVERDRAFT)
    known = set()
    for shard in range(SHARDS):
        with opened(recording(prepared), shard) as material:
            for entry in material.entries(1, material.records):
                if isinstance(entry, Entry):
                    known |= {
                        (f"{shard}/{entry.id}", entry.source, row, account)
                        for row, account in zip(
                            entry.batch.rows.tolist(), entry.batch.accounts.tolist(), strict=True
                        )
                    }
    assert {(entry, source, row, account) for entry, source, row, _, account, *_ in rows} <= known


def test_the_differences_of_one_account_alone(prepared: Prepared, tmp_path: Path) -> None:
    _, every = compared(prepared, tmp_path, OVERDRAFT)
    account = every[0][4]
    apart = tmp_path / "apart"
    apart.mkdir()
    total, rows = compared(prepared, apart, OVERDRAFT, Wanted(accounts={account}))
    assert rows == [row for row in every if row[4] == account]
    assert total.changes.total() == len(rows)


def test_reasons_of_their_own_stand_behind_the_standard_ones(tmp_path: Path) -> None:
    ledger = Ledger(rules=load_rules(rules_file(tmp_path, OVERDRAFT)))
    batch = batch_of([("W", 1, 1, 10_000_0000), ("D", 1, 1, 1), ("W", 1, 2, 5)], [1, 2, 3])
    needs = ledger.needs([batch])
    ledger.learn(needs, Facts({}, set(), {}))
    (outcome,) = ledger.apply_all([(1, batch)])
    assert {reason: rows.tolist() for reason, rows in outcome.refused.items()} == {
        Refusal.DUPLICATE_TX: [1],
        "above_limit": [0],
    }
    assert list(outcome.refused) == ["duplicate_tx", "above_limit"]


HEAD = "from hftpipe.core.rules import Rules\n\nclass Rules(Rules):\n"
BROKEN = {
    "def": ("def x(:\n", "changed.py:1: invalid syntax"),
    "import": ("x = 1\nimport nothing_of_that_name\n", "changed.py:2: the file failed: ModuleNotFoundError"),
    "nothing": ("x = 1\n", "defines no class Rules"),
    "no class of ours": ("class Rules:\n    pass\n", "defines no class Rules"),
    "the standard ones": ("from hftpipe.core.rules import Rules\n", "defines no class Rules"),
    "arguments": (HEAD + "    def __init__(self, x): pass\n", "Rules() failed: TypeError"),
    "abort": ("import sys\nsys.exit(3)\n", "changed.py:2: the file failed: SystemExit"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_without_rules_is_refused(tmp_path: Path, name: str) -> None:
    text, told = BROKEN[name]
    with pytest.raises(UsageError) as raised:
        load_rules(rules_file(tmp_path, text))
    assert told in str(raised.value)


MISBEHAVING = {
    "raises": ("x = 1 / 0", "changed.py:5: Rules.deposit failed: ZeroDivisionError"),
    "a float": ("account.available += 0.5", "changed.py:4: Rules.deposit left account.available at 0.5"),
    "beyond 64 bits": ("account.held = 2**63", "left account.held at 9223372036854775808"),
    "no flag": ("account.locked = 1", "left account.locked at 1"),
    "changes and refuses": (
        "account.available += 1; return 'no'",
        "refused with 'no', but changed the account",
    ),
    "no reason": ("return False", "Rules.deposit returned False"),
    "a sentence": ("return 'Not today!'", "Rules.deposit returned 'Not today!'"),
    "a taken name": ("return 'applied'", "Rules.deposit returned 'applied'"),
}


@pytest.mark.parametrize("name", MISBEHAVING)
def test_rules_that_break_the_books_are_named_with_their_line(tmp_path: Path, name: str) -> None:
    body, told = MISBEHAVING[name]
    rules = load_rules(
        rules_file(tmp_path, f"{HEAD}    def deposit(self, account, amount):\n        {body}\n")
    )
    with pytest.raises(UsageError) as raised:
        rules.deposit(Account(), 1)
    assert told in str(raised.value)


def test_rules_may_not_change_what_only_the_ledger_knows(tmp_path: Path) -> None:
    text = HEAD + (
        "    def admit(self, kind, account_id, account):\n        account.locked = True\n"
        "    def dispute(self, account, deposit):\n        deposit.amount = 0\n"
        "    def resolve(self, account, deposit):\n        deposit.state = 'done'\n"
    )
    rules = load_rules(rules_file(tmp_path, text))
    with pytest.raises(UsageError, match="admit changed the account"):
        rules.admit(Kind.DEPOSIT, 1, Account())
    with pytest.raises(UsageError, match="changed the deposit's account or amount"):
        rules.dispute(Account(), Deposit(1, 5))
    with pytest.raises(UsageError, match=r"left deposit\.state at 'done'"):
        rules.resolve(Account(), Deposit(1, 5, DisputeState.DISPUTED))


def test_rules_that_an_instance_has_are_checked_too(tmp_path: Path) -> None:
    text = HEAD + (
        "    def __init__(self):\n        self.deposit = self.gift\n\n"
        "    def gift(self, account, amount):\n        account.available += 0.5\n"
    )
    with pytest.raises(UsageError, match=r"changed\.py:7: Rules\.deposit left account\.available at 0\.5"):
        load_rules(rules_file(tmp_path, text)).deposit(Account(), 1)


def test_locked_accounts_may_be_let_in(tmp_path: Path) -> None:
    text = HEAD + (
        "    def admit(self, kind, account_id, account):\n"
        "        if kind.name == 'DEPOSIT' or account_id == 7:\n            return None\n"
        "        return super().admit(kind, account_id, account)\n"
    )
    rules = load_rules(rules_file(tmp_path, text))
    locked = Account(locked=True)
    assert rules.admit(Kind.DEPOSIT, 1, locked) is None
    assert rules.admit(Kind.WITHDRAWAL, 7, locked) is None
    assert rules.admit(Kind.WITHDRAWAL, 1, locked) == "account_locked"


def test_the_example_of_the_help_works(tmp_path: Path) -> None:
    shown = RULES_HELP.split(":\n", 1)[1].replace("\b", "")
    text = dedent("\n".join(line for line in shown.splitlines() if line.strip()))
    rules = load_rules(rules_file(tmp_path, text))
    account = Account(0)
    assert rules.withdraw(account, 101_0000) == "beyond_overdraft"
    assert rules.withdraw(account, 99_0000) is None
    assert account.available == -99_0000
