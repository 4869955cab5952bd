"""Rules from a file of the user's: found, and held to what the ledger relies on."""

import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final

from hftpipe.core.rules import Account, Deposit, DisputeState, Refusal, Rules, Verdict
from hftpipe.core.transaction import INT64_MAX, INT64_MIN, Kind
from hftpipe.core.why import APPLIED, GAP, SKIPPED
from hftpipe.errors import UsageError

_REASON: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_NO_REASONS: Final = frozenset({APPLIED, SKIPPED, GAP})
_ASKED: Final = ("admit", "deposit", "withdraw", "dispute", "resolve", "charge_back")
_MODULE: Final = "hftpipe_changed_rules"


def load_rules(path: Path) -> Rules:
    """The rules that a file defines as `class Rules(hftpipe.core.rules.Rules)`, checked at every call.

    Raises UsageError, with the line, when there are none, and later when they fail or break what the ledger relies on.
    """
    found = getattr(_module(path), "Rules", None)
    if not isinstance(found, type) or not issubclass(found, Rules) or found is Rules:
        raise UsageError(
            f"{path} defines no class Rules made of hftpipe.core.rules.Rules. `hftpipe replay --help` shows an example"
        )
    try:
        return CheckedRules(path, found())
    except Exception as error:
        raise _failed(path, "Rules()", error) from error


def _module(path: Path) -> object:
    spec = importlib.util.spec_from_file_location(_MODULE, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} is no Python file: its name must end with .py")
    module = importlib.util.module_from_spec(spec)
    kept, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # nothing is left beside the user's file
    sys.modules[_MODULE] = module  # dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise UsageError(f"{path}:{error.lineno}: {error.msg}. Mend it and run the command again") from error
    except (Exception, SystemExit) as error:
        raise _failed(path, "the file", error) from error
    finally:
        sys.dont_write_bytecode = kept
    return module


class CheckedRules(Rules):
    """Asks other rules, and raises UsageError as soon as they do what would make the replay meaningless.

    Those that are the standard ones are asked without a look at what they do.
    """

    def __init__(self, path: Path, rules: Rules) -> None:
        self._path = path
        self._rules = rules
        for name in _ASKED:
            if getattr(type(rules), name) is getattr(Rules, name) and name not in vars(rules):
                setattr(self, name, getattr(rules, name))

    def admit(self, kind: Kind, account_id: int, account: Account) -> Verdict:
        before = _standing(account)
        try:
            verdict = self._rules.admit(kind, account_id, account)
        except Exception as error:
            raise _failed(self._path, "Rules.admit", error) from error
        if _standing(account) != before:
            raise self._wrong(
                "admit", "changed the account; it may only say whether it takes the transaction"
            )
        return verdict if verdict is None else self._reason("admit", verdict)

    def deposit(self, account: Account, amount: int) -> Verdict:
        return self._moved("deposit", self._rules.deposit, account, amount)

    def withdraw(self, account: Account, amount: int) -> Verdict:
        return self._moved("withdraw", self._rules.withdraw, account, amount)

    def dispute(self, account: Account, deposit: Deposit) -> Verdict:
        return self._disputed("dispute", self._rules.dispute, account, deposit)

    def resolve(self, account: Account, deposit: Deposit) -> Verdict:
        return self._disputed("resolve", self._rules.resolve, account, deposit)

    def charge_back(self, account: Account, deposit: Deposit) -> Verdict:
        return self._disputed("charge_back", self._rules.charge_back, account, deposit)

    def _moved(
        self, name: str, ask: Callable[[Account, int], Verdict], account: Account, amount: int
    ) -> Verdict:
        before = _standing(account)
        try:
            verdict = ask(account, amount)
        except Exception as error:
            raise _failed(self._path, f"Rules.{name}", error) from error
        self._check_account(name, account)
        if verdict is None:
            return None
        if _standing(account) != before:
            raise self._wrong(name, f"refused with {verdict!r}, but changed the account")
        return self._reason(name, verdict)

    def _disputed(
        self, name: str, ask: Callable[[Account, Deposit], Verdict], account: Account, deposit: Deposit
    ) -> Verdict:
        stood = (deposit.account, deposit.amount, deposit.state)

        def asked(account: Account, _: int) -> Verdict:
            return ask(account, deposit)

        verdict = self._moved(name, asked, account, 0)
        stands = (deposit.account, deposit.amount, deposit.state)
        if stands[:2] != stood[:2]:
            raise self._wrong(name, "changed the deposit's account or amount; only its state may change")
        if not isinstance(deposit.state, DisputeState):
            raise self._wrong(name, f"left deposit.state at {deposit.state!r}: a DisputeState")
        if verdict is not None and stands != stood:
            raise self._wrong(name, f"refused with {verdict!r}, but changed the deposit")
        return verdict

    def _check_account(self, name: str, account: Account) -> None:
        for field, value in (("available", account.available), ("held", account.held)):
            if type(value) is not int or not INT64_MIN <= value <= INT64_MAX:
                raise self._wrong(
                    name, f"left account.{field} at {value!r}: an integer of ten-thousandths within 64 bits"
                )
        if type(account.locked) is not bool:
            raise self._wrong(name, f"left account.locked at {account.locked!r}: True or False")

    def _reason(self, name: str, verdict: object) -> str:
        if type(verdict) is Refusal:
            return verdict
        reason = str.__str__(verdict) if isinstance(verdict, str) else ""
        if not _REASON.fullmatch(reason) or reason in _NO_REASONS:
            raise self._wrong(name, f"returned {verdict!r}: None, or a reason like insufficient_funds")
        return reason

    def _wrong(self, name: str, what: str) -> UsageError:
        code = getattr(getattr(self._rules, name), "__code__", None)
        line = f":{code.co_firstlineno}" if code is not None else ""
        return UsageError(f"{self._path}{line}: Rules.{name} {what}")


def _standing(account: Account) -> tuple[int, int, bool]:
    return account.available, account.held, account.locked


def _failed(path: Path, name: str, error: BaseException) -> UsageError:
    line = _line_in(path, error.__traceback__)
    where = f"{path}:{line}" if line else str(path)
    return UsageError(
        f"{where}: {name} failed: {type(error).__name__}: {error}. Mend it and run the command again"
    )


def _line_in(path: Path, trace: TracebackType | None) -> int:
    """The innermost line of that file on the way to an error; 0 when it is not on it."""
    line = 0
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
