"""What a submitter is told: for each row an address in the log, or why there is none."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from hftpipe.core.entry import EntryId
from hftpipe.core.transaction import Column
from hftpipe.errors import HftpipeError


class Status(IntEnum):
    """What became of a valid row."""

    DURABLE = 0
    """It is in the log, on disk."""
    DUPLICATE = 1
    """Its id was sent before with the same content: nothing was appended, the address is that of the first."""
    CONFLICT = 2
    """Its id was sent before with other content: nothing was appended, the address is that of the first."""


@dataclass(frozen=True, slots=True, eq=False)
class Receipts:
    """A row of a submitted batch each, in its order.

    generation: of the entry ids. statuses: values of `Status`. shards, sequences: where the row, or the one that had
    its id first, stands in the log. positions: of the row in this process's source; 0 for rows not appended.
    """

    generation: int
    statuses: NDArray[np.uint8]
    shards: Column
    sequences: Column
    positions: Column

    def __len__(self) -> int:
        return len(self.statuses)

    @property
    def all_durable(self) -> bool:
        """Whether every row was appended."""
        return not self.statuses.any()

    def pick(self, indexes: NDArray[np.intp]) -> "Receipts":
        """Those of some rows."""
        return Receipts(
            self.generation,
            self.statuses[indexes],
            self.shards[indexes],
            self.sequences[indexes],
            self.positions[indexes],
        )

    def entry_id(self, index: int) -> EntryId:
        """The entry that holds a row."""
        return EntryId(self.generation, int(self.sequences[index]))

    def address(self, index: int) -> str:
        """The same with its shard, as people write it: `3/1-1042`."""
        return f"{self.shards[index]}/{self.generation}-{self.sequences[index]}"


class Unacknowledged(HftpipeError):
    """A submission was not acknowledged; to send it again, with the same ids, is always safe.

    in_doubt: it may be, or come, into the log all the same. retry_after_s: when to try again.
    """

    def __init__(self, message: str, *, in_doubt: bool = False, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.in_doubt = in_doubt
        self.retry_after_s = retry_after_s


class BacklogFull(Unacknowledged):
    """A shard has as many entries waiting as it may; nothing was taken."""


class LogAway(Unacknowledged):
    """The log does not take entries for now (away, out of memory, disk full, stopping)."""
