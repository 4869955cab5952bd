"""From a shard's journal to one account's history."""

import sqlite3
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import orjson

from hftpipe.core.glimpse import Glimpse
from hftpipe.core.ledger import Account
from hftpipe.core.transaction import Column
from hftpipe.inspection.history import (
    NO_ID,
    Codes,
    Dispute,
    History,
    Letters,
    Movements,
    disputes_of,
    fold,
    fold_back,
)
from hftpipe.store.inspecting import ShardInspector


@dataclass(frozen=True, slots=True, eq=False)
class Collected:
    """An account's history up to some record, and its disputes as they stand there.

    is_whole: from its first movement on. records: how many name the account, up to there.
    """

    history: History
    disputes: Sequence[Dispute]
    is_whole: bool
    records: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Which journal records are to be read for an account's history up to record `last`.

    Whichever part is shorter: all that lies before `last`, or all between the oldest record that is wanted and now.
    naming: all records that name the account. start, stop: the wanted ones among them.
    """

    account: int
    last: int
    naming: Sequence[int]
    start: int
    stop: int

    @property
    def is_forward(self) -> bool:
        """Whether it begins with the first of all."""
        return self.stop <= len(self.naming) - self.start

    @property
    def numbers(self) -> Sequence[int]:
        """The records to read."""
        return self.naming[: self.stop] if self.is_forward else self.naming[self.start :]


def plan_of(
    shard: ShardInspector, account: int, last: int, *, first: int = 0, records_max: int | None = None
) -> Plan:
    """Finds the records that name an account. Raises sqlite3.Error.

    first: from that record on will do. records_max: so will the newest so many up to `last`.
    """
    naming = shard.records_naming(account)
    stop = bisect_right(naming, last)
    start = bisect_left(naming, first)
    if records_max is not None:
        start = max(start, stop - records_max)
    return Plan(account, last, naming, start, stop)


def collect(shard: ShardInspector, plan: Plan) -> Collected:
    """Reads what was decided about an account. Raises sqlite3.Error."""
    account, end = plan.account, shard.balance(plan.account) or Account()
    disputed = shard.disputed(account)
    try:
        movements = _movements(shard, account, plan.numbers, {})
        history = (
            fold(movements, disputed, Account()) if plan.is_forward else fold_back(movements, disputed, end)
        )
        is_whole = plan.is_forward or plan.start == 0
        if is_whole and (
            history.opening != Account() or (plan.stop == len(plan.naming) and history.end != end)
        ):
            raise sqlite3.DatabaseError(
                f"the balance of account {account} is not what its movements add up to: see `hftpipe verify`"
            )
        history = history.until(plan.last)
        earlier = [] if is_whole else [_disputing(shard, account, plan.naming[: plan.start], disputed)]
        disputes = disputes_of([*earlier, history.movements], disputed)
    except KeyError as tx:
        raise sqlite3.DatabaseError(
            f"tx {tx} of account {account} was disputed, and is not in the table of disputes"
        ) from None
    return Collected(history, disputes, is_whole, plan.stop)


def disputes_until(shard: ShardInspector, plan: Plan) -> list[Dispute]:
    """The disputes alone, for which few records are read. Raises sqlite3.Error."""
    disputed = shard.disputed(plan.account)
    return disputes_of([_disputing(shard, plan.account, plan.naming[: plan.stop], disputed)], disputed)


def _disputing(
    shard: ShardInspector, account: int, numbers: Sequence[int], disputed: Mapping[int, int]
) -> Movements:
    """What an account did in those of some records that name a deposit of it that was ever disputed."""
    mentions = set(shard.mentions_of(list(disputed))) if disputed else set()
    return _movements(shard, account, [number for number in numbers if number in mentions], {})


def _movements(
    shard: ShardInspector, account: int, numbers: Sequence[int], reasons: dict[str, int]
) -> Movements:
    gathered = _Gathered(account, reasons)
    for number, payload, outcomes in shard.payloads(numbers):
        try:
            gathered.add(number, payload, outcomes)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise sqlite3.DatabaseError(f"journal record {number} cannot be read: {error!r}") from error
    return gathered.movements()


class _Gathered:
    """Movements of an account as they are found, record by record."""

    def __init__(self, account: int, reasons: dict[str, int]) -> None:
        """reasons: refusals by name, numbered from 1; more are added."""
        self._account = account
        self._reasons = reasons
        self._parts: list[tuple[Column, Column, Letters, Column, Column, Codes]] = []

    def add(self, number: int, payload: str, outcomes: str) -> None:
        """Takes in the rows of the account that a record has decided. Raises ValueError and others for no record."""
        glimpse, outcome = Glimpse(payload), orjson.loads(outcomes)
        places = glimpse.places_of(self._account)
        places = places[places >= outcome.get("skipped", 0)]
        txs, amounts = glimpse.picked("tx", places), glimpse.picked("amount", places)
        if not len(places) or amounts is None:
            raise ValueError(f"it decides nothing about account {self._account}")
        self._parts.append(
            (
                np.full(len(places), number),
                places,
                np.frombuffer(glimpse.kinds.encode("ascii"), dtype=np.uint8)[places],
                np.full(len(places), NO_ID) if txs is None else txs,
                amounts,
                self._coded(outcome.get("refused", {}), len(glimpse.kinds))[places],
            )
        )

    def movements(self) -> Movements:
        """All of them."""
        return Movements.joined(self._parts, list(self._reasons))

    def _coded(self, refused: dict[str, list[int]], count: int) -> Codes:
        codes = np.zeros(count, dtype=np.uint8)
        for reason, places in refused.items():
            codes[places] = self._reasons.setdefault(reason, len(self._reasons) + 1)
        return codes
