"""A shard's store that is only there to be counted into: real, in a folder of its own, and not durable."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from hftpipe.core.commit import Checkpoint, Commit
from hftpipe.core.entry import FORMAT
from hftpipe.core.ledger import Facts, Needs
from hftpipe.errors import ScratchUnavailable, StoreUnavailable
from hftpipe.ports import Topology
from hftpipe.store.creation import create
from hftpipe.store.sqlite import SCRATCH_SETTINGS, SqliteStore, shard_path

_OWNER = "replay"


@contextmanager
def scratch_folder(prefix: str) -> Iterator[Path]:
    """A folder for scratch files, where the system has such, until it is left. Raises ScratchUnavailable."""
    try:
        folder = TemporaryDirectory(prefix=prefix)
    except OSError as error:
        raise ScratchUnavailable(
            f"no folder for scratch stores can be made: {error}. Set TMPDIR to one that can be written"
        ) from error
    with folder as name:
        yield Path(name)


@contextmanager
def room_in(folder: Path) -> Iterator[None]:
    """What cannot be written there raises ScratchUnavailable: else it would look like a fault of what is audited."""
    try:
        yield
    except (StoreUnavailable, OSError) as error:
        raise ScratchUnavailable(
            f"no room for scratch stores in {folder}: {error}. Make some, or set TMPDIR to a larger folder"
        ) from error


class Scratch:
    """See `recount.Books` for what it does. Methods raise ScratchUnavailable."""

    def __init__(
        self, folder: Path, identity: tuple[str, int, int], generation: int, *, journal: bool
    ) -> None:
        """folder: where the file is made, named as in a home. identity: as `Store.identity` gives it.

        journal: whether it keeps the journal, too; without it the file is half as large.
        """
        pipeline, shard, shards = identity
        self.path = shard_path(folder, shard)
        self._folder = folder
        self._journal = journal
        with room_in(folder):
            create(self.path, Topology(pipeline, shards, generation, FORMAT), shard)
            self._store = SqliteStore(self.path, settings=SCRATCH_SETTINGS)
            self._epoch = self._store.take(_OWNER, self._store.ownership()) or 0

    def close(self) -> None:
        """Lets go of the file, so that others can read it."""
        try:
            with room_in(self._folder):
                self._store.release(self._epoch)
        finally:
            self._store.close()

    def __enter__(self) -> "Scratch":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        else:  # it may be in pieces: a second error would hide the first
            self._store.close()

    def checkpoint(self) -> Checkpoint:
        with room_in(self._folder):
            return self._store.checkpoint()

    def facts(self, needs: Needs) -> Facts:
        with room_in(self._folder):
            return self._store.facts(needs)

    def positions(self, sources: set[str]) -> dict[str, int]:
        with room_in(self._folder):
            return self._store.positions(sources)

    def commit(self, commit: Commit) -> None:
        with room_in(self._folder):
            self._store.commit(self._epoch, commit if self._journal else _without_journal(commit))


def _without_journal(commit: Commit) -> Commit:
    """The commit with those records alone that dead letters are numbered by."""
    dead = {(foreign.id, foreign.digest) for foreign in commit.dead}
    return replace(
        commit, records=[record for record in commit.records if (record.id, record.digest) in dead]
    )
