"""What was found out, as lines for people and as plain values for programs; pure."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from hftpipe.core.amount import render
from hftpipe.core.ledger import Account
from hftpipe.core.why import KIND_NAMES
from hftpipe.inspection.chart import Curve, ends
from hftpipe.inspection.entry import EntryState, EntryStory
from hftpipe.moments import told_time
from hftpipe.ports import Movement

if TYPE_CHECKING:
    from hftpipe.inspection.account import AccountStory
    from hftpipe.inspection.transaction import Naming

Told: TypeAlias = dict[str, object]
"""An object as JSON has it. Amounts are text with four decimals, times ISO 8601."""

MOVEMENT_COLUMNS: Final = (
    "time",
    "entry",
    "source",
    "row",
    "kind",
    "account",
    "tx",
    "amount",
    "outcome",
)
STEP_COLUMNS: Final = (*MOVEMENT_COLUMNS, "available", "held", "locked")
DISPUTE_COLUMNS: Final = ("tx", "amount", "state", "opened", "opened_time", "changed", "changed_time")
NAMING_COLUMNS: Final = (*MOVEMENT_COLUMNS, "why")
CURVE_POINTS_MAX: Final = 200
"""Points of a history that programs are given."""

_NO_LINES: Final = ("inbox:", "serve:")
"""What the ids of sources begin with whose rows are counted, and stand in no file."""


def movement_row(movement: Movement) -> tuple[object, ...]:
    """The values of MOVEMENT_COLUMNS."""
    return (
        told_time(movement.time_ms),
        f"{movement.shard}/{movement.entry}",
        movement.source,
        movement.row,
        KIND_NAMES[movement.kind],
        movement.account,
        movement.tx,
        render(movement.amount) if movement.amount else None,
        movement.outcome,
    )


def movement_told(movement: Movement) -> Told:
    """A transaction as JSON has it."""
    return dict(zip(MOVEMENT_COLUMNS, movement_row(movement), strict=True))


def position(source: str, row: int) -> str:
    """`/data/monday.csv, line 7`: where a transaction came from."""
    return f"{source}, {'row' if source.startswith(_NO_LINES) else 'line'} {row}"


def standing(account: Account) -> Told:
    """What an account holds."""
    return {
        "available": render(account.available),
        "held": render(account.held),
        "total": render(account.available + account.held),
        "locked": account.locked,
    }


# --- account -------------------------------------------------------------------------------------------------------


def step_rows(story: "AccountStory") -> list[tuple[object, ...]]:
    """The values of STEP_COLUMNS for its last transactions."""
    return [
        (
            *movement_row(step.movement),
            render(step.after.available),
            render(step.after.held),
            step.after.locked,
        )
        for step in story.steps
    ]


def dispute_rows(story: "AccountStory") -> list[tuple[object, ...]]:
    """The values of DISPUTE_COLUMNS."""
    return [
        (
            dispute.tx,
            render(dispute.amount),
            dispute.state.value,
            f"{story.shard}/{dispute.opened}",
            told_time(dispute.opened_ms),
            f"{story.shard}/{dispute.changed}",
            told_time(dispute.changed_ms),
        )
        for dispute in story.disputes
    ]


def account_told(story: "AccountStory") -> Told:
    """All of it."""
    history = story.history
    points = ends(np.arange(len(history)), min(CURVE_POINTS_MAX, len(history))).tolist()
    return {
        "account": story.account,
        "shard": story.shard,
        "entry": f"{story.shard}/{story.entry}",
        "time": told_time(story.time_ms),
        **standing(story.standing),
        "locked_by": story.locked_by or None,
        "entries": story.records,
        "transactions": len(history) if story.is_whole else None,
        "last": [dict(zip(STEP_COLUMNS, row, strict=True)) for row in step_rows(story)],
        "disputes": [dict(zip(DISPUTE_COLUMNS, row, strict=True)) for row in dispute_rows(story)],
        "history": {
            "is_whole": story.is_whole,
            "transactions": len(history),
            "since": told_time(story.since_ms),
            "until": told_time(story.until_ms),
            "points": [
                {
                    "transaction": point + 1,
                    "available": render(int(history.available[point])),
                    "held": render(int(history.held[point])),
                }
                for point in points
            ],
        },
    }


def account_lines(story: "AccountStory") -> list[str]:
    """What it holds, for people."""
    since = f" since {story.locked_by}" if story.locked_by else ""
    amounts = standing(story.standing)
    width = max(len(str(amounts[name])) for name in ("available", "held", "total"))
    return [
        f"account {story.account}, in shard {story.shard}, as of entry {story.shard}/{story.entry} "
        f"({told_time(story.time_ms)})",
        *(f"  {name:<9}  {amounts[name]:>{width}}" for name in ("available", "held", "total")),
        f"  locked     {f'yes,{since}' if since else 'yes' if story.standing.locked else 'no'}",
    ]


def curve_of(story: "AccountStory") -> Curve:
    """Its balance over its history."""
    history = story.history
    title = f"Balance of account {story.account}"
    if not story.is_whole:
        title += f", last {len(history):,} transactions"
    return Curve(
        title,
        history.available + history.held,
        history.available,
        told_time(story.since_ms),
        told_time(story.until_ms),
    )


# --- transaction ---------------------------------------------------------------------------------------------------


def naming_rows(namings: "Sequence[Naming]") -> list[tuple[object, ...]]:
    """The values of NAMING_COLUMNS."""
    return [(*movement_row(naming.movement), naming.why) for naming in namings]


def transaction_told(tx: int, namings: "Sequence[Naming]") -> Told:
    """All of it. The first that took the id in a shard `is_taker`."""
    return {"tx": tx, "transactions": [_naming_told(naming) for naming in namings]}


def _naming_told(naming: "Naming") -> Told:
    return {
        **movement_told(naming.movement),
        "is_taker": naming.is_taker,
        "why": naming.why,
        "before": None if naming.before is None else standing(naming.before),
        "after": None if naming.after is None else standing(naming.after),
    }


def transaction_lines(tx: int, namings: "Sequence[Naming]") -> list[str]:
    """Where it came from and what became of it, and then all that named its id, for people."""
    lines = [f"tx {tx}"]
    for naming in namings:
        movement = naming.movement
        amount = f" of {render(movement.amount)}" if movement.amount else ""
        lines += [
            "",
            f"{KIND_NAMES[movement.kind]}{amount}, account {movement.account}: {movement.outcome}"
            f"{'' if naming.is_taker or movement.outcome == 'waiting' else ', names the id'}",
            f"  why      {naming.why}",
            f"  source   {position(movement.source, movement.row)}",
            f"  entry    {movement.shard}/{movement.entry}, appended {told_time(movement.time_ms)}",
        ]
        if naming.before is not None and naming.after is not None:
            lines.append(f"  balance  {_moved(naming.before, naming.after)}")
    return lines


def _moved(before: Account, after: Account) -> str:
    if before == after:
        return f"{render(after.available)} available, {render(after.held)} held: not changed"
    locked = ", locked" if after.locked and not before.locked else ""
    return (
        f"available {render(before.available)} → {render(after.available)}, "
        f"held {render(before.held)} → {render(after.held)}{locked}"
    )


# --- entry ---------------------------------------------------------------------------------------------------------


def entry_told(story: EntryStory) -> Told:
    """All of it."""
    return {
        "entry": f"{story.shard}/{story.entry}",
        "state": story.state.value,
        "record": story.number or None,
        "other_records": list(story.others),
        "source": story.source or None,
        "previous": story.previous,
        "position": story.position,
        "time": told_time(story.time_ms) or None,
        "digest": story.digest,
        "hash": story.hash or None,
        "skipped": story.skipped,
        "reason": story.reason or None,
        "fields": dict(story.fields) or None,
        "transactions": [movement_told(movement) for movement in story.movements],
    }


def entry_lines(story: EntryStory) -> list[str]:
    """What it is, for people, without its rows."""
    lines = [f"entry {story.shard}/{story.entry}: {_STATES[story.state]}"]
    if story.reason:
        lines.append(f"  reason   {story.reason}")
    lines += [f"  field    {name}: {value}" for name, value in story.fields.items()]
    if story.source:
        rows = f"{story.previous} to {story.position}"
        lines.append(f"  source   {story.source}, rows behind {rows}, {len(story.movements):,} transactions")
        lines.append(f"  appended {told_time(story.time_ms)}")
    if story.skipped:
        lines.append(f"  skipped  the first {story.skipped:,}, which had been decided before")
    lines.append(f"  digest   {story.digest or '-'}")
    if story.number:
        lines.append(f"  record   {story.number}, hash {story.hash}")
    if story.others:
        lines.append(
            f"  earlier  {', '.join(map(str, story.others))}: records of that id from before the log lost it"
        )
    return lines


_STATES: Final = {
    EntryState.APPLIED: "applied",
    EntryState.WAITING: "in the log, not applied yet",
    EntryState.GAP: "left alone: rows of its source before it are missing",
    EntryState.DEAD: "set aside: no producer of hftpipe can have made it; see `hftpipe dead`",
    EntryState.LOST: "given up: see `hftpipe repair`",
}
