"""A shard's store that is only there to be counted into: real, in a folder of its own, and not durable."""

from dataclasses import replace
from pathlib import Path

from hftpipe.core.commit import Checkpoint, Commit
from hftpipe.core.entry import FORMAT
from hftpipe.core.ledger import Facts, Needs
from hftpipe.ports import Topology
from hftpipe.store.creation import create
from hftpipe.store.sqlite import SCRATCH_SETTINGS, SqliteStore, shard_path

_OWNER = "replay"


class Scratch:
    """See `recount.Books` for what it does."""

    def __init__(
        self, folder: Path, identity: tuple[str, int, int], generation: int, *, journal: bool
    ) -> None:
        """folder: where the file is made, named as in a home. identity: as `Store.identity` gives it.

        journal: whether it keeps the journal, too; without it the file is half as large.
        """
        pipeline, shard, shards = identity
        self.path = shard_path(folder, shard)
        create(self.path, Topology(pipeline, shards, generation, FORMAT), shard)
        self._store = SqliteStore(self.path, settings=SCRATCH_SETTINGS)
        self._epoch = self._store.take(_OWNER, self._store.ownership()) or 0
        self._journal = journal

    def close(self) -> None:
        """Lets go of the file, so that others can read it."""
        self._store.release(self._epoch)
        self._store.close()

    def __enter__(self) -> "Scratch":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def checkpoint(self) -> Checkpoint:
        return self._store.checkpoint()

    def facts(self, needs: Needs) -> Facts:
        return self._store.facts(needs)

    def positions(self, sources: set[str]) -> dict[str, int]:
        return self._store.positions(sources)

    def commit(self, commit: Commit) -> None:
        self._store.commit(self._epoch, commit if self._journal else _without_journal(commit))


def _without_journal(commit: Commit) -> Commit:
    """The commit with those records alone that dead letters are numbered by."""
    dead = {(foreign.id, foreign.digest) for foreign in commit.dead}
    return replace(
        commit, records=[record for record in commit.records if (record.id, record.digest) in dead]
    )
