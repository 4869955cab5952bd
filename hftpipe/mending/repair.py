"""Accepting a loss: the shard's log is made whole where it can be, what is missing is given up, and all else applied.

What a person said yes to is found once more by the shard's owner, with all producers sent to look what the log still
holds; if it is not the same any more, nothing is changed. The losses stand in the journal in the place of what is
missing, in the commit that holds the decision, too. Whatever is killed in between, the command finds out what is left.
"""

import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from hftpipe.audit.recount import recount
from hftpipe.config import IngestLimits
from hftpipe.core.columnar_ledger import ColumnarLedger
from hftpipe.core.commit import ACCEPTED_LOSS, Checkpoint, Commit, Decision
from hftpipe.core.entry import Entry, EntryId, Foreign, decode
from hftpipe.core.journal import Record, is_loss, loss_told
from hftpipe.core.ledger import Facts, Needs
from hftpipe.errors import Fenced, LogForeign, MendingRefused, PassingFault
from hftpipe.mending.diagnosis import Diagnosis, diagnose
from hftpipe.owner import describe
from hftpipe.ports import Clock, LogMender, Ownership, Store, Topology

_POLL_MS: Final = 100
_PAGE_ENTRIES: Final = 64
_COMMIT_TRANSACTIONS: Final = 131_072
_GONE_MS: Final = 5_000
"""How long producers' connections may take to end."""
_BACK_MS: Final = IngestLimits().retry_max_ms + 500
"""How long one whose connection broke may take to be seen again."""
_BEATS_PER_LEASE: Final = 5


@dataclass(frozen=True, slots=True)
class Repairing:
    """What a shard is repaired with.

    topology: as the log must have it. owner: this process, as no other in the world is named. is_dead: whether the
    named owner's process is known to be gone. lease_ms: an owner that has stood still so long may be replaced.
    who: user and host. reach: called with the name of each step that a fault may be planted at.
    """

    shard: int
    topology: Topology
    log: LogMender
    open_store: Callable[[], Store]
    owner: str
    is_dead: Callable[[str], bool]
    lease_ms: int
    clock: Clock
    who: str
    reach: Callable[[str], None] = lambda _: None


def examine(repairing: Repairing) -> Diagnosis:
    """What is wrong, and what would be given up; changes nothing.

    Raises MendingRefused when a worker owns the shard, or where a repair cannot help.
    """
    store = repairing.open_store()
    try:
        require_idle(repairing, store)
        return diagnose(repairing.shard, repairing.topology, repairing.log, store)
    finally:
        store.close()


def accept(repairing: Repairing, shown: Diagnosis) -> Checkpoint:
    """Gives up what was shown, and applies what lies before it; returns how far the shard is then.

    Raises MendingRefused, with nothing changed, when a worker owns the shard or it is not as shown any more.
    """
    store = repairing.open_store()
    try:
        hold = own(repairing, store)
        stopped = hold.stopped
        try:
            repairing.reach("repair.owned")
            if shown.is_live:
                _require_no_producers(repairing, hold)
            # Whoever reconnects finds what the log has lost; what was under way is there, or will not come.
            repairing.log.announce_loss(repairing.clock.unix_ms())
            _send_producers_to_look(repairing, hold)
            found = _look_once_more(repairing, store, shown, hold)
            checkpoint = _Acceptance(repairing, store, hold, found).run()
            stopped = ""
        except Fenced:
            raise taken_over(repairing.shard) from None
        finally:
            store.release(hold.epoch, stopped)
        return checkpoint
    finally:
        store.close()


class Hold:
    """A shard in this process's hand. stopped: why its last owner could not go on."""

    def __init__(self, repairing: Repairing, store: Store, epoch: int, stopped: str) -> None:
        self.epoch = epoch
        self.stopped = stopped
        self._store = store
        self._clock = repairing.clock
        self._every_ms = repairing.lease_ms // _BEATS_PER_LEASE
        self._due_ms = self._clock.monotonic_ms() + self._every_ms

    def beat(self) -> None:
        """Shows that its owner lives, when that is due. Raises Fenced when it was replaced."""
        now_ms = self._clock.monotonic_ms()
        if now_ms >= self._due_ms:
            self._store.beat(self.epoch)
            self._due_ms = now_ms + self._every_ms


def taken_over(shard: int) -> MendingRefused:
    """What to say where a worker was faster, and this process too slow."""
    return MendingRefused(
        f"shard {shard} was taken over meanwhile. Stop its workers, and run the command again: it finds out what is "
        "left to do"
    )


def require_idle(repairing: Repairing, store: Store) -> Ownership:
    """Who owns the shard when it can be taken: nobody, or one who is gone or has stood still for a lease.

    Raises MendingRefused when somebody works on it.
    """
    seen, since_ms = store.ownership(), repairing.clock.monotonic_ms()
    while seen.owner and not repairing.is_dead(seen.owner):
        if repairing.clock.monotonic_ms() - since_ms >= repairing.lease_ms:
            break
        repairing.clock.sleep_ms(_POLL_MS)
        now = store.ownership()
        if now.owner and now != seen:
            raise MendingRefused(
                f"shard {repairing.shard} is owned by {describe(now.owner)}, which works on it. If something is wrong "
                "with it, stop that worker first"
            )
        seen = now
    return seen


def own(repairing: Repairing, store: Store) -> Hold:
    """Takes the shard over, as a worker does. Raises MendingRefused when a worker is faster."""
    seen = require_idle(repairing, store)
    epoch = store.take(repairing.owner, seen)
    if epoch is None:
        raise MendingRefused(
            f"shard {repairing.shard} was taken by another while it was looked at. Stop its workers, and try again"
        )
    return Hold(repairing, store, epoch, seen.stopped)


def _look_once_more(repairing: Repairing, store: Store, shown: Diagnosis, hold: Hold) -> Diagnosis:
    found = diagnose(repairing.shard, repairing.topology, repairing.log, store, hold.beat)
    if found.asked != shown.asked or (found.is_live and not shown.is_live):
        raise MendingRefused(
            f"shard {repairing.shard} is not any more what was shown: nothing was changed. Run the command again"
        )
    return found


def _require_no_producers(repairing: Repairing, hold: Hold) -> None:
    """For so long that one whose connection broke would be back."""
    until_ms = repairing.clock.monotonic_ms() + _BACK_MS
    while not repairing.log.producers():
        if repairing.clock.monotonic_ms() >= until_ms:
            return
        repairing.clock.sleep_ms(_POLL_MS)
        hold.beat()
    raise MendingRefused(
        "rows of a source that cannot be read again are missing, and something that takes transactions runs: "
        "what it has not confirmed yet cannot be told from what was lost. Stop `hftpipe serve`, `hftpipe validate` "
        "and `hftpipe ingest -` first"
    )


def _send_producers_to_look(repairing: Repairing, hold: Hold) -> None:
    before = repairing.log.producers()
    repairing.log.disconnect(before)
    until_ms = repairing.clock.monotonic_ms() + _GONE_MS
    while set(before) & set(repairing.log.producers()) and repairing.clock.monotonic_ms() < until_ms:
        repairing.clock.sleep_ms(_POLL_MS)
        hold.beat()


class _Acceptance:
    """The owner at work."""

    def __init__(self, repairing: Repairing, store: Store, hold: Hold, found: Diagnosis) -> None:
        self._repairing = repairing
        self._store = store
        self._hold = hold
        self._found = found

    def run(self) -> Checkpoint:
        repairing, found, log = self._repairing, self._found, self._repairing.log
        if found.is_unfounded and (there := log.found(repairing.topology)) != repairing.topology:
            raise LogForeign(
                f"the log was begun anew as pipeline {there.pipeline} meanwhile. Nothing was changed"
            )
        if found.begins_behind is not None and not log.begin_behind(found.begins_behind):
            raise MendingRefused("somebody has appended to the emptied log meanwhile. Run the command again")
        repairing.reach("repair.log_ready")
        if found.losses:
            self._apply()
        return self._store.checkpoint()

    def _apply(self) -> None:
        repairing, store, found = self._repairing, self._store, self._found
        if found.shared is not None:
            store.rewind(self._hold.epoch, *found.shared)
        books = _Owned(store, self._hold.epoch, self._decision, repairing.log)
        ledger = ColumnarLedger(store.checkpoint().highest_tx, seed=secrets.randbits(64))
        for _ in recount(books, self._entries(), ledger, _COMMIT_TRANSACTIONS):
            pass
        repairing.reach("repair.committed")

    def _entries(self) -> Iterator[Entry | Foreign]:
        """All from the checkpoint to the last loss: what is there, and in its place what is given up."""
        shard, log = self._repairing.shard, self._repairing.log
        expected = self._store.checkpoint().id.moved(1)
        for loss in self._found.losses:
            until = loss.id.moved(1) if loss.first is None else loss.first
            while expected < until and loss.first is not None:
                self._hold.beat()
                page = log.range(expected, until.moved(-1), _PAGE_ENTRIES)
                if not page or page[0].id != expected:
                    raise self._changed(expected)
                for raw in page:
                    if raw.id != expected:
                        break
                    yield decode(raw, shard, self._repairing.topology.shards)
                    expected = expected.moved(1)
            if loss.first is not None and not loss.digest and log.range(loss.first, loss.id, 1):
                raise self._changed(loss.first)
            yield loss
            expected = loss.id.moved(1)

    def _changed(self, entry_id: EntryId) -> MendingRefused:
        return MendingRefused(
            f"entry {self._repairing.shard}/{entry_id} was there and is not, or the other way round: somebody changes "
            "the log. What was accepted so far is in the journal; run the command again"
        )

    def _decision(self, record: Record) -> Decision:
        repairing = self._repairing
        loss = next(loss for loss in self._found.losses if loss.id == record.id)
        told = loss_told(loss.first, loss.id)
        entry = f"{repairing.shard}/{record.id if loss.first is None else loss.first}"
        return Decision(
            repairing.clock.unix_ms(), ACCEPTED_LOSS, entry, record.number, repairing.who, f"given up: {told}"
        )


@dataclass(frozen=True, slots=True)
class _Owned:
    """The store in its owner's hand; see `recount.Books`. Losses are committed with the decision."""

    store: Store
    epoch: int
    decision: Callable[[Record], Decision]
    log: LogMender

    def checkpoint(self) -> Checkpoint:
        return self.store.checkpoint()

    def facts(self, needs: Needs) -> Facts:
        return self.store.facts(needs)

    def positions(self, sources: set[str]) -> dict[str, int]:
        return self.store.positions(sources)

    def commit(self, commit: Commit) -> None:
        for foreign in commit.dead:  # first: once it is committed, nobody looks at it again
            with suppress(PassingFault):  # a full log must not hold the shard: the store keeps it in any case
                self.log.bury(foreign)
        decisions = [self.decision(record) for record in commit.records if is_loss(record)]
        self.store.commit(self.epoch, replace(commit, decisions=decisions))
