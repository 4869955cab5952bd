"""Who owns a shard: the store decides, and whoever waits watches the owner's beat."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from random import Random

from hftpipe.config import WorkerLimits
from hftpipe.core.commit import Commit
from hftpipe.core.entry import EntryId
from hftpipe.errors import Fenced, PassingFault
from hftpipe.event import Event
from hftpipe.ports import Clock, LogReader, Ownership, Store


class Witness:
    """Sees what the workers of a process do; this one looks away. It is called within their work: it must not wait."""

    def owned(self, shard: int) -> None:
        """A worker has become a shard's owner."""

    def read(self, shard: int, entries: int) -> None:
        """A read of the log has come back, perhaps with nothing."""

    def committing(self, shard: int) -> None:
        """A commit begins."""

    def committed(self, shard: int, commit: Commit) -> None:
        """It is on disk."""

    def faulted(self, shard: int, wait_ms: int) -> None:
        """A passing fault; what failed is tried again after so long."""


@dataclass(frozen=True, slots=True)
class World:
    """What a worker needs from outside.

    owner: this worker, as no other in the world is named.
    is_dead: whether the named owner's process is known to be gone.
    stopping: whether the process was told to stop.
    report: takes one line for people.
    reach: called with the name of each step that a fault may be planted at.
    witness: sees what is done, for whoever measures it.
    """

    clock: Clock
    owner: str
    is_dead: Callable[[str], bool]
    stopping: Callable[[], bool]
    report: Callable[[str], None]
    random: Random
    reach: Callable[[str], None] = lambda _: None
    witness: Witness = Witness()  # noqa: RUF009 - it has no state


class Turn:
    """One worker's turn at a shard; it remembers the epoch that it held."""

    def __init__(
        self, shard: int, *, log: LogReader, world: World, limits: WorkerLimits, until_idle: bool
    ) -> None:
        self._shard = shard
        self._log = log
        self._world = world
        self._limits = limits
        self._until_idle = until_idle
        self._epoch: int | None = None

    def own(self, store: Store) -> int | None:
        """Becomes the shard's owner, waiting as a standby while another is; returns the epoch; None when not needed.

        Raises Fenced when another worker took over what was owned here.
        """
        clock, seen = self._world.clock, store.ownership()
        since_ms, waiting = clock.monotonic_ms(), False
        while not self._world.stopping():
            if self._is_mine(seen):
                return self._epoch
            if self._may_take(seen, clock.monotonic_ms() - since_ms):
                self._epoch = store.take(self._world.owner, seen)
                if self._epoch is not None:
                    self._world.witness.owned(self._shard)
                    return self._epoch
            elif self._until_idle and is_drained(self._log, store.checkpoint().id):
                return None
            else:
                waiting = self._stand_by(seen, announced=waiting)
            if (now := store.ownership()) != seen:
                seen, since_ms = now, clock.monotonic_ms()
        return None

    def _is_mine(self, seen: Ownership) -> bool:
        if seen.owner == self._world.owner:
            self._epoch = seen.epoch  # also when the answer to `take` was lost
            return True
        if self._epoch not in {None, seen.epoch}:  # equal: our own release was written, and its answer lost
            raise Fenced(f"shard {self._shard} was taken over by {seen.owner or 'another worker'}")
        return False

    def _may_take(self, seen: Ownership, unmoved_ms: int) -> bool:
        return not seen.owner or unmoved_ms >= self._limits.lease_ms or self._world.is_dead(seen.owner)

    def _stand_by(self, seen: Ownership, *, announced: bool) -> bool:
        if not announced:
            told = f"shard {self._shard}: standing by: owned by {seen.owner}"
            self._world.report(Event("standing_by", told, shard=self._shard, owner=seen.owner))
        with suppress(PassingFault):  # the store decides who owns; the log need not be there for that
            self._log.announce("standby")
        self._world.clock.sleep_ms(self._limits.standby_poll_ms)
        return True


def is_drained(log: LogReader, checkpoint: EntryId) -> bool:
    """Whether everything that was appended has been applied."""
    return (last := log.extent().last) is None or last <= checkpoint
