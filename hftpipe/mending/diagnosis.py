"""What is wrong with a shard's log, as its worker would find it, and what would have to be given up to go on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from hftpipe.anchoring import holds, newest_shared
from hftpipe.core.commit import Checkpoint
from hftpipe.core.entry import Entry, EntryId, Lost, RawEntry, decode, digest_of
from hftpipe.core.journal import loss_told
from hftpipe.errors import EntryDamaged, HftpipeError, LogEmptied, LogForeign, LogGap, MendingRefused
from hftpipe.mending.missing import Sent, with_positions
from hftpipe.mending.remains import remains_told
from hftpipe.ports import LogMender, Store, Topology

_PAGE_ENTRIES: Final = 64
_PAGE_RECORDS: Final = 256
_ADVICE: Final = "; if "
"""What a message says behind that is this very command."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What is wrong, and what it would take to go on.

    problem: what the worker says; empty when nothing is wrong, or what heals by itself. losses: in their order.
    shared: the entry that log and journal have in common last, and its digest, where the worker would go back to it.
    is_unfounded: nobody has written what the log belongs to. begins_behind: an empty log is to go on behind that.
    told: all that would be given up, and what would not, for people.
    is_live: rows are missing of a source that cannot be read again: its producer must not run meanwhile.
    """

    problem: str
    losses: tuple[Lost, ...]
    shared: tuple[EntryId, str] | None
    is_unfounded: bool
    begins_behind: EntryId | None
    told: tuple[str, ...]
    is_live: bool

    @property
    def asked(self) -> tuple[object, ...]:
        """What a person says yes to: two of which this is equal are the same to him."""
        losses = [(loss.first, loss.id, loss.digest) for loss in self.losses]
        return losses, self.shared, self.is_unfounded, self.begins_behind


def diagnose(
    shard: int, topology: Topology, log: LogMender, store: Store, beat: Callable[[], None] = lambda: None
) -> Diagnosis:
    """Looks at a shard that nobody works on; changes nothing.

    topology: as its log must have it. beat: called now and then by whoever owns it meanwhile.
    Raises MendingRefused where a repair cannot help, LogUnavailable, StoreUnavailable, StoreDamaged.
    """
    try:
        return _Examination(shard, topology, log, store, beat).diagnose()
    except LogForeign as foreign:
        raise MendingRefused(
            f"{foreign}. A repair cannot help: start the right server; or rename the key away (RENAME), and try again"
        ) from None


@dataclass(slots=True)
class _Examination:
    """One look. steps: what there is behind the checkpoint, in its order, losses in their places.

    journaled: entries behind it that were applied before a worker went back, by id, and their digests.
    """

    shard: int
    topology: Topology
    log: LogMender
    store: Store
    beat: Callable[[], None]
    steps: list[Lost | Sent] = field(default_factory=list)
    problem: str = ""
    told: list[str] = field(default_factory=list)
    journaled: dict[EntryId, str] = field(default_factory=dict)

    def diagnose(self) -> Diagnosis:
        checkpoint = self.store.checkpoint()
        is_unfounded = self._is_unfounded()
        shared, begins_behind = self._anchor(checkpoint, is_unfounded=is_unfounded)
        base = checkpoint.id if shared is None else shared[0]
        if self.steps and isinstance(self.steps[-1], Lost):
            base = self.steps[-1].id
        else:
            self.journaled = self._journaled(base, checkpoint.number)
        last = self.log.extent().last
        if last is not None:
            self._scan(base.moved(1), last)
        losses, told, is_live = with_positions(self.steps, self.store.positions, self.log.lowest_in_inbox)
        return Diagnosis(
            self.problem,
            tuple(losses),
            shared,
            is_unfounded,
            begins_behind,
            (*self.told, *told, *self._waiting()),
            is_live,
        )

    def _is_unfounded(self) -> bool:
        there = self.log.topology()
        if there is None:
            ours = self.topology.pipeline
            self.problem = f"the log belongs to no pipeline, the store to {ours}: the server was emptied"
            return True
        if there != self.topology:
            raise LogForeign(
                f"the log belongs to pipeline {there.pipeline}, the store to {self.topology.pipeline}"
            )
        return False

    def _anchor(
        self, checkpoint: Checkpoint, *, is_unfounded: bool
    ) -> tuple[tuple[EntryId, str] | None, EntryId | None]:
        """Where the worker would go back to, and behind what an empty log is to go on; None for nowhere."""
        if checkpoint.id.sequence < 0:
            if is_unfounded and self.log.extent().last is None:
                self._lose_unknown(checkpoint.id, self.problem)
            return None, None
        if holds(self.log, checkpoint.id, checkpoint.digest):
            return None, None
        try:
            return newest_shared(self.log, self.store, self.shard, checkpoint), None
        except LogGap as gap:
            first = self.log.extent().first or checkpoint.id
            self._lose(checkpoint.id.moved(1), first.moved(-1), gap)
        except LogEmptied as emptied:
            return None, self._lose_emptied(checkpoint.id, emptied)
        return None, None

    def _lose_emptied(self, applied: EntryId, emptied: LogEmptied) -> EntryId | None:
        extent = self.log.extent()
        if extent.first is not None:
            self._lose_unknown(extent.first.moved(-1), str(emptied))
            self.told.append(
                f"What the log holds now, {extent.first} to {extent.last}, is applied; known rows are skipped"
            )
        elif extent.last is not None and extent.last > applied:
            self._lose(applied.moved(1), extent.last, emptied)
        else:
            self._lose_unknown(applied, str(emptied))
            return applied
        return None

    def _journaled(self, base: EntryId, number: int) -> dict[EntryId, str]:
        """What the journal holds behind the base; nothing when other entries have come in its place."""
        found = dict(self._records_behind(base, number))
        first, last = base.moved(1), max(found, default=base)
        while found and (page := self.log.range(first, last, _PAGE_ENTRIES)):
            self.beat()
            for raw in page:
                written = raw.fields.get(b"d", b"").decode(errors="replace")
                if found.get(raw.id) not in (digest_of(raw.fields), written):
                    return {}
            first = page[-1].id.moved(1)
        return found

    def _records_behind(self, base: EntryId, number: int) -> list[tuple[EntryId, str]]:
        """The newest records down to the base, oldest first."""
        found: list[tuple[EntryId, str]] = []
        below = number + 1
        while anchors := self.store.anchors(below, _PAGE_RECORDS):
            for _, entry_id, digest in anchors:
                if entry_id <= base:
                    return found[::-1]
                found.append((entry_id, digest))
            below = anchors[-1][0]
        return found[::-1]

    def _scan(self, first: EntryId, last: EntryId) -> None:
        while first <= last:
            self.beat()
            page = self.log.range(first, last, _PAGE_ENTRIES)
            for raw in page:
                if raw.id > first:
                    self._lose_range(first, raw.id.moved(-1))
                self._take(raw)
                first = raw.id.moved(1)
            if not page:
                self._lose_range(first, last)
                return

    def _take(self, raw: RawEntry) -> None:
        try:
            entry = decode(raw, self.shard, self.topology.shards)
        except EntryDamaged as damage:
            digest = digest_of(raw.fields)
            written = raw.fields[b"d"].decode()
            reason = f"given up: it did not match its digest ({written} written, {digest} found)"
            self.steps.append(Lost(raw.id, reason, raw.fields, digest, raw.id, {}))
            self._complain(damage)
            self.told.append(f"entry {self.shard}/{raw.id}, which is damaged{remains_told(raw.fields)}")
            self._tell_applied(raw.id, raw.id)
        else:
            if isinstance(entry, Entry):
                self.steps.append(Sent(entry.source, entry.previous, entry.position, len(entry.batch)))

    def _lose_range(self, first: EntryId, last: EntryId) -> None:
        self._lose(
            first, last, f"entries {self.shard}/{first} to {self.shard}/{last} are missing from the log"
        )
        self._tell_applied(first, last)

    def _tell_applied(self, first: EntryId, last: EntryId) -> None:
        upto = first.moved(-1)
        while upto < last and self.journaled.get(upto.moved(1)):
            upto = upto.moved(1)
        if upto >= first:
            self.told.append(
                f"{loss_told(first, upto)}: applied before, as the journal says; so these are not lost"
            )

    def _lose(self, first: EntryId, last: EntryId, problem: HftpipeError | str) -> None:
        self.steps.append(Lost(last, f"given up: {loss_told(first, last)}", {}, "", first, {}))
        self._complain(problem)
        count = last.sequence - first.sequence + 1
        told = (
            f"entry {self.shard}/{first}"
            if count == 1
            else f"entries {self.shard}/{first} to {self.shard}/{last}"
        )
        self.told.append(f"{told}: {count:,} in all; how many transactions they held is not known")

    def _lose_unknown(self, behind: EntryId, problem: str) -> None:
        self.steps.append(Lost(behind, f"given up: {loss_told(None, behind)}", {}, "", None, {}))
        self._complain(problem)
        self.told.append(
            "whatever was appended, not applied, and is in the log no more: nobody knows how much that is"
        )

    def _complain(self, problem: HftpipeError | str) -> None:
        self.problem = self.problem or str(problem).partition(_ADVICE)[0]

    def _waiting(self) -> Sequence[str]:
        sent = [step for step in self.steps if isinstance(step, Sent)]
        if not sent:
            return ()
        rows = sum(step.count for step in sent)
        return (f"Not lost: {len(sent):,} entries with {rows:,} transactions that wait behind it or between",)
