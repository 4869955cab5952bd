"""Which part of which shards is asked for, and where it is read."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from hftpipe.core.entry import EntryId
from hftpipe.errors import UsageError
from hftpipe.moments import Address, Instant, Moment


class Origin(StrEnum):
    """Where a replay takes entries from: the journal and behind it the log, or one of them alone."""

    AUTO = "auto"
    JOURNAL = "journal"
    LOG = "log"


@dataclass(frozen=True, slots=True)
class Window:
    """The part of a shard that is asked for; None where it has no bound.

    first: the entry from which on is reported; what lies before is decided all the same. last: the last entry.
    until_ms: instead of `last`, the last entry that was appended at or before that time, Unix ms.
    """

    first: EntryId | None = None
    last: EntryId | None = None
    until_ms: int | None = None

    @property
    def reaches_on(self) -> bool:
        """Whether it may end behind what was applied; else it ends there."""
        return self.last is not None or self.until_ms is not None


def window_of(
    chosen: Sequence[int], first: Address | None, last: Address | None, until: Moment | None
) -> tuple[Sequence[int], Window]:
    """The shards, none for all, and the part of each, that a person's words mean.

    An address belongs to one shard: to that which it names, or to the only one that is chosen. Raises UsageError.
    """
    if last is not None and until is not None:
        raise UsageError("--to and --until both say where it ends. Give one of them")
    end = until if last is None else last
    addresses = [address for address in (first, end) if isinstance(address, Address)]
    shards = {address.shard for address in addresses if address.shard is not None} or set(chosen)
    if addresses and (len(shards) != 1 or (chosen and not shards & set(chosen))):
        raise UsageError(
            f"{addresses[0]} is the address of an entry in one shard. Say which, and only one: --shard 3, or 3/1-1042"
        )
    last_id = end.entry if isinstance(end, Address) else None
    until_ms = end.time_ms if isinstance(end, Instant) else None
    window = Window(None if first is None else first.entry, last_id, until_ms)
    if window.first is not None and last_id is not None and window.first > last_id:
        raise UsageError(f"{first} comes after {end}: there is nothing between them")
    return sorted(shards), window
