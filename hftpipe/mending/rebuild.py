"""A damaged database made anew from its own journal: nothing is given up, and the old file is kept.

The journal is decided once more by the real ledger, and must come to the same records, hash for hash. The new file is
whole and durable before it takes the place of the old one; what is killed in between is finished by the next attempt.
"""

import os
import secrets
import shutil
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from hftpipe.audit.journal import Journal
from hftpipe.audit.recount import recount
from hftpipe.audit.scratch import Scratch
from hftpipe.core.columnar_ledger import ColumnarLedger
from hftpipe.core.commit import REBUILT, Decision
from hftpipe.core.entry import Entry, EntryId, Foreign, origin
from hftpipe.core.journal import Record, follows
from hftpipe.errors import Fenced, JournalDamaged, MendingRefused, StoreDamaged, StoreUnavailable
from hftpipe.mending.repair import taken_over
from hftpipe.store.creation import settling
from hftpipe.store.reading import summarise
from hftpipe.store.sqlite import BUSY_TIMEOUT_MS, one_row, shard_path, translated

_FOLDS_MAX: Final = 5
_WAIT_SHORT: Final = "PRAGMA busy_timeout=100"
"""For those who read the old file, each time."""
_WAIT_LONG: Final = f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}"
_LAST: Final = "SELECT ifnull(max(number), 0) FROM entries"
_DECISIONS: Final = "SELECT * FROM decisions ORDER BY number"
_ADD_DECISION: Final = "INSERT INTO decisions VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_SET: Final = "UPDATE shard SET incarnation = ?, owner = '', stopped = '', beat = beat + 1"
_EPOCH: Final = "SELECT epoch FROM shard"
_RAISE: Final = "UPDATE shard SET epoch = max(epoch, ?)"


@dataclass(frozen=True, slots=True)
class Rebuilding:
    """A shard's database that is to be made anew.

    identity: pipeline id, shard and number of shards that it must say.
    who: user and host. now_ms: Unix time. reach: called with the name of each step that a fault may be planted at.
    tell: takes how many records were counted, and of how many.
    """

    home: Path
    identity: tuple[str, int, int]
    who: str
    now_ms: Callable[[], int]
    reach: Callable[[str], None] = lambda _: None
    tell: Callable[[int, int], None] = lambda *_: None

    @property
    def path(self) -> Path:
        """Of the database."""
        return shard_path(self.home, self.identity[1])

    @property
    def finished(self) -> Path:
        """Where the new one waits, whole, to take its place."""
        return self.path.with_name(f"{self.path.name}.rebuilt")


@dataclass(frozen=True, slots=True)
class Fence:
    """What keeps workers from the old database.

    epoch: one that nobody has had before. beat: called now and then, shows that the owner lives; None where the old
    database is too damaged to be held. It raises Fenced when a worker has taken it over.
    """

    epoch: int
    beat: Callable[[], None] | None = None

    def keep(self) -> None:
        """Raises Fenced when it was lost."""
        if self.beat is not None:
            self.beat()


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What came of it: under which name the old file is kept (None when it was gone), and how many records it has."""

    kept: Path | None
    records: int


def rebuild(rebuilding: Rebuilding, fence: Fence) -> Rebuilt:
    """Makes a database anew that nobody works on.

    Raises MendingRefused, with nothing changed, when the journal is not whole, or a worker has gone on meanwhile.
    """
    try:
        with translated(rebuilding.path):
            if not _is_finished(rebuilding):
                _make(rebuilding, fence)
        _raise_epoch(rebuilding.finished, fence.epoch)
        rebuilding.reach("rebuild.verified")
        kept = _swap(rebuilding, fence)
    except Fenced:
        raise taken_over(rebuilding.identity[1]) from None
    rebuilding.reach("rebuild.swapped")
    return Rebuilt(kept, summarise(rebuilding.path).checkpoint.number)


def _is_finished(rebuilding: Rebuilding) -> bool:
    """Whether a former attempt has left a new database that holds all that the old one does."""
    finished = rebuilding.finished
    if not finished.exists():
        return False
    try:
        if not rebuilding.path.exists():
            return True
        with Journal(rebuilding.path, *rebuilding.identity[1:]) as journal:
            is_whole = _last(journal) <= summarise(finished).checkpoint.number
    except (StoreDamaged, StoreUnavailable):
        is_whole = False
    if not is_whole:
        finished.unlink()
    return is_whole


def _make(rebuilding: Rebuilding, fence: Fence) -> None:
    """Writes the new database whole, and durably, beside the old one."""
    _, shard, shards = rebuilding.identity
    folder = rebuilding.home / f"rebuild-{shard:04}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    try:
        with Journal(rebuilding.path, shard, shards) as journal:
            records = _last(journal)
            if journal.checkpoint.number > records:
                raise _broken(
                    shard,
                    f"its checkpoint stands at record {journal.checkpoint.number}, and the last is {records}",
                )
            walk = _Walk(journal, records)
            with Scratch(folder, rebuilding.identity, walk.generation, journal=True) as scratch:
                ledger = ColumnarLedger(seed=secrets.randbits(64))
                for commit in recount(scratch, walk.entries(), ledger):
                    fence.keep()
                    walk.compare(shard, commit.records)
                    rebuilding.tell(commit.after.number, records)
                path = scratch.path
            _finish(rebuilding, path, journal, max(walk.jumps, journal.checkpoint.incarnation))
            fence.keep()
        path.rename(rebuilding.finished)
        _sync(rebuilding.home)
    except JournalDamaged as damage:
        raise _broken(shard, f"record {damage.number} {damage.problem}") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Walk:
    """The records of a journal on their way through the ledger."""

    def __init__(self, journal: Journal, records: int) -> None:
        self._journal = journal
        self._records = records
        self._said: deque[Record] = deque()
        self._before: EntryId = origin(journal.checkpoint.id.generation)
        self.generation = self._before.generation
        self.jumps = 0

    def entries(self) -> Iterator[Entry | Foreign]:
        """Raises JournalDamaged."""
        for page in self._journal.read(1, self._records):
            for recorded in page:
                self.jumps += not follows(recorded.record, self._before)
                self._before = recorded.record.id
                self._said.append(recorded.record)
                yield recorded.entry

    def compare(self, shard: int, records: Iterable[Record]) -> None:
        """Raises MendingRefused where the ledger does not come to what the journal says."""
        for again in records:
            said = self._said.popleft()
            if said != again:
                what = "its hash is another" if said.outcomes == again.outcomes else "its outcomes are others"
                raise _broken(
                    shard, f"record {said.number} ({said.id}) is not what the ledger makes of it: {what}"
                )


def _broken(shard: int, what: str) -> MendingRefused:
    return MendingRefused(
        f"the journal of shard {shard} is not whole, and nothing can be made of it: {what}. `hftpipe verify --shard "
        f"{shard}` shows all that differs. Restore the database from a copy; or, if the log still begins with its "
        "first entry, move it away with its -wal: it is then made anew from the log"
    )


def _last(journal: Journal) -> int:
    (number,) = one_row(journal.connection, _LAST)
    return int(number)


def _finish(rebuilding: Rebuilding, path: Path, journal: Journal, incarnation: int) -> None:
    """All that does not follow from the journal; then everything is on disk."""
    with settling(path) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(_SET, (incarnation,))
        decisions = _decisions(journal)
        connection.executemany(_ADD_DECISION, decisions)
        decision = Decision(rebuilding.now_ms(), REBUILT, "", 0, rebuilding.who, "made anew from its journal")
        number = max((int(row[0]) for row in decisions), default=0) + 1
        connection.execute(_ADD_DECISION, (number, *astuple(decision), 0))
        connection.execute("COMMIT")
        (told,) = connection.execute("PRAGMA integrity_check").fetchone()
        if told != "ok":
            raise StoreDamaged(f"{path}, which was made just now, is damaged: {told}. See to the disk")


def _raise_epoch(path: Path, epoch: int) -> None:
    """Whatever epoch the old file had, the new one's is no lower."""
    with settling(path) as connection:
        connection.execute(_RAISE, (epoch,))


def _decisions(journal: Journal) -> list[Any]:
    """As far as they can still be read: they are what only people know."""
    with suppress(sqlite3.Error):
        return journal.connection.execute(_DECISIONS).fetchall()
    return []


# --- taking its place ---------------------------------------------------------------------------------------------


def _swap(rebuilding: Rebuilding, fence: Fence) -> Path | None:
    """Puts the new file in place of the old one, which gets another name; that, or None when it was gone.

    Raises Fenced, MendingRefused, StoreUnavailable.
    """
    path, kept = rebuilding.path, None
    with _held_still(path) as old:
        if old is not None:
            _require_unmoved(rebuilding, fence, old)
            moment = datetime.fromtimestamp(rebuilding.now_ms() / 1000, UTC)
            kept = path.with_name(f"{path.name}.damaged-{moment:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}")
            kept.hardlink_to(path)
            _keep(_beside(path, "-wal"), _beside(kept, "-wal"))
            _sync(rebuilding.home)
        rebuilding.reach("rebuild.kept")
        # SQLite would take the write-ahead log of the old file, and what others have mapped of it, for the new one's.
        _beside(path, "-wal").unlink(missing_ok=True)
        _beside(path, "-shm").unlink(missing_ok=True)
        rebuilding.finished.replace(path)
        for ending in ("-wal", "-shm"):
            _beside(rebuilding.finished, ending).unlink(missing_ok=True)
        _sync(rebuilding.home)
    return kept


def _require_unmoved(rebuilding: Rebuilding, fence: Fence, old: sqlite3.Connection) -> None:
    """That nobody has the old database in hand, or has committed to it since the new one was made of it."""
    with suppress(StoreDamaged), translated(rebuilding.path):
        if one_row(old, _LAST)[0] > summarise(rebuilding.finished).checkpoint.number:
            raise MendingRefused(
                f"{rebuilding.path}: a worker has gone on with it meanwhile. Stop it, and run the command again"
            )
        if fence.beat is not None and one_row(old, _EPOCH)[0] != fence.epoch:
            raise taken_over(rebuilding.identity[1])


@contextmanager
def _held_still(path: Path) -> Iterator[sqlite3.Connection | None]:
    """Nobody writes into the old file meanwhile, as far as it can be locked, and its log is folded in if it can be.

    Yields a connection to it, None when it is gone. Raises StoreUnavailable when somebody is writing.
    """
    if not path.exists():
        yield None
        return
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        with suppress(StoreDamaged), translated(path):  # damaged: then it is kept as it is, with its log
            for attempt in range(_FOLDS_MAX):
                connection.execute(_WAIT_SHORT)
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                connection.execute(_WAIT_LONG)
                connection.execute("BEGIN IMMEDIATE")
                if attempt == _FOLDS_MAX - 1 or not _size(_beside(path, "-wal")):
                    break
                connection.execute("ROLLBACK")
        yield connection
    finally:
        # SQLite sees that its file was moved, and touches neither log nor index of the one that has its name now.
        connection.close()


def _keep(path: Path, kept: Path) -> None:
    """A durable copy, of what is no more than a few commits."""
    if path.exists() and _size(path):
        shutil.copyfile(path, kept)
        kept.chmod(0o600)
        _sync(kept)


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(f"{path.name}{ending}")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
