"""The producer's half of the source chain: appends one source's rows so that each takes effect once, in order.

A reply means: on disk. No reply means nothing, and everything behind it is sent again; the worker skips what it knows.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import ParamSpec, TypeVar

import orjson

from hftpipe.backoff import Backoff
from hftpipe.config import IngestLimits
from hftpipe.core.entry import EntryId, digest_of, encode
from hftpipe.core.routing import route
from hftpipe.core.transaction import Batch, Column
from hftpipe.errors import Interrupted, LogForeign, PassingFault, TailLost
from hftpipe.event import Event, Level, passing
from hftpipe.ports import Appended, Clock, LogWriter, Outgoing, Topology
from hftpipe.source.framing import Mark

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Anchor:
    """The last entry of a shard that was confirmed to this source: position, id and digest."""

    position: int
    id: EntryId
    digest: str


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """An entry that is durable, and the positions in the source of the rows in it."""

    shard: int
    id: EntryId
    rows: Column


@dataclass(frozen=True, slots=True)
class Resumption:
    """Where to go on: behind `after`, or at the start when it is None. `known` marks must fit the source."""

    after: Mark | None
    known: Sequence[Mark]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a producer needs from outside.

    stopping: whether the process was told to stop.
    report: takes one line for people.
    reach: called with the name of each step that a fault may be planted at.
    """

    clock: Clock
    random: Random
    stopping: Callable[[], bool]
    report: Callable[[str], None]
    reach: Callable[[str], None] = lambda _: None


class Producer:
    """Appends the rows of one source.

    resumable: the source can be read again from any earlier place. Its marks are noted in the log; when the log has
    lost its tail, TailLost asks the caller to begin again. A live source reports what is lost, and goes on.
    """

    def __init__(
        self,
        source: str,
        topology: Topology,
        *,
        log: LogWriter,
        surroundings: Surroundings,
        limits: IngestLimits,
        resumable: bool,
    ) -> None:
        self.source = source
        self._topology = topology
        self._log = log
        self._clock = surroundings.clock
        self._stopping = surroundings.stopping
        self._report = surroundings.report
        self._reach = surroundings.reach
        self._limits = limits
        self._resumable = resumable
        self._backoff = Backoff(limits.retry_first_ms, limits.retry_max_ms, surroundings.random.random)
        self._anchors: dict[int, Anchor] = {}
        self._losses_seen: dict[int, int] = {}
        """What was announced of each shard's accepted losses when its rows were last appended from the start on."""
        self._room = [0] * topology.shards
        self.appended_entries = 0
        self.losses = 0
        """How often a live source went on behind confirmed entries that the log had lost."""

    def resume(self) -> Resumption:
        """What a former producer of this source has noted, if the log still holds what was confirmed to it."""
        advice = self._patiently(self._log.advice, self.source)
        notes = {shard: _read_note(text) for shard, text in advice.items()}
        marks = [mark for mark, _, _ in notes.values()]
        self._anchors = {shard: anchor for shard, (_, anchor, _) in notes.items() if anchor is not None}
        self._losses_seen = {shard: seen for shard, (_, _, seen) in notes.items()}
        try:
            self._patiently(self._check_anchors)
        except TailLost as lost:
            self.begin_again(lost)
            return Resumption(None, marks)
        complete = len(notes) == self._topology.shards
        return Resumption(min(marks, key=lambda mark: mark.line) if complete else None, marks)

    def begin_again(self, lost: TailLost, told: str = "Beginning again at the start of the source") -> None:
        """Forgets what was confirmed: the source is appended from its start, and the chain skips what is known."""
        sentence = f"{lost}. {told}; what was applied is skipped"
        self._report(
            Event("log_tail_lost", sentence, Level.WARNING, source=self.source, shards=sorted(lost.shards))
        )
        self._anchors = {}

    def append(self, batch: Batch) -> list[Placed]:
        """Returns where each row stands when all are durable in the log; waits out a full backlog and passing faults.

        A row that was confirmed to a former producer of this source is in none of the entries.
        Raises TailLost (resumable sources), LogForeign when the log is no longer this pipeline's, Interrupted.
        """
        if not self._losses_seen:  # those before the first entry are none of its matter
            self._patiently(self._see_losses)
        waiting = deque(self._pieces(batch))
        placed: list[Placed] = []
        while waiting:
            window = [waiting[index] for index in range(min(len(waiting), self._limits.pipeline_entries_max))]
            window = self._patiently(self._fitting, window)
            try:
                appended = self._send(window)
            except TailLost as lost:
                if self._resumable:
                    raise
                self._go_on(lost)
                continue
            for entry_id in appended.ids:
                shard, piece = waiting.popleft()
                placed.append(Placed(shard, entry_id, piece.rows))
            if appended.fault is not None:
                self._recover(appended.fault)
        return placed

    def room(self, shard: int, wanted: int) -> int:
        """How many entries can be appended to a shard now: `wanted` at least, unless its backlog is full.

        Raises as `append` does.
        """
        if self._room[shard] < wanted:
            self._patiently(self._look_for_room, shard)
        return max(self._room[shard], 0)

    def check(self) -> None:
        """Returns when the log answers, and holds what it had confirmed. Raises as `append` does."""
        self._patiently(self._look_around)

    def note(self, mark: Mark) -> None:
        """Keeps, for a successor, that everything up to the mark is durable. Raises as `append` does."""
        if self._resumable:
            advice = {
                shard: _write_note(mark, self._anchors.get(shard), self._losses_seen.get(shard, 0))
                for shard in range(self._topology.shards)
            }
            self._patiently(self._log.note, self.source, advice)
            self._backoff.reset()

    def _pieces(self, batch: Batch) -> list[tuple[int, Batch]]:
        """The rows not confirmed yet, by shard, cut into entries."""
        pieces: list[tuple[int, Batch]] = []
        size = self._limits.entry_transactions_max
        for shard, rows in route(batch, self._topology.shards).items():
            first = int(rows.rows.searchsorted(self._position(shard), side="right"))
            pieces += [(shard, rows.slice(start, start + size)) for start in range(first, len(rows), size)]
        return pieces

    def _send(self, window: Sequence[tuple[int, Batch]]) -> Appended:
        time_ms = self._clock.unix_ms()
        previous = {shard: self._position(shard) for shard, _ in window}
        entries: list[Outgoing] = []
        for shard, piece in window:
            entries.append(Outgoing(shard, encode(self.source, previous[shard], piece, time_ms)))
            previous[shard] = int(piece.rows[-1])
        self._reach("ingest.pre_append")
        appended = self._log.append(entries)
        self._reach("ingest.post_append")
        self._check_rising(appended.ids, window)
        for entry_id, entry, (shard, piece) in zip(appended.ids, entries, window, strict=False):
            self._anchors[shard] = Anchor(int(piece.rows[-1]), entry_id, entry.fields[b"d"].decode())
            self._room[shard] -= 1
        self.appended_entries += len(appended.ids)
        if appended.ids:
            self._backoff.reset()  # not after a look at the log: a full server answers those, and refuses writes
        return appended

    def _check_rising(self, ids: Sequence[EntryId], window: Sequence[tuple[int, Batch]]) -> None:
        """Ids only rise: one that does not shows that the shard's log was emptied while we were connected to it."""
        for entry_id, (shard, _) in zip(ids, window, strict=False):
            anchor = self._anchors.get(shard)
            if anchor is not None and entry_id <= anchor.id:
                raise TailLost(
                    f"shard {shard} gave id {entry_id} after {anchor.id}: its log was emptied, and entries of "
                    f"{self.source} that it had confirmed (up to row {anchor.position}) are lost",
                    {shard},
                )

    def _position(self, shard: int) -> int:
        anchor = self._anchors.get(shard)
        return 0 if anchor is None else anchor.position

    def _fitting(self, window: list[tuple[int, Batch]]) -> list[tuple[int, Batch]]:
        """As much of the window as the shards' backlogs have room for; waits until that is something."""
        waited = False
        while True:
            for shard in {shard for shard, _ in window if self._room[shard] <= 0}:
                self._look_for_room(shard)
            if fitting := _fitting_part(window, self._room):
                return fitting
            if not waited:
                shard, cap = window[0][0], self._limits.backlog_entries_max
                told = (
                    f"shard {shard} has {cap} entries waiting, its cap. "
                    "Waiting for its worker (`hftpipe worker`, if none runs)"
                )
                self._report(Event("backlog_full", told, Level.WARNING, shard=shard, entries=cap))
            waited = True
            self._sleep(self._limits.backlog_poll_ms)

    def _look_for_room(self, shard: int) -> None:
        free = self._limits.backlog_entries_max - self._log.backlog(shard)
        self._room[shard] = min(free, self._limits.backlog_share_max)

    # --- faults ------------------------------------------------------------------------------------------------

    def _patiently(self, attempt: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of an attempt, made again after each passing fault."""
        while True:
            try:
                return attempt(*args, **kwargs)
            except PassingFault as fault:
                self._recover(fault)

    def _recover(self, fault: PassingFault) -> None:
        """Waits until the log answers again, and makes sure that it still holds what it had confirmed."""
        while True:
            wait_ms = self._backoff.next_ms()
            self._report(passing(fault, wait_ms, source=self.source))
            self._sleep(wait_ms)
            try:
                self._look_around()
            except PassingFault as again:
                fault = again
            else:
                return

    def _sleep(self, milliseconds: int) -> None:
        self._clock.sleep_ms(milliseconds)
        if self._stopping():
            raise Interrupted(
                f"stopped while {self.source} was waiting for the log: not all of it is durable. "
                "The same command goes on from there"
            )

    def _go_on(self, lost: TailLost) -> None:
        """A live source cannot be read again. What is not confirmed yet is sent as if it came first.

        Under the same id: a row that was applied before the loss, its reply lost too, is then still skipped.
        """
        for shard in lost.shards:
            self._anchors.pop(shard, None)
        self.losses += 1
        sentence = f"{lost}. They cannot be read again; going on behind them"
        self._report(
            Event(
                "acknowledged_rows_lost",
                sentence,
                Level.ERROR,
                source=self.source,
                shards=sorted(lost.shards),
            )
        )

    def _look_around(self) -> None:
        while True:
            try:
                self._check_anchors()
            except TailLost as lost:
                if self._resumable:
                    raise
                self._go_on(lost)  # and looks again: one loss may hide another
            else:
                return

    def _check_anchors(self) -> None:
        topology = self._log.topology()
        if topology != self._topology:
            raise LogForeign(
                f"the log belongs to {'no pipeline' if topology is None else f'pipeline {topology.pipeline}'}, "
                f"{self.source} was being appended to {self._topology.pipeline}: the server was emptied or "
                "replaced. Start the right one, or restore its append-only file"
            )
        self._check_losses()
        lost = {
            shard: text
            for shard, anchor in sorted(self._anchors.items())
            if (text := self._lost(shard, anchor))
        }
        if lost:
            told = ", ".join(lost.values())
            raise TailLost(
                f"the log lost entries of {self.source} that it had confirmed: {told}", lost.keys()
            )

    def _check_losses(self) -> None:
        """Whether a loss was accepted since: rows that were confirmed may be in it, though the last of them are not."""
        before = self._losses_seen
        self._see_losses()
        shards = [shard for shard, seen in before.items() if self._losses_seen.get(shard) != seen]
        if shards:
            told = ", ".join(map(str, shards))
            raise TailLost(
                f"entries of shard {told} were given up (`hftpipe repair`), perhaps some of {self.source} among them",
                shards,
            )

    def _see_losses(self) -> None:
        losses = self._log.losses()
        self._losses_seen = {shard: losses.get(shard, 0) for shard in range(self._topology.shards)}

    def _lost(self, shard: int, anchor: Anchor) -> str:
        """Which confirmed entries of a shard are gone; empty when none is."""
        found = self._log.fetch(shard, anchor.id)
        if found is not None:
            intact = digest_of(found.fields) == anchor.digest
            return "" if intact else f"{shard}/{anchor.id} (row {anchor.position}) and some before it"
        extent = self._log.extent(shard)
        if extent.first is not None and anchor.id < extent.first:
            return ""  # applied and trimmed
        # Others may have appended since: what is there above the loss does not show where it began.
        first = anchor.id if extent.last is None else min(extent.last.moved(1), anchor.id)
        return (
            f"{shard}/{first} to {shard}/{anchor.id} (up to row {anchor.position}) and perhaps some before it"
        )


def _fitting_part(window: list[tuple[int, Batch]], room: Sequence[int]) -> list[tuple[int, Batch]]:
    """The leading entries of a window that the shards have room for."""
    left = list(room)
    for length, (shard, _) in enumerate(window):
        if left[shard] <= 0:
            return window[:length]
        left[shard] -= 1
    return window


def _write_note(mark: Mark, anchor: Anchor | None, losses_seen: int) -> bytes:
    confirmed = None if anchor is None else [anchor.position, str(anchor.id), anchor.digest]
    return orjson.dumps([mark.line, mark.offset, mark.prefix, mark.unfinished, confirmed, losses_seen])


def _read_note(text: bytes) -> tuple[Mark, Anchor | None, int]:
    line, offset, prefix, unfinished, confirmed, *seen = orjson.loads(text)
    mark, losses_seen = Mark(line, offset, prefix, unfinished), seen[0] if seen else 0
    if confirmed is None:
        return mark, None, losses_seen
    position, entry_id, digest = confirmed
    return mark, Anchor(position, EntryId.parse(entry_id), digest), losses_seen
