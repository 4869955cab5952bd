"""Rows that a loss has torn out of their sources; pure.

A file that is ingested again brings them, and until then the source chain leaves alone what the file has sent behind
them. What cannot be read again would wait for ever: so what such a source has sent behind a loss follows on from there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from hftpipe.core.entry import EntryId, Lost
from hftpipe.inbox import position_of

INBOX: Final = "inbox:"
LIVE: Final = ("serve:", "stdin:", INBOX)
"""What ids of sources begin with that cannot be read again."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What an entry says of its source, and how many rows it has."""

    source: str
    previous: int
    position: int
    count: int


def with_positions(
    steps: Sequence[Lost | Sent],
    positions: Callable[[set[str]], Mapping[str, int]],
    lowest_in_inbox: Callable[[], EntryId | None],
) -> tuple[list[Lost], list[str], bool]:
    """The losses, with the positions of live sources; which rows are missing, for people; whether any is of a live one.

    steps: what lies behind the checkpoint. positions: last applied of some sources.
    """
    losses = [step for step in steps if isinstance(step, Lost)]
    if not losses:
        return [], [], False
    applied = dict(positions({step.source for step in steps if isinstance(step, Sent)}))
    settled: dict[str, int] = {}
    """Behind how many losses a source has gone on, or was found not to."""
    told: list[str] = []
    left: set[str] = set()
    is_live, count = False, 0
    for place, step in enumerate(steps):
        if isinstance(step, Lost):
            count += 1
            continue
        before = applied.get(step.source, 0)
        if step.previous > before and settled.get(step.source, 0) < count:
            missing_to = _missing_to(step.source, before, steps[place:])
            if missing_to is None:
                continue
            goes_on = _goes_on(step.source, missing_to, lowest_in_inbox)
            if step.source not in left:
                told.append(_told(step.source, before + 1, missing_to, goes_on=goes_on))
            if not goes_on:
                left.add(step.source)  # told once: what brings the first of its rows brings all
            else:
                is_live = True
                loss = losses[count - 1]
                losses[count - 1] = replace(loss, positions={**loss.positions, step.source: missing_to})
                applied[step.source] = missing_to
            settled[step.source] = count
        if step.previous <= applied.get(step.source, 0):
            applied[step.source] = max(step.position, applied.get(step.source, 0))
            settled[step.source] = count
    return losses, told, is_live


def _missing_to(source: str, applied: int, later: Sequence[Lost | Sent]) -> int | None:
    """The last row that is missing before all that a source has sent later; None when some of that brings it.

    Appends land in any order: then it was not torn out.
    """
    sent = [
        step for step in later if isinstance(step, Sent) and step.source == source and step.position > applied
    ]
    lowest = min(step.previous for step in sent)
    return lowest if lowest > applied else None


def _goes_on(source: str, missing_to: int, lowest_in_inbox: Callable[[], EntryId | None]) -> bool:
    """Whether what a source has sent behind the missing rows is to be applied without them."""
    if not source.startswith(INBOX):
        return source.startswith(LIVE)
    lowest = lowest_in_inbox()
    position = None if lowest is None else position_of(lowest)
    return position is None or position > missing_to  # else they are still there, and are taken again


def _told(source: str, first: int, last: int, *, goes_on: bool) -> str:
    rows = f"rows {first} to {last} of {source} are missing"
    if goes_on:
        return f"{rows}, and cannot be read again: what it has sent behind them is applied without them"
    if source.startswith(INBOX):
        return f"{rows}; the inbox still holds them, and they are taken again"
    return f"{rows}: `hftpipe ingest` of that source brings them back, and with them what it has sent behind them"
