"""Why a transaction was applied, or refused, in words with numbers: one wording for all who tell it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from hftpipe.core.amount import render
from hftpipe.core.ledger import Undisputable
from hftpipe.core.rules import Account, Deposit, DisputeState, Refusal
from hftpipe.core.transaction import Kind

APPLIED: Final = "applied"
SKIPPED: Final = "skipped"
GAP: Final = "gap"

KIND_NAMES: Final = {
    Kind.DEPOSIT: "deposit",
    Kind.WITHDRAWAL: "withdrawal",
    Kind.DISPUTE: "dispute",
    Kind.RESOLVE: "resolve",
    Kind.CHARGEBACK: "chargeback",
}


@dataclass(frozen=True, slots=True)
class Grounds:
    """What a transaction was decided on, as far as it is known.

    amount: of the transaction, ten-thousandths; 0 for dispute, resolve and chargeback.
    account: before the transaction; None when its balance is not known.
    deposit: what `tx` stood for before a dispute, resolve or chargeback; None when it stood for nothing.
    taken_by: which transaction had taken the id, for people: `3/1-7, row 12`. locked_by: which one had locked the
    account. Both empty when that is not known.
    """

    kind: Kind
    account_id: int
    tx: int | None
    amount: int
    account: Account | None = None
    deposit: Deposit | Undisputable | None = None
    taken_by: str = ""
    locked_by: str = ""

    @property
    def disputed(self) -> str:
        """The amount that a dispute names, as text."""
        return render(self.deposit.amount) if isinstance(self.deposit, Deposit) else "the amount"

    @property
    def state(self) -> str:
        """How the deposit stands, for people."""
        deposit = self.deposit
        return deposit.state.value.replace("_", " ") if isinstance(deposit, Deposit) else "not known"


def why(outcome: str, grounds: Grounds) -> str:
    """`withdrawal: 7.0000 wanted, 5.0000 available → insufficient_funds`.

    outcome: `applied`, `skipped`, `gap`, or a refusal's name; of changed rules' own refusals only the name is told.
    """
    told = _TOLD.get(outcome)
    ground = "refused by the changed rules" if told is None else told(grounds)
    return f"{KIND_NAMES[grounds.kind]}: {ground} → {outcome}"


def _applied(grounds: Grounds) -> str:
    amount, account = render(grounds.amount), grounds.account
    if grounds.kind is Kind.DEPOSIT:
        return f"{amount} comes in"
    if grounds.kind is Kind.WITHDRAWAL:
        return f"{amount} wanted{'' if account is None else f', {render(account.available)} available'}"
    moved = f"{grounds.disputed} of tx {grounds.tx}, which was {grounds.state},"
    if grounds.kind is Kind.DISPUTE:
        return f"{moved} is held"
    if grounds.kind is Kind.RESOLVE:
        return f"{moved} is available again"
    return f"{moved} goes back, and the account is locked"


def _locked(grounds: Grounds) -> str:
    since = f", since {grounds.locked_by}" if grounds.locked_by else ""
    return f"account {grounds.account_id} is locked{since}"


def _duplicate(grounds: Grounds) -> str:
    return f"tx {grounds.tx} was taken before{f', by {grounds.taken_by}' if grounds.taken_by else ''}"


def _insufficient(grounds: Grounds) -> str:
    there = "less" if grounds.account is None else render(grounds.account.available)
    return f"{render(grounds.amount)} wanted, {there} available"


def _not_disputable(grounds: Grounds) -> str:
    by = f" ({grounds.taken_by})" if grounds.taken_by else ""
    return f"tx {grounds.tx}{by} is a withdrawal, or a deposit that was refused"


def _wrong_account(grounds: Grounds) -> str:
    owner = (
        f"account {grounds.deposit.account}" if isinstance(grounds.deposit, Deposit) else "another account"
    )
    return f"tx {grounds.tx} is a deposit of {owner}, not of {grounds.account_id}"


def _overflow(grounds: Grounds) -> str:
    moved = render(grounds.amount) if grounds.kind is Kind.DEPOSIT else grounds.disputed
    account = grounds.account
    there = (
        "" if account is None else f", {render(account.available)} available and {render(account.held)} held"
    )
    return f"{moved} more{there}: the sum would leave 64 bits"


_TOLD: Final[Mapping[str, Callable[[Grounds], str]]] = {
    APPLIED: _applied,
    SKIPPED: lambda _: "this row of its source was decided before",
    GAP: lambda _: "rows of its source before it are missing",
    Refusal.ACCOUNT_LOCKED: _locked,
    Refusal.DUPLICATE_TX: _duplicate,
    Refusal.INSUFFICIENT_FUNDS: _insufficient,
    Refusal.UNKNOWN_TX: lambda grounds: f"no transaction before has taken tx {grounds.tx}",
    Refusal.NOT_DISPUTABLE: _not_disputable,
    Refusal.WRONG_ACCOUNT: _wrong_account,
    Refusal.ALREADY_DISPUTED: lambda grounds: f"{grounds.disputed} of tx {grounds.tx} is held already",
    Refusal.NOT_DISPUTED: lambda grounds: f"tx {grounds.tx} is {grounds.state}, and not disputed",
    Refusal.CHARGED_BACK: lambda grounds: f"tx {grounds.tx} was charged back, which is final",
    Refusal.OVERFLOW: _overflow,
}


def dispute_state(deposit: Deposit | Undisputable | None) -> DisputeState | None:
    """How a deposit stands; None for what can have no dispute."""
    return deposit.state if isinstance(deposit, Deposit) else None
