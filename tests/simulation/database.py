"""A shard's database as its clients meet it: busy, full, locked by a stalled process, in doubt."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from hftpipe.core.commit import Checkpoint, Commit
from hftpipe.core.entry import EntryId
from hftpipe.core.ledger import Facts, Needs
from hftpipe.errors import Fenced, StoreUnavailable
from hftpipe.ports import Ownership
from hftpipe.store.memory import MemoryStore
from tests.simulation.scheduler import Actor, Scheduler
from tests.simulation.settings import Faults

T = TypeVar("T")


@dataclass(slots=True)
class Database:
    """One shard's database file. `locked_by` is inside a transaction. `epochs`: the last one of each owner.

    committed: called after each commit took effect. broke: takes a violation. hit: takes the name of a situation
    that has occurred.
    """

    store: MemoryStore
    scheduler: Scheduler
    faults: Faults
    hit: Callable[[str], None]
    broke: Callable[[str], None]
    committed: Callable[[Commit], None]
    busy_until_ms: int = 0
    locked_by: Actor | None = None
    epochs: dict[str, int] = field(default_factory=dict)

    def fails(self, likelihood: float) -> bool:
        """Whether a fault happens now."""
        return likelihood > 0 and self.scheduler.random.random() < likelihood


class SimulatedStore:
    """The store as one process has it open."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._real = database.store
        database.scheduler.step("open store")
        if database.fails(database.faults.store_fails):
            raise StoreUnavailable("the database cannot be opened")

    def identity(self) -> tuple[str, int, int]:
        return self._real.identity()

    def close(self) -> None:
        self._database.scheduler.step("close store")

    def ownership(self) -> Ownership:
        return self._read("ownership", self._real.ownership)

    def checkpoint(self) -> Checkpoint:
        return self._read("checkpoint", self._real.checkpoint)

    def facts(self, needs: Needs) -> Facts:
        return self._read("facts", lambda: self._real.facts(needs))

    def positions(self, sources: set[str]) -> dict[str, int]:
        return self._read("positions", lambda: self._real.positions(sources))

    def anchors(self, below: int, count: int) -> list[tuple[int, EntryId, str]]:
        # Few at a time, so that the search for a shared entry has to turn pages.
        return self._read(f"anchors below {below}", lambda: self._real.anchors(below, min(count, 3)))

    def take(self, owner: str, seen: Ownership) -> int | None:
        epoch = self._write("take", lambda: self._take(owner, seen))
        if epoch is not None and "stood by" in self._database.scheduler.current.notes:
            self._database.hit("stood by and took over")
        return epoch

    def _take(self, owner: str, seen: Ownership) -> int | None:
        epoch = self._real.take(owner, seen)
        if epoch is not None:
            self._database.epochs[owner] = epoch
        return epoch

    def beat(self, epoch: int) -> None:
        self._write("beat", lambda: self._real.beat(epoch))

    def release(self, epoch: int, stopped: str = "") -> None:
        self._write("release", lambda: self._real.release(epoch, stopped))

    def rewind(self, epoch: int, entry_id: EntryId, digest: str) -> None:
        self._write(f"rewind to {entry_id}", lambda: self._real.rewind(epoch, entry_id, digest))
        self._database.hit("checkpoint went back")

    def commit(self, epoch: int, commit: Commit) -> None:
        database = self._database
        self._write(f"commit up to {commit.after.id}", lambda: self._commit(epoch, commit))
        database.scheduler.step("committed")

    def _commit(self, epoch: int, commit: Commit) -> None:
        database = self._database
        is_stale = self._real.ownership().epoch != epoch
        database.locked_by = database.scheduler.current
        try:
            self._real.commit(epoch, commit)
        except Fenced:
            database.hit("zombie fenced at commit")
            raise
        finally:
            database.locked_by = None
        if is_stale:
            database.broke(f"I5: epoch {epoch} changed rows after it was over")
        database.committed(commit)

    def _read(self, label: str, effect: Callable[[], T]) -> T:
        self._database.scheduler.step(label)
        if self._database.fails(self._database.faults.store_fails / 2):
            raise StoreUnavailable("disk I/O error")
        return effect()

    def _write(self, label: str, effect: Callable[[], T]) -> T:
        """One transaction: refused, done, or in doubt."""
        database, scheduler = self._database, self._database.scheduler
        scheduler.step(label)
        if database.busy_until_ms > scheduler.now_ms or database.locked_by is not None:
            database.hit(
                "database busy" if database.locked_by is None else "database locked by another process"
            )
            raise StoreUnavailable("database is locked")
        if database.fails(database.faults.store_fails):
            database.hit(f"{label.split(maxsplit=1)[0]} failed, nothing written")
            raise StoreUnavailable("database or disk is full")
        result = effect()
        if database.fails(database.faults.store_in_doubt):
            database.hit(f"{label.split(maxsplit=1)[0]} in doubt but written")
            raise StoreUnavailable("disk I/O error at COMMIT")
        return result
