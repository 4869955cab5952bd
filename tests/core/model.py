"""The account rules once more, told differently: nothing is kept but what happened, and every question is answered
by reading the whole history again. Slow and plain; it shares no code with the ledger that it specifies.
"""

from collections import defaultdict
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

APPLIED = "applied"
LARGEST = Fraction(2**63 - 1, 10_000)
SMALLEST = Fraction(-(2**63), 10_000)


class Event(NamedTuple):
    """A row and what became of it; `amount` in units."""

    kind: str
    account: int
    tx: int | None
    amount: Fraction
    outcome: str


class Model:
    """All events of one shard, oldest first."""

    def __init__(self) -> None:
        self.history: list[Event] = []

    def tell(self, kind: str, account: int, tx: int | None, amount: int) -> str:
        """Decides one row, amount in ten-thousandths: `applied`, or the reason why not."""
        units = Fraction(amount, 10_000)
        reasons = self._reasons(kind, account, tx, units)
        outcome = next(reasons, APPLIED)
        self.history.append(Event(kind, account, tx, units, outcome))
        return outcome

    def accounts(self) -> set[int]:
        """Every account that was ever named."""
        return {event.account for event in self.history}

    def balance(self, account: int) -> tuple[Fraction, Fraction, bool]:
        """Available, held, locked."""
        available, held = self._sums(account)
        return available, held, self._is_locked(account)

    def disputes(self) -> dict[int, str]:
        """Every deposit that was ever disputed, and how it stands."""
        standing = {"P": "disputed", "R": "resolved", "C": "charged_back"}
        return {
            event.tx: standing[event.kind]
            for event in self._applied()
            if event.tx is not None and event.kind in standing
        }

    def taken(self) -> set[int]:
        """Every transaction id that was used by a deposit or a withdrawal, applied or not."""
        return {event.tx for event in self.history if event.tx is not None and event.kind in "DW"}

    def _reasons(self, kind: str, account: int, tx: int | None, amount: Fraction) -> Iterator[str]:
        """All that speaks against a row, the strongest first."""
        available, held = self._sums(account)
        if self._is_locked(account):
            yield "account_locked"
        if kind in "DW":
            if tx in self.taken():
                yield "duplicate_tx"
            if kind == "W" and amount > available:
                yield "insufficient_funds"
            if kind == "D" and available + held + amount > LARGEST:
                yield "overflow"
            return
        first_uses = [event for event in self.history if event.kind in "DW" and event.tx == tx]
        if not first_uses:
            yield "unknown_tx"
            return
        deposit = first_uses[0]
        if deposit.kind == "W" or deposit.outcome != APPLIED:
            yield "not_disputable"
        if deposit.account != account:
            yield "wrong_account"
        standing = self.disputes().get(deposit.tx if deposit.tx is not None else -1)
        if standing == "charged_back":
            yield "charged_back"
        if kind == "P":
            if standing == "disputed":
                yield "already_disputed"
            if available - deposit.amount < SMALLEST or held + deposit.amount > LARGEST:
                yield "overflow"
        elif standing != "disputed":
            yield "not_disputed"

    def _applied(self) -> Iterator[Event]:
        return (event for event in self.history if event.outcome == APPLIED)

    def _is_locked(self, account: int) -> bool:
        return any(event.account == account and event.kind == "C" for event in self._applied())

    def _sums(self, account: int) -> tuple[Fraction, Fraction]:
        """What each applied event moved, added up."""
        deposits = {event.tx: event.amount for event in self._applied() if event.kind == "D"}
        moved: dict[str, list[Fraction]] = defaultdict(lambda: [Fraction(0)])
        for event in self._applied():
            if event.account == account:
                moved[event.kind].append(event.amount if event.kind in "DW" else deposits[event.tx])
        totals = {kind: sum(moved[kind], Fraction(0)) for kind in "DWPRC"}
        available = totals["D"] - totals["W"] - totals["P"] + totals["R"]
        held = totals["P"] - totals["R"] - totals["C"]
        return available, held
