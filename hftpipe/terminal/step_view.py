"""What one step of a replay looks like: plain lines of text, for a terminal of 80×24 and larger ones."""

from collections.abc import Sequence
from datetime import datetime
from textwrap import wrap

from rich.text import Text

from hftpipe.audit.explain import Explained
from hftpipe.audit.walker import View
from hftpipe.core.amount import render
from hftpipe.core.entry import Foreign, Lost
from hftpipe.core.rules import Account, DisputeState
from hftpipe.core.why import APPLIED, KIND_NAMES

_RULE_LINES = 2


def heading(view: View, keeps_to: str) -> str:
    """Where it stands. keeps_to: what it stops at, "" for everything."""
    told = view.told
    row = f", row {view.index + 1:,} of {len(told.rows):,}" if told.rows else ""
    only = f"   only {keeps_to}" if keeps_to else ""
    return f"{view.shard}/{told.entry.id}   entry {told.number:,} of {view.records:,}{row}{only}"


def origin_of(view: View) -> str:
    """Where the transaction came from."""
    entry = view.told.entry
    if isinstance(entry, Lost):
        return f"an accepted loss: {entry.reason}"
    if isinstance(entry, Foreign):
        return f"a dead letter: {entry.reason}"
    time = datetime.fromtimestamp(entry.time_ms / 1000).astimezone().isoformat(" ", "seconds")
    return f"{entry.source} row {view.row.row if view.row else '-'}, appended {time}"


def around(view: View, lines: int) -> list[Text]:
    """Some of the entry's transactions, the current one marked and in the middle where there are enough."""
    rows = view.told.rows
    first = max(min(view.index - lines // 2, len(rows) - lines), 0)
    shown = rows[first : first + lines]
    return [_line(row, is_here=index == view.index) for index, row in enumerate(shown, first)]


def _line(row: Explained, *, is_here: bool) -> Text:
    amount = "" if row.amount is None else render(row.amount)
    tx = "-" if row.tx is None else str(row.tx)
    text = Text(
        f"{'▶' if is_here else ' '} {row.row:>9} {KIND_NAMES[row.kind]:<10} {row.account:>9} {tx:>10} "
    )
    text.append(f"{amount:>16}  ")
    text.append(row.outcome, style="" if row.outcome == APPLIED else "bold red")
    if is_here:
        text.stylize("reverse")
    return text


LIST_HEADING = f"  {'row':>9} {'kind':<10} {'client':>9} {'tx':>10} {'amount':>16}  outcome"


def rule_lines(row: Explained | None, width: int) -> list[str]:
    """The rule that decided, on two lines."""
    lines = wrap(row.rule, max(width, 20))[:_RULE_LINES] if row is not None else ["no transaction here"]
    return lines + [""] * (_RULE_LINES - len(lines))


def balance_lines(row: Explained | None) -> list[Text]:
    """The account and the dispute, before and after; what has changed stands out."""
    account = "" if row is None else f"account {row.account}"
    lines = [Text(f"{account:<26}{'before':>22}{'after':>24}", style="dim")]
    before, after = (None, None) if row is None else (row.before, row.after)
    for name, one, other in zip(_NAMES, _cells(before), _cells(after), strict=True):
        lines.append(_change(name, one, other))
    disputes = (None, None) if row is None else (row.dispute_before, row.dispute_after)
    tx = f"tx {row.tx} is" if row is not None and row.tx is not None else "tx"
    lines.append(_change(tx, *map(_state, disputes)))
    return lines


_NAMES: Sequence[str] = ("available", "held", "total", "locked")


def _change(name: str, before: str, after: str) -> Text:
    text = Text(f"  {name:<24}{before:>22}")
    text.append(f"{after:>24}", style="" if before == after else "bold green")
    return text


def _cells(account: Account | None) -> list[str]:
    if account is None:
        return ["-"] * len(_NAMES)
    money = (account.available, account.held, account.available + account.held)
    return [*map(render, money), "yes" if account.locked else "no"]


def _state(state: DisputeState | None) -> str:
    return "-" if state is None else state.value.replace("_", " ")
