"""The tree of what can go wrong. Each message says what was tried, on what, and what to do next.

Refusals of single transactions are values (`validation.Invalid`, `core.ledger.Refusal`), never exceptions.
"""

from collections.abc import Collection
from typing import ClassVar


class HftpipeError(Exception):
    """Anything the program itself reports; `exit_code` is the status of the command that meets it."""

    exit_code: ClassVar[int] = 1


class UsageError(HftpipeError):
    """What was asked cannot be done as asked; nothing was changed."""

    exit_code = 2


class SourceRefused(UsageError):
    """A source cannot be read as a whole (not a file, no header, changed since it was last ingested)."""


class PipelineMismatch(UsageError):
    """The log, the store and the settings do not belong together (pipeline id, number of shards, format)."""


class ServerRefused(UsageError):
    """The server's version or settings would lose acknowledged transactions."""


class MendingRefused(HftpipeError):
    """A dead letter or a shard cannot be mended as asked; nothing was changed, and the message says why."""


class NotThere(HftpipeError):
    """What was asked about is in no journal, and was not found in the log."""


class SourceBroken(HftpipeError):
    """A source broke off while it was read; the rows before are kept and it can be resumed."""


class Interrupted(HftpipeError):
    """The process was told to stop while it waited for something outside."""


class PassingFault(HftpipeError):
    """Something outside that may heal by itself; the caller waits and tries again."""


class LogUnavailable(PassingFault):
    """The log cannot be reached, or refuses writes for now (out of memory, disk full, still loading)."""


class StoreUnavailable(PassingFault):
    """The database cannot be written for now (busy, disk full, I/O error)."""


class ScratchUnavailable(HftpipeError):
    """There is no room for what is counted anew, or it cannot be written; nothing is wrong with what is audited."""


class TailLost(HftpipeError):
    """Entries that were confirmed to this producer are no longer in the log, in these shards."""

    def __init__(self, message: str, shards: Collection[int]) -> None:
        super().__init__(message)
        self.shards = shards


class Fenced(HftpipeError):
    """Another worker owns the shard now; nothing of this one's was written."""

    exit_code = 4


class ShardStopped(HftpipeError):
    """A shard cannot go on without a person's decision; the other shards do."""


class LogGap(ShardStopped):
    """Entries that were appended are missing from the log."""


class EntryDamaged(ShardStopped):
    """An entry of our own making does not match its digest."""


class LogEmptied(ShardStopped):
    """The log holds nothing of what was applied from it."""


class LogForeign(ShardStopped):
    """The log belongs to another pipeline than the store, or to none."""


class StoreDamaged(ShardStopped):
    """The shard's database is damaged or was not made by this program."""


class JournalDamaged(StoreDamaged):
    """A record of a shard's journal is not what was once written there."""

    def __init__(self, shard: int, number: int, problem: str) -> None:
        super().__init__(
            f"journal record {number} of shard {shard} {problem}. `hftpipe verify --shard {shard}` shows all that "
            "differs; restore the database from a copy"
        )
        self.number = number
        self.problem = problem
