"""All about one account: what it holds, or held at some moment, and how it came to that."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hftpipe.core.entry import EntryId
from hftpipe.core.ledger import Account, DisputeState
from hftpipe.core.routing import shard_of
from hftpipe.errors import NotThere, UsageError
from hftpipe.inspection.collecting import Collected, collect, plan_of
from hftpipe.inspection.history import Dispute, History
from hftpipe.inspection.home import Home
from hftpipe.moments import Address, Instant, Moment
from hftpipe.ports import Movement
from hftpipe.store.inspecting import ShardInspector
from hftpipe.store.told import Told

HISTORY_RECORDS_MAX: Final = 200
"""Journal records that are read for a history, the newest ones, unless all of them are asked for."""


@dataclass(frozen=True, slots=True)
class Step:
    """A transaction, and the account behind it."""

    movement: Movement
    after: Account


@dataclass(frozen=True, slots=True)
class DisputeTold:
    """A deposit that was disputed.

    opened, changed: entries that disputed it first and changed it last; with the times of their append, Unix ms.
    """

    tx: int
    amount: int
    state: DisputeState
    opened: EntryId
    opened_ms: int
    changed: EntryId
    changed_ms: int


@dataclass(frozen=True, slots=True, eq=False)
class AccountStory:
    """An account as it stood behind an entry of its shard.

    entry, time_ms: the last entry that counts, and its append, Unix ms. steps: its last transactions, oldest first.
    records: entries that name it. history: of all its transactions when `is_whole`, else of the newest ones.
    since_ms, until_ms: when the first and the last transaction of the history were appended, Unix ms.
    locked_by: in words; empty when it is not locked.
    """

    account: int
    shard: int
    entry: EntryId
    time_ms: int
    standing: Account
    locked_by: str
    steps: Sequence[Step]
    disputes: Sequence[DisputeTold]
    records: int
    is_whole: bool
    history: History
    since_ms: int
    until_ms: int


def account_story(
    home: Home, account: int, at: Moment | None, *, steps_max: int, is_whole: bool
) -> AccountStory:
    """Tells an account's story, up to a moment.

    Raises NotThere when nothing had named it then, UsageError when the moment is an entry of another shard,
    StoreUnavailable and StoreDamaged.
    """
    shard = shard_of(account, home.shards)
    if isinstance(at, Address) and at.shard not in {None, shard}:
        raise UsageError(
            f"account {account} is in shard {shard}, and {at} is an entry of another: give a time, or {shard}/…"
        )
    if shard not in home.paths:
        raise NotThere(f"account {account} is not known: its shard {shard} has applied nothing yet")
    with home.inspecting(shard) as inspector:
        last = _last_record(inspector, shard, at)
        collected = _collected(inspector, account, last, steps_max=steps_max, is_whole=is_whole)
        numbers = collected.history.movements.numbers
        since, until = int(numbers[0]), int(numbers[-1])
        where = inspector.addresses(sorted({since, until, last}))
        entry, time_ms = where[last]
        return AccountStory(
            account,
            shard,
            entry,
            time_ms,
            collected.history.end,
            _locked_by(collected, inspector, shard),
            _steps(collected.history, inspector, steps_max),
            _told_disputes(collected.disputes, inspector),
            collected.records,
            collected.is_whole,
            collected.history,
            where[since][1],
            where[until][1],
        )


def _collected(
    inspector: ShardInspector, account: int, last: int, *, steps_max: int, is_whole: bool
) -> Collected:
    records_max = None if is_whole else max(HISTORY_RECORDS_MAX, steps_max)
    known = inspector.balance(account) is not None
    collected = (
        collect(inspector, plan_of(inspector, account, last, records_max=records_max)) if known else None
    )
    if collected is None or not len(collected.history):
        when = "" if last == inspector.checkpoint.number else " by then"
        raise NotThere(f"account {account} is not known: no transaction that was applied{when} names it")
    return collected


def _last_record(inspector: ShardInspector, shard: int, at: Moment | None) -> int:
    if at is None:
        return inspector.checkpoint.number
    if isinstance(at, Instant):
        number = inspector.number_until(at.time_ms)
        if not number:
            raise NotThere(f"shard {shard} had applied nothing by then: its first entry was appended later")
        return number
    numbers = inspector.numbers_with(at.entry)
    if not numbers:
        raise NotThere(
            f"entry {shard}/{at.entry} is not in the journal, which ends with {shard}/{inspector.checkpoint.id}"
        )
    return numbers[0]


def _steps(history: History, inspector: ShardInspector, steps_max: int) -> list[Step]:
    movements = history.movements
    told: dict[int, Told] = {}
    steps: list[Step] = []
    for index in range(max(0, len(history) - steps_max), len(history)):
        number = int(movements.numbers[index])
        if number not in told:
            told = {
                number: inspector.told(number)
            }  # its rows follow each other: one record is enough to keep
        steps.append(Step(told[number].movement(int(movements.places[index])), history.after(index)))
    return steps


def _told_disputes(disputes: Sequence[Dispute], inspector: ShardInspector) -> list[DisputeTold]:
    numbers = {number for dispute in disputes for number in (dispute.opened, dispute.changed)}
    where = inspector.addresses(sorted(numbers))
    return [
        DisputeTold(
            dispute.tx, dispute.amount, dispute.state, *where[dispute.opened], *where[dispute.changed]
        )
        for dispute in disputes
    ]


def _locked_by(collected: Collected, inspector: ShardInspector, shard: int) -> str:
    return locked_by(collected.disputes, inspector, shard) if collected.history.end.locked else ""


def locked_by(disputes: Sequence[Dispute], inspector: ShardInspector, shard: int) -> str:
    """`the chargeback of tx 9 at 3/1-40`: what locked an account with these disputes; empty when nothing did."""
    for dispute in disputes:
        if dispute.state is DisputeState.CHARGED_BACK:
            entry, _ = inspector.addresses([dispute.changed])[dispute.changed]
            return f"the chargeback of tx {dispute.tx} at {shard}/{entry}"
    return ""
