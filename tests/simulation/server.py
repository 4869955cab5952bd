"""The log's server as its clients meet it: connections break, requests land late or in part, and tails get lost.

Everything is kept by a `MemoryLog`; what is here stands between it and the product.
"""

import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from random import Random

from hftpipe.core.entry import EntryId
from hftpipe.log.memory import MemoryLog
from hftpipe.ports import Outgoing
from tests.simulation.scheduler import Scheduler
from tests.simulation.settings import Faults

_LOST = re.compile(r"(\d+)/(?:(\d+-\d+) to \d+/)?(\d+-\d+) \([^)]*\)( and [a-z ]*some before it)?")
_HISTORY_MAX = 60
"""Changes that a server which loses its tail may lose."""


@dataclass(slots=True)
class Late:
    """The rest of a pipeline that was given up, still under way on its connection."""

    due_ms: int
    sender: str
    entries: deque[Outgoing]


@dataclass(slots=True)
class Confirmed:
    """An entry of which its sender, a process, was told that it is durable.

    is_lost: it is no longer. is_settled: its sender has spoken of a loss that may have been its.
    """

    sender: str
    shard: int
    id: EntryId
    fields: Mapping[bytes, bytes]
    is_lost: bool = False
    is_settled: bool = False


@dataclass(slots=True)
class Server:
    """One server. `run` counts its starts: a connection belongs to one of them.

    landed_late: entries whose sender had given them up. confirmed: entries whose sender was told that they are
    durable. hit: takes the name of a situation that has occurred. broke: takes a violation.
    """

    log: MemoryLog
    scheduler: Scheduler
    faults: Faults
    hit: Callable[[str], None]
    broke: Callable[[str], None]
    late_ms: int
    keeps_history: bool
    run: int = 1
    down_until_ms: int = 0
    late: list[Late] = field(default_factory=list)
    landed_late: set[tuple[int, EntryId, str]] = field(default_factory=set)
    confirmed: list[Confirmed] = field(default_factory=list)
    history: deque[list[object]] = field(default_factory=lambda: deque(maxlen=_HISTORY_MAX))

    @property
    def random(self) -> Random:
        """The one source of chance."""
        return self.scheduler.random

    def chance(self, likelihood: float) -> bool:
        """Whether a fault happens now."""
        return likelihood > 0 and self.random.random() < likelihood

    def append(self, entry: Outgoing) -> EntryId:
        """One XADD."""
        entry_id = self.log.append(entry)
        self.scheduler.note("server", f"has {entry.shard}/{entry_id}: {_described(entry.fields)}")
        self.changed()
        return entry_id

    def changed(self) -> None:
        """Called after each change: what a server that loses its tail may go back to."""
        if self.keeps_history:
            self.history.append([_copied(stream) for stream in self.log.streams])

    # --- what happens to it ------------------------------------------------------------------------------------

    def next_due_ms(self) -> int | None:
        """When the next late entry lands."""
        return min((late.due_ms for late in self.late), default=None)

    def land(self) -> None:
        """Lets late entries land whose time has come."""
        for late in [late for late in self.late if late.due_ms <= self.scheduler.now_ms]:
            entry = late.entries.popleft()
            self.scheduler.note(late.sender, "has an append that lands late")
            entry_id = self.append(entry)
            self.landed_late.add((entry.shard, entry_id, entry.fields[b"d"].decode()))
            if all(actor.name != late.sender for actor in self.scheduler.actors):
                self.hit("late append of a process that is gone")
            late.due_ms += self.random.randint(0, self.late_ms)
            if not late.entries:
                self.late.remove(late)

    def restart(self) -> None:
        """All connections break, and what was under way on them is lost; what was acknowledged is there."""
        self.scheduler.note("server", "restarts")
        self.run += 1
        self.late.clear()

    def lose_tail(self) -> bool:
        """Goes back to some earlier moment, but never to a shard without any entry; False when there is none."""
        filled = [stream.last.sequence >= 0 for stream in self.log.streams]
        moments = [
            index
            for index, moment in enumerate(self.history)
            if all(bool(stream.entries) >= was for stream, was in zip(moment, filled, strict=True))  # type: ignore[attr-defined]
        ]
        if not moments:
            return False
        index = self.random.choice(moments)
        lost = len(self.history) - 1 - index
        self.log.streams = [_copied(stream) for stream in self.history[index]]  # type: ignore[misc]
        for _ in range(lost):
            self.history.pop()
        self.scheduler.note("server", f"loses its last {lost} changes")
        self.restart()
        for entry in self.confirmed:
            entry.is_lost = entry.is_lost or not self._holds(entry)
        return lost > 0

    def _holds(self, entry: Confirmed) -> bool:
        """Whether the log holds an entry, or held it before it was trimmed."""
        entries = self.log.streams[entry.shard].entries
        first = next(iter(entries), entry.id)
        return entry.id < first or entries.get(entry.id) == entry.fields

    def confirm(self, sender: str, entries: Sequence[Outgoing], ids: Sequence[EntryId]) -> None:
        """A process is told that its entries are durable; by now it has said which others were lost."""
        for lost in self.confirmed:
            if lost.is_lost and not lost.is_settled and lost.sender == sender:
                self.broke(f"I12: {sender} goes on and has not said that {lost.shard}/{lost.id} was lost")
        for entry, entry_id in zip(entries, ids, strict=False):
            self.confirmed.append(Confirmed(sender, entry.shard, entry_id, dict(entry.fields)))

    def settle(self, sender: str, line: str) -> None:
        """A process has said what was lost; one that begins again sends everything anew."""
        said = {
            int(shard): ("" if before else first, last) for shard, first, last, before in _LOST.findall(line)
        }
        sends_again = "Beginning again" in line
        for entry in [entry for entry in self.confirmed if entry.sender == sender]:
            if entry.shard in said or sends_again:
                if entry.is_lost and not entry.is_settled and not sends_again and entry.shard in said:
                    self._check_said(entry, *said[entry.shard])
                entry.is_settled = True

    def _check_said(self, lost: Confirmed, first: str, last: str) -> None:
        if not (first and EntryId.parse(first) > lost.id) and lost.id <= EntryId.parse(last):
            return
        self.broke(
            f"I12: {lost.sender} has said that {first} to {last} was lost, so was {lost.shard}/{lost.id}"
        )


def _copied(stream: object) -> object:
    other = copy(stream)
    other.entries = dict(stream.entries)  # type: ignore[attr-defined]
    other.dead = dict(stream.dead)  # type: ignore[attr-defined]
    other.advice = dict(stream.advice)  # type: ignore[attr-defined]
    if (group := stream.group) is not None:  # type: ignore[attr-defined]
        other.group = replace(group, pending=dict(group.pending), consumers=set(group.consumers))  # type: ignore[attr-defined]
    return other


def _described(fields: Mapping[bytes, bytes]) -> str:
    if b"src" not in fields:
        return "something foreign"
    return b" ".join((fields[b"src"], fields[b"prev"], b"to", fields[b"pos"], b"n", fields[b"n"])).decode()
