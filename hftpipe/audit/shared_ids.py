"""Which transaction ids were taken in more than one shard: no shard sees that by itself.

Each shard's ids go to files by their remainder, so that equal ids meet in files that fit into memory, however many
there are.
"""

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from hftpipe.audit.parallel import Progress, Tell
from hftpipe.audit.scratch import room_in
from hftpipe.core.taken import Taken
from hftpipe.core.transaction import Column

IDS_PER_PART: Final = 4_000_000
PARTS_MAX: Final = 256

SHOWN_MAX: Final = 100


def parts_for(ids: int) -> int:
    """Into how many parts so many ids go. ids: as stores tell, whose totals may be damaged."""
    return max(1, min(ids // IDS_PER_PART + 1, PARTS_MAX))


class IdFiles:
    """Writes one shard's ids. Raises ScratchUnavailable."""

    def __init__(self, folder: Path, shard: int, parts: int) -> None:
        self._folder = folder
        with room_in(folder), ExitStack() as opened:
            self._files = [
                opened.enter_context(_path(folder, part, shard).open("wb")) for part in range(parts)
            ]
            self._opened = opened.pop_all()

    def add(self, taken: Iterable[Taken]) -> None:
        """Adds what some records have taken."""
        columns = [each.txs for each in taken]
        if not columns:
            return
        txs = np.concatenate(columns)
        parts = txs % len(self._files)
        with room_in(self._folder):
            for part, file in enumerate(self._files):
                file.write(txs[parts == part].tobytes())

    def close(self) -> None:
        """Writes out the rest."""
        with room_in(self._folder):
            self._opened.close()


@dataclass(frozen=True, slots=True)
class Shared:
    """Ids of one part that several shards have taken. shown: the first of them, each with its shards."""

    count: int
    shown: list[tuple[int, list[int]]]


@dataclass(frozen=True, slots=True)
class FindShared:
    """Finds the shared ids of a part: a `parallel.Task`, with parts for shards."""

    folder: Path
    shards: tuple[int, ...]

    def __call__(self, shard: int, tell: Tell) -> Shared:
        part = shard
        columns = [_read(_path(self.folder, part, each)) for each in self.shards]
        txs = np.sort(np.concatenate(columns))
        twice = np.unique(txs[1:][txs[1:] == txs[:-1]])
        tell(Progress(part, 0, 0, 0))
        shown = [
            (tx, [each for each, column in zip(self.shards, columns, strict=True) if (column == tx).any()])
            for tx in twice[:SHOWN_MAX].tolist()
        ]
        return Shared(len(twice), shown)


def _path(folder: Path, part: int, shard: int) -> Path:
    return folder / f"ids-{part:03}-{shard:04}.bin"


def _read(path: Path) -> Column:
    return np.fromfile(path, dtype=np.int64) if path.exists() else np.zeros(0, dtype=np.int64)
