"""How a long export is watched and ended."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from hftpipe.errors import Interrupted

LOOK_STEPS: Final = 100_000
"""Steps of SQLite's machine between two looks at whether to stop: some milliseconds."""


@dataclass(frozen=True, slots=True)
class Telling:
    """begin: takes the number of transactions to come. advance: takes the number of those just read.

    stopping: whether to end. warn: takes a line for people.
    """

    begin: Callable[[int], None]
    advance: Callable[[int], None]
    stopping: Callable[[], bool]
    warn: Callable[[str], None] = lambda _: None

    def check(self) -> None:
        """Raises Interrupted when told to stop."""
        if self.stopping():
            raise Interrupted("stopped before all was read; nothing was changed")
