"""The product with one safety mechanism switched off: what the simulation must be able to notice.

Each mutant replaces one method or function of the real code, here and only here.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from hftpipe import worker
from hftpipe.backoff import Backoff
from hftpipe.core import posting
from hftpipe.core.commit import Checkpoint, Commit
from hftpipe.core.entry import EntryId, Foreign, RawEntry
from hftpipe.core.transaction import Batch
from hftpipe.errors import Fenced, ShardStopped, StoreUnavailable, TailLost
from hftpipe.ingest import Summary, Validator
from hftpipe.invalid_report import InvalidReport
from hftpipe.owning import Turn
from hftpipe.ports import LogReader, Ownership, Store
from hftpipe.producer import Anchor, Producer
from hftpipe.retention.reach import Reach
from hftpipe.source.stream import Source
from hftpipe.store.memory import MemoryStore
from hftpipe.worker import ShardWorker
from tests.simulation import world


@dataclass(frozen=True, slots=True)
class Mutant:
    """What is switched off, in which settings it matters, and a seed from which on it shows soon."""

    mechanism: str
    where: object
    name: str
    instead: object
    loses_tail: bool = False
    first_seed: int = 0


def _hold_fence(self: MemoryStore, epoch: int, before: Checkpoint | None = None) -> None:
    """Whoever stands at the checkpoint may write, whatever the epoch."""
    now = self.checkpoint()
    if before is not None and (before.id, before.number) != (now.id, now.number):
        raise Fenced("moved")


def _commit_in_two(self: MemoryStore, epoch: int, commit: Commit) -> None:
    """The checkpoint follows in a transaction of its own."""
    before = self._checkpoint
    _commit(self, epoch, commit)
    self._checkpoint, after = before, self._checkpoint
    self._reach("store.between_two_transactions")
    self._checkpoint = after


_commit = MemoryStore.commit


def _attach_to_group(self: ShardWorker, store: Store, epoch: int) -> worker._Attached:
    """Goes on where the group stands."""
    state = _attach(self, store, epoch)
    if state.delivered > state.checkpoint.id:
        store.rewind(epoch, state.delivered, "")
        state.checkpoint = store.checkpoint()
    return state


_attach = ShardWorker._attach


def _holds(log: LogReader, entry_id: EntryId, digest: str) -> bool:
    """Any entry under that id will do."""
    return bool(log.range(entry_id, entry_id, 1))


def _append_trusting(self: Producer, batch: Batch) -> None:
    """What stands behind a refused entry counts as confirmed."""
    waiting = deque(self._pieces(batch))
    while waiting:
        window = [waiting[index] for index in range(min(len(waiting), self._limits.pipeline_entries_max))]
        window = self._patiently(self._fitting, window)
        appended = self._send(window)
        for _ in window if appended.ids else ():
            waiting.popleft()
        if appended.fault is not None:
            self._recover(appended.fault)


def _commit_again(self: ShardWorker, store: Store, state: worker._Attached, group: list[object]) -> None:
    """After a failed commit the same memory is committed again."""
    try:
        _commit_once(self, store, state, group)  # type: ignore[arg-type]
    except StoreUnavailable:
        _commit_once(self, store, state, group)  # type: ignore[arg-type]


_commit_once = ShardWorker._commit


def _lost_by_id(self: Producer, shard: int, anchor: Anchor) -> str:
    """An anchor is there when any entry has its id."""
    return "" if self._log.fetch(shard, anchor.id) is not None else _lost(self, shard, anchor)


_lost = Producer._lost


def _lost_told_short(self: Producer, shard: int, anchor: Anchor) -> str:
    """What others have appended since the loss is taken for what was there before it."""
    return _lost(self, shard, anchor).removesuffix(" and perhaps some before it")


def _stop_unasked(self: ShardWorker, store: Store, epoch: int, backoff: Backoff) -> None:
    """Stops the shard without asking whether it is still this worker's."""
    try:
        state = self._attach(store, epoch)
        self._work(store, state, backoff)
    except ShardStopped as stop:
        store.release(epoch, stopped=str(stop))
        raise
    store.release(epoch)


def _is_mine_or_lost(self: Turn, seen: Ownership) -> bool:
    """A shard without owner was taken over, even if this worker has released it itself."""
    if seen.owner == self._world.owner:
        self._epoch = seen.epoch
        return True
    if self._epoch is not None:
        raise Fenced("taken over")
    return False


def _any_entries(entries: Sequence[RawEntry], expected: EntryId) -> list[RawEntry]:
    return list(entries)


def _all_rows(previous: int, rows: Sequence[int], applied: int) -> int:
    return 0


def _gaps_too(previous: int, rows: Sequence[int], applied: int) -> int:
    return bisect_right(rows, applied)


def _bury_quietly(self: ShardWorker, foreign: Foreign) -> None:
    """A connection that broke on the way is passed over."""
    _bury(self, foreign)


_bury = ShardWorker._bury


def _reports_anew(
    source: Source,
    validator: Validator,
    producer: Producer,
    *,
    summary: Summary,
    report: InvalidReport,
    stopping: Callable[[], bool],
    until_told: bool = False,
) -> None:
    """Whoever begins again takes back what it had reported."""
    resumption = producer.resume()
    after, known = resumption.after, resumption.known
    while True:
        report.begin(producer.source, after.line if after is not None else 0)
        try:
            for block in source.blocks(after, known):
                validated = validator.validate(block.lines, block.first_line)
                producer.append(validated.batch)
                report.add(validated.invalid)
                producer.note(block.mark)
                if stopping():
                    break
        except TailLost as lost:
            producer.begin_again(lost)
            after, known = None, ()
        else:
            return


def _trim_to_next(self: Reach, checkpoint: EntryId) -> EntryId:
    """Trims the checkpoint's entry too."""
    return checkpoint.moved(1)


def _look_for_nothing(self: Producer) -> None:
    """Trusts that the log is what it was."""


MUTANTS = (
    Mutant("the fence: the epoch of a commit is checked", MemoryStore, "_hold_fence", _hold_fence),
    Mutant("the source chain: known rows are skipped", posting, "first_new_row", _all_rows),
    Mutant(
        "the source chain: entries behind a gap are left alone",
        posting,
        "first_new_row",
        _gaps_too,
        first_seed=140,
    ),
    Mutant("ids are dense: a hole is filled before it is passed", worker, "_without_hole", _any_entries),
    Mutant("the checkpoint is written with what it stands for", MemoryStore, "commit", _commit_in_two),
    Mutant("a worker goes on at the checkpoint", ShardWorker, "_attach", _attach_to_group),
    Mutant("the entry at the checkpoint has its digest", worker, "holds", _holds, loses_tail=True),
    Mutant("behind a refused entry nothing is confirmed", Producer, "append", _append_trusting),
    Mutant("memory is committed once", ShardWorker, "_commit", _commit_again),
    Mutant(
        "the checkpoint's entry is never trimmed",
        Reach,
        "trim_to",
        _trim_to_next,
    ),
    Mutant(
        "a producer looks for what was confirmed",
        Producer,
        "_check_anchors",
        _look_for_nothing,
        loses_tail=True,
    ),
    Mutant("a producer compares digests", Producer, "_lost", _lost_by_id, loses_tail=True),
    Mutant(
        "all that may be lost is told", Producer, "_lost", _lost_told_short, loses_tail=True, first_seed=40
    ),
    Mutant(
        "any fault of the log leads back to attaching",
        ShardWorker,
        "_bury",
        _bury_quietly,
        loses_tail=True,
        first_seed=40,
    ),
    Mutant(
        "who begins again keeps its reports", world, "ingest", _reports_anew, loses_tail=True, first_seed=130
    ),
    Mutant("only an owner stops its shard", ShardWorker, "_attached", _stop_unasked, first_seed=40),
    Mutant("a release of one's own is no takeover", Turn, "_is_mine", _is_mine_or_lost, first_seed=115),
)


@contextmanager
def applied(mutant: Mutant) -> Iterator[None]:
    """The product is that mutant during the body."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mutant.where, mutant.name, mutant.instead)
        yield
