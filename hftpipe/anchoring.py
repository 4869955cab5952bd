"""Where log and journal agree: what a worker holds on to when it attaches."""

from typing import Final

from hftpipe.core.commit import Checkpoint
from hftpipe.core.entry import EntryId, digest_of
from hftpipe.errors import LogEmptied, LogGap
from hftpipe.ports import Extent, LogReader, Store

_PAGE: Final = 256
"""Journal records looked at in one go."""


def holds(log: LogReader, entry_id: EntryId, digest: str) -> bool:
    """Whether the log still holds that very entry."""
    found = log.range(entry_id, entry_id, 1)
    return bool(found) and digest_of(found[0].fields) == digest


def newest_shared(log: LogReader, store: Store, shard: int, checkpoint: Checkpoint) -> tuple[EntryId, str]:
    """The newest entry, and its digest, that journal and log have in common, looking back from the checkpoint.

    Raises LogGap when the log begins behind the checkpoint, LogEmptied when nothing is shared.
    """
    extent = log.extent()
    if extent.first is not None and extent.first > checkpoint.id:
        raise LogGap(
            f"entries {shard}/{checkpoint.id.moved(1)} to {shard}/{extent.first.moved(-1)} are no longer in the "
            "log, and not applied here: the database is older than the log reaches. Restore a newer copy of it"
        )
    below = checkpoint.number + 1
    while extent.first is not None and (anchors := store.anchors(below, _PAGE)):
        for _, entry_id, digest in anchors:
            if entry_id < extent.first:
                raise _emptied(checkpoint, extent)
            if holds(log, entry_id, digest):
                return entry_id, digest
        below = anchors[-1][0]
    raise _emptied(checkpoint, extent)


def _emptied(checkpoint: Checkpoint, extent: Extent) -> LogEmptied:
    there = "no entry" if extent.first is None else f"{extent.first} to {extent.last}"
    return LogEmptied(
        f"entry {checkpoint.id} was applied, but the log holds nothing of what was applied (it holds "
        f"{there}). Restore the server's append-only file"
    )
