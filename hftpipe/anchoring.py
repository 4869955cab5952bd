"""Where log and journal agree: what a worker holds on to when it attaches."""

from typing import Final

from hftpipe.core.commit import Checkpoint
from hftpipe.core.entry import EntryId, digest_of
from hftpipe.errors import LogEmptied, LogGap
from hftpipe.ports import Extent, LogView, Store

_PAGE: Final = 256
"""Journal records looked at in one go."""


def holds(log: LogView, entry_id: EntryId, digest: str) -> bool:
    """Whether the log still holds that very entry; without a digest, whether it goes on behind a loss that ends there.

    A loss was accepted: the log has given that id, and holds no entry under it, nor anything that came instead.
    """
    if not digest:
        return entry_id.sequence >= 0 and _goes_on_behind(log, entry_id)
    found = log.range(entry_id, entry_id, 1)
    return bool(found) and digest_of(found[0].fields) == digest


def _goes_on_behind(log: LogView, lost: EntryId) -> bool:
    extent = log.extent()
    if extent.last is None or extent.last < lost or log.range(lost, lost, 1):
        return False
    # An empty log shows by the id that it gives next that it is the one which was repaired.
    return extent.last == lost if extent.first is None else extent.first <= lost.moved(1)


def newest_shared(log: LogView, store: Store, shard: int, checkpoint: Checkpoint) -> tuple[EntryId, str]:
    """The newest entry, and its digest, that journal and log have in common, looking back from the checkpoint.

    Raises LogGap when the log begins behind the checkpoint, LogEmptied when nothing is shared.
    """
    extent = log.extent()
    if extent.first is not None and extent.first > checkpoint.id.moved(1):
        raise LogGap(
            f"entries {shard}/{checkpoint.id.moved(1)} to {shard}/{extent.first.moved(-1)} are no longer in the "
            "log, and not applied here: the database is older than the log reaches. Restore a newer copy of it; if "
            f"there is none, {repair(shard)}"
        )
    lowest = extent.last if extent.first is None else extent.first
    below = checkpoint.number + 1
    while lowest is not None and (anchors := store.anchors(below, _PAGE)):
        for _, entry_id, digest in anchors:
            if (not digest or extent.first is not None) and holds(log, entry_id, digest):
                return entry_id, digest
            if entry_id < lowest:
                raise _emptied(shard, checkpoint, extent)
        below = anchors[-1][0]
    raise _emptied(shard, checkpoint, extent)


def repair(shard: int) -> str:
    """What accepts a loss, for the end of a message."""
    return f"`hftpipe repair --shard {shard}` shows what would be given up"


def _emptied(shard: int, checkpoint: Checkpoint, extent: Extent) -> LogEmptied:
    there = "no entry" if extent.first is None else f"{extent.first} to {extent.last}"
    return LogEmptied(
        f"entry {checkpoint.id} was applied, but the log holds nothing of what was applied (it holds "
        f"{there}). Restore the server's append-only file; if that is gone, {repair(shard)}"
    )
