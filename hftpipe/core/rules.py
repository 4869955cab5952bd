"""The account rules as a value: what each kind of transaction does to an account, and when it is refused.

The ledger finds what a transaction names, and asks these rules what becomes of it. A subclass that overrides some of
them answers "what if": see `hftpipe replay --with`. Which ids are taken, and what an id stands for, is not theirs to
say: `duplicate_tx`, `unknown_tx`, `not_disputable` and `wrong_account` are the ledger's.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from hftpipe.core.transaction import INT64_MAX, INT64_MIN, Kind


class Refusal(StrEnum):
    """Why a well-formed transaction had no effect; the first that fits, in the order of the rules."""

    ACCOUNT_LOCKED = "account_locked"
    DUPLICATE_TX = "duplicate_tx"
    INSUFFICIENT_FUNDS = "insufficient_funds"
    UNKNOWN_TX = "unknown_tx"
    NOT_DISPUTABLE = "not_disputable"
    WRONG_ACCOUNT = "wrong_account"
    ALREADY_DISPUTED = "already_disputed"
    NOT_DISPUTED = "not_disputed"
    CHARGED_BACK = "charged_back"
    OVERFLOW = "overflow"


Verdict: TypeAlias = str | None
"""None when a transaction takes effect, else the reason why not: a `Refusal`, or a name of changed rules' own."""


class DisputeState(StrEnum):
    """Where a deposit stands between being made and being final."""

    UNDISPUTED = "undisputed"
    DISPUTED = "disputed"
    RESOLVED = "resolved"
    CHARGED_BACK = "charged_back"


@dataclass(slots=True)
class Account:
    """A balance in ten-thousandths; total = available + held."""

    available: int = 0
    held: int = 0
    locked: bool = False


@dataclass(slots=True)
class Deposit:
    """A deposit that took effect, as far as a dispute of it needs to know."""

    account: int
    amount: int
    state: DisputeState = DisputeState.UNDISPUTED


class Rules:
    """The standard rules.

    `admit` is asked about every transaction first, then the method of its kind. Each of these changes the account (and
    the deposit's state) and returns None, or changes nothing and returns why it refuses. Amounts are ten-thousandths.
    """

    def admit(self, kind: Kind, account_id: int, account: Account) -> Verdict:  # noqa: ARG002 - for those who override it
        """Whether the account takes transactions of that kind at all; changes nothing."""
        return Refusal.ACCOUNT_LOCKED if account.locked else None

    def deposit(self, account: Account, amount: int) -> Verdict:
        """Money comes in."""
        if account.available + account.held + amount > INT64_MAX:
            return Refusal.OVERFLOW
        account.available += amount
        return None

    def withdraw(self, account: Account, amount: int) -> Verdict:
        """Money goes out."""
        if amount > account.available:
            return Refusal.INSUFFICIENT_FUNDS
        account.available -= amount
        return None

    def dispute(self, account: Account, deposit: Deposit) -> Verdict:
        """The money of a deposit is held. A dispute may exceed what is available."""
        if deposit.state is DisputeState.DISPUTED:
            return Refusal.ALREADY_DISPUTED
        if deposit.state is DisputeState.CHARGED_BACK:
            return Refusal.CHARGED_BACK
        if account.available - deposit.amount < INT64_MIN or account.held + deposit.amount > INT64_MAX:
            return Refusal.OVERFLOW
        account.available -= deposit.amount
        account.held += deposit.amount
        deposit.state = DisputeState.DISPUTED
        return None

    def resolve(self, account: Account, deposit: Deposit) -> Verdict:
        """What a dispute held is available again."""
        if (refusal := _undisputed(deposit)) is not None:
            return refusal
        account.held -= deposit.amount
        account.available += deposit.amount
        deposit.state = DisputeState.RESOLVED
        return None

    def charge_back(self, account: Account, deposit: Deposit) -> Verdict:
        """What a dispute held goes back to where it came from, and the account is locked."""
        if (refusal := _undisputed(deposit)) is not None:
            return refusal
        account.held -= deposit.amount
        account.locked = True
        deposit.state = DisputeState.CHARGED_BACK
        return None


def _undisputed(deposit: Deposit) -> Refusal | None:
    if deposit.state is DisputeState.CHARGED_BACK:
        return Refusal.CHARGED_BACK
    return None if deposit.state is DisputeState.DISPUTED else Refusal.NOT_DISPUTED
