"""What the page of the service shows beside transactions, and what an operator decides there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Letters:
    """Dead letters that are not decided.

    letters: the first, as dataclasses. has_more: whether there are others. faults: why shards were left out.
    """

    letters: Sequence[object]
    has_more: bool
    faults: Mapping[int, str]


class Console(Protocol):
    """Asked from any thread; each call may take some time.

    Methods raise PassingFault and ShardStopped where a store or the log cannot be asked, unless they say otherwise.
    """

    def overview(self) -> Mapping[str, object]:
        """How the pipeline stands, as orjson writes it; asked for often, looked at once a second."""

    def recent(self) -> object:
        """How it stood in the last minutes, as a dataclass of columns: what was seen by `overview`. At once."""

    def dead_letters(self) -> Letters:
        """Those that are not decided, of all shards that can be read."""

    def retry(self, shard: int, entry: str, who: str) -> str:
        """Appends a dead letter again; returns its address. Raises MendingRefused with the reason."""

    def drop(self, shard: int, entry: str, who: str) -> None:
        """Gives a dead letter up. Raises MendingRefused with the reason."""
