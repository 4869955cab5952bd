"""The worker of one shard: own, attach, process, commit, acknowledge.

The store decides who owns the shard and how far it has been applied; the log's group only hands out entries. What is
read is committed at once, so that the size of a commit follows the backlog: one transaction when the shard is idle,
`commit_transactions_max` under load. Several full entries in one commit mean that their producer has a queue: then some
time is given to gather more, for a balance is written once for many transactions of its account.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from hftpipe.anchoring import holds, newest_shared, repair
from hftpipe.backoff import Backoff
from hftpipe.config import WorkerLimits
from hftpipe.core.columnar_ledger import ColumnarLedger
from hftpipe.core.commit import Checkpoint
from hftpipe.core.entry import Entry, EntryId, Foreign, RawEntry, decode
from hftpipe.core.ledger import Ledger
from hftpipe.core.posting import Step, batches_of, follow_chain, post
from hftpipe.errors import EntryDamaged, LogForeign, LogGap, PassingFault, ShardStopped
from hftpipe.event import Event, Level, passing
from hftpipe.owning import Turn, World, is_drained
from hftpipe.ports import LogReader, Store, Topology
from hftpipe.retention.reach import Reach

_SOURCES_MAX = 10_000


@dataclass(slots=True)
class _Attached:
    """Where an attached worker stands; thrown away whole after any fault."""

    epoch: int
    checkpoint: Checkpoint
    ledger: Ledger
    reach: Reach
    delivered: EntryId
    """The group has handed out entries up to here, perhaps to a dead worker: those are read by range."""
    beat_due_ms: int
    tidy_due_ms: int
    done: list[EntryId] = field(default_factory=list)
    positions: dict[str, int] = field(default_factory=dict)
    entries_wanted: int = 64
    is_queued: bool = False
    """The last commit held so many full entries that their producer has a queue, and had room for more."""

    @property
    def expected(self) -> EntryId:
        """Ids are dense, so the next one is known."""
        return self.checkpoint.id.moved(1)


class ShardWorker:
    """Applies one shard's log to its store.

    open_store: opens the shard's store; called again after each fault, for the outcome of a failed commit is unknown.
    until_idle: end when everything that was appended has been applied, instead of waiting for more.
    """

    def __init__(
        self,
        shard: int,
        topology: Topology,
        *,
        log: LogReader,
        open_store: Callable[[], Store],
        world: World,
        limits: WorkerLimits,
        until_idle: bool = False,
    ) -> None:
        self._shard = shard
        self._topology = topology
        self._log = log
        self._open_store = open_store
        self._world = world
        self._limits = limits
        self._until_idle = until_idle
        self._turn = Turn(shard, log=log, world=world, limits=limits, until_idle=until_idle)

    def run(self) -> None:
        """Works until told to stop, or idle.

        Raises Fenced when another worker took over, ShardStopped when the shard needs a person's decision.
        """
        backoff = Backoff(self._limits.retry_first_ms, self._limits.retry_max_ms, self._world.random.random)
        while not self._world.stopping():
            try:
                with self._opened() as store:
                    epoch = self._turn.own(store)
                    if epoch is not None:
                        self._attached(store, epoch, backoff)
                    return
            except ShardStopped as stop:
                self._report("shard_stopped", f"stopped: {stop}", Level.ERROR, reason=type(stop).__name__)
                raise
            except PassingFault as fault:
                # Nothing behind the failed entry has moved, so order is kept however often this repeats.
                wait_ms = backoff.next_ms()
                self._world.report(passing(fault, wait_ms, f"shard {self._shard}: ", shard=self._shard))
                self._world.witness.faulted(self._shard, wait_ms)
                self._world.clock.sleep_ms(wait_ms)

    # --- attach ------------------------------------------------------------------------------------------------

    def _attached(self, store: Store, epoch: int, backoff: Backoff) -> None:
        """Owns the shard from here to the release."""
        try:
            state = self._attach(store, epoch)
            self._work(store, state, backoff)
        except ShardStopped as stop:
            store.beat(epoch)  # Fenced: the new owner has trimmed what is missing here, and all is well
            store.release(epoch, stopped=str(stop))
            raise
        store.release(epoch)

    def _attach(self, store: Store, epoch: int) -> _Attached:
        """Finds where to go on: the store's checkpoint is the truth, never the group's position."""
        store.beat(epoch)
        self._check_pipeline(store)
        checkpoint = self._anchor(store, epoch, store.checkpoint())
        delivered = self._log.attach(checkpoint.id)
        self._log.announce("owner")
        reach = Reach(self._limits.retain, self._log, self._world.clock, checkpoint.id)
        reach.look()
        now_ms = self._world.clock.monotonic_ms()
        return _Attached(
            epoch,
            checkpoint,
            ColumnarLedger(
                checkpoint.highest_tx, self._limits.accounts_max, self._world.random.getrandbits(64)
            ),
            reach,
            delivered,
            beat_due_ms=now_ms + self._limits.beat_ms,
            tidy_due_ms=now_ms + self._limits.lease_ms,
        )

    def _check_pipeline(self, store: Store) -> None:
        topology, (pipeline, shard, shards) = self._log.topology(), store.identity()
        if topology is None:
            raise LogForeign(
                f"the log belongs to no pipeline, the store to {pipeline}: the server was emptied, or it is "
                "another server. Start the right one, or restore its append-only file; if that is gone, "
                f"{repair(shard)}"
            )
        if (topology.pipeline, self._shard, topology.shards) != (pipeline, shard, shards):
            raise LogForeign(
                f"the log belongs to shard {self._shard} of {topology.shards} of pipeline {topology.pipeline}, "
                f"the store to shard {shard} of {shards} of pipeline {pipeline}. Use the home and the server "
                "that belong together"
            )

    def _anchor(self, store: Store, epoch: int, checkpoint: Checkpoint) -> Checkpoint:
        """The checkpoint, if the log still holds that very entry; else back to what log and journal share.

        Rows between there and the old checkpoint may come again: the source chain skips them.
        """
        if checkpoint.id.sequence < 0 or holds(self._log, checkpoint.id, checkpoint.digest):
            return checkpoint
        entry_id, digest = newest_shared(self._log, store, self._shard, checkpoint)
        store.rewind(epoch, entry_id, digest)
        self._report(
            "log_tail_lost",
            f"the log lost its tail: entry {checkpoint.id} is not the one that was applied. Going on behind "
            f"entry {entry_id}; producers send again what is missing, and nothing is applied twice",
            Level.WARNING,
            epoch=epoch,
            applied=str(checkpoint.id),
            entry=str(entry_id),
        )
        return store.checkpoint()

    # --- process, commit, acknowledge ----------------------------------------------------------------------------

    def _work(self, store: Store, state: _Attached, backoff: Backoff) -> None:
        while not self._world.stopping():
            wanted = state.entries_wanted
            entries = self._next_entries(state)
            self._world.witness.read(self._shard, len(entries))
            self._world.reach("worker.read")
            if not entries:
                backoff.reset()
                if self._until_idle and is_drained(self._log, state.checkpoint.id):
                    break
            for group in self._groups(entries):
                self._commit(store, state, group)
                backoff.reset()
                if self._world.stopping():
                    break  # what was read beyond stays pending, for the next owner
            self._beat(store, state)
            self._tidy(state)
            if 0 < len(entries) < wanted and not self._until_idle:
                self._world.clock.sleep_ms(
                    self._limits.gather_ms if state.is_queued else self._limits.commit_interval_ms
                )
        self._acknowledge(state)

    def _next_entries(self, state: _Attached) -> list[RawEntry]:
        """The entries right behind the checkpoint, without a hole; empty when there is none for now."""
        if state.delivered > state.checkpoint.id:
            return self._redelivered(state)
        wait_ms = 0 if self._until_idle else self._limits.read_wait_ms
        done, state.done = state.done, []
        keep_from = state.reach.trim_to(state.checkpoint.id)
        entries = self._log.read(state.entries_wanted, wait_ms, done, keep_from)
        if done:
            self._world.reach("worker.acknowledged")
        newest = entries[-1].id if entries else self._log.extent().last or state.checkpoint.id
        next_entries = _without_hole(entries, state.expected)
        state.done += [entry.id for entry in entries if entry.id < state.expected]
        if len(next_entries) < sum(entry.id >= state.expected for entry in entries) or not entries:
            # A hole, or entries that the group will never hand out: they are read by range, or are a gap.
            state.delivered = max(state.delivered, newest)
        return next_entries

    def _redelivered(self, state: _Attached) -> list[RawEntry]:
        """Entries that the group has handed out before: to a worker that is gone, or past a hole."""
        found = self._log.range(state.expected, state.delivered, state.entries_wanted)
        entries = _without_hole(found, state.expected)
        if not entries:
            upto = found[0].id.moved(-1) if found else state.delivered
            raise LogGap(
                f"entries {self._shard}/{state.expected} to {self._shard}/{upto} were appended and are missing "
                f"from the log. Restore the server's append-only file; if that is gone, {repair(self._shard)}"
            )
        return entries

    def _groups(self, entries: list[RawEntry]) -> Iterator[list[Entry | Foreign]]:
        """Decoded entries, cut into commits. A damaged entry stops the shard behind all that came before it."""
        group: list[Entry | Foreign] = []
        transactions = 0
        for raw in entries:
            try:
                entry = decode(raw, self._shard, self._topology.shards)
            except EntryDamaged:
                if group:
                    yield group
                raise
            group.append(entry)
            transactions += len(entry.batch) if isinstance(entry, Entry) else 1
            if transactions >= self._limits.commit_transactions_max:
                yield group
                group, transactions = [], 0
        if group:
            yield group

    def _commit(self, store: Store, state: _Attached, group: list[Entry | Foreign]) -> None:
        positions = self._positions(store, state, group)
        steps = follow_chain(group, positions)
        needs = state.ledger.needs(batches_of(steps))
        state.ledger.learn(needs, store.facts(needs))
        commit = post(state.ledger, state.checkpoint, steps, positions)
        self._world.reach("worker.applied")
        self._report_gaps(steps)
        faults = [fault for foreign in commit.dead if (fault := self._bury(foreign)) is not None]
        self._world.witness.committing(self._shard)
        store.commit(state.epoch, commit)
        self._world.witness.committed(self._shard, commit)
        self._world.reach("worker.committed")
        state.checkpoint = commit.after
        state.reach.note(group)
        # Acknowledged with the next read: a crash before repeats the entries, and the checkpoint skips them.
        state.done += [entry.id for entry in group]
        self._adapt(state, [len(entry.batch) if isinstance(entry, Entry) else 1 for entry in group])
        self._mark_beaten(state)
        if faults:
            raise faults[0]  # the log may be back without its tail: only attaching anew finds that out

    def _bury(self, foreign: Foreign) -> PassingFault | None:
        """A full log must not hold the shard: the store keeps the dead letter in any case."""
        told = f"entry {self._shard}/{foreign.id} is none of ours ({foreign.reason}): dead-lettered"
        fields = {"entry": str(foreign.id), "reason": foreign.reason}
        self._report("entry_dead_lettered", told, Level.WARNING, **fields)
        try:
            self._log.bury(foreign)
        except PassingFault as fault:
            told = f"entry {self._shard}/{foreign.id} is kept in the store's dead letters only: {fault}"
            self._report("dead_letter_kept_in_store", told, Level.WARNING, **fields)
            return fault
        return None

    def _report_gaps(self, steps: Sequence[Step | Foreign]) -> None:
        for step in steps:
            if isinstance(step, Step) and step.batch is None:
                self._report(
                    "source_gap",
                    f"entry {self._shard}/{step.entry.id} is left alone: rows of {step.entry.source} before its row "
                    f"{step.entry.previous + 1} are missing. They come when that source is ingested again",
                    Level.WARNING,
                    entry=str(step.entry.id),
                    source=step.entry.source,
                    row=step.entry.previous + 1,
                )

    def _positions(self, store: Store, state: _Attached, group: list[Entry | Foreign]) -> dict[str, int]:
        if len(state.positions) > _SOURCES_MAX:
            state.positions.clear()
        sources = {entry.source for entry in group if isinstance(entry, Entry)}
        if unknown := sources - state.positions.keys():
            state.positions.update(store.positions(unknown))
        return state.positions

    def _adapt(self, state: _Attached, lengths: Sequence[int]) -> None:
        """Sizes the next commit by the entries of this one: at once when idle, many entries while a queue comes in."""
        fitting = self._limits.commit_transactions_max * len(lengths) // sum(lengths)
        state.entries_wanted = max(1, min(fitting, self._limits.read_entries_max))
        has_room = sum(lengths) < self._limits.commit_transactions_max
        full = sum(length >= self._limits.full_entry_transactions for length in lengths)
        state.is_queued = has_room and full >= self._limits.full_entries_min

    def _acknowledge(self, state: _Attached) -> None:
        done, state.done = state.done, []
        with suppress(PassingFault):  # the next owner acknowledges what is at or below the checkpoint
            self._log.read(0, 0, done, state.reach.trim_to(state.checkpoint.id))

    def _beat(self, store: Store, state: _Attached) -> None:
        if self._world.clock.monotonic_ms() >= state.beat_due_ms:
            store.beat(state.epoch)
            self._mark_beaten(state)

    def _tidy(self, state: _Attached) -> None:
        """Once a lease: takes over what a replaced worker has read since, or it would count as backlog for ever."""
        now_ms = self._world.clock.monotonic_ms()
        if now_ms >= state.tidy_due_ms:
            state.delivered = max(state.delivered, self._log.attach(state.checkpoint.id))
            state.reach.look()
            state.tidy_due_ms = now_ms + self._limits.lease_ms

    def _mark_beaten(self, state: _Attached) -> None:
        state.beat_due_ms = self._world.clock.monotonic_ms() + self._limits.beat_ms

    @contextmanager
    def _opened(self) -> Iterator[Store]:
        store = self._open_store()
        try:
            yield store
        finally:
            store.close()

    def _report(self, name: str, line: str, level: Level, **fields: object) -> None:
        self._world.report(Event(name, f"shard {self._shard}: {line}", level, shard=self._shard, **fields))


def _without_hole(entries: list[RawEntry], expected: EntryId) -> list[RawEntry]:
    """The run of dense ids that begins with the expected one."""
    run: list[RawEntry] = []
    for entry in entries:
        if entry.id == expected:
            run.append(entry)
            expected = expected.moved(1)
        elif entry.id > expected:
            break
    return run
