"""A store that entries are recorded in directly."""

from hftpipe.core.commit import Checkpoint, Commit
from hftpipe.core.ledger import Facts, Needs
from hftpipe.store.sqlite import SqliteStore


class Recording:
    """Owns a store for a while; see `audit.recount.Books`."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self._epoch = store.take("recording", store.ownership()) or 0

    def __enter__(self) -> "Recording":
        return self

    def __exit__(self, *_: object) -> None:
        self._store.release(self._epoch)
        self._store.close()

    def checkpoint(self) -> Checkpoint:
        return self._store.checkpoint()

    def facts(self, needs: Needs) -> Facts:
        return self._store.facts(needs)

    def positions(self, sources: set[str]) -> dict[str, int]:
        return self._store.positions(sources)

    def commit(self, commit: Commit) -> None:
        self._store.commit(self._epoch, commit)
