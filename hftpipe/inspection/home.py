"""The stores of a home, as far as they are there."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from hftpipe.core.entry import EntryId
from hftpipe.errors import StoreDamaged, StoreUnavailable
from hftpipe.store.inspecting import ShardInspector, inspecting
from hftpipe.store.reading import store_paths, summarise

Fault: TypeAlias = StoreDamaged | StoreUnavailable
"""Why a shard cannot be looked at."""


@dataclass(frozen=True, slots=True)
class Home:
    """Which shards have a store, and how many shards the pipeline has; pipeline is empty when no store could say."""

    folder: Path
    pipeline: str
    shards: int
    paths: dict[int, Path]

    @contextmanager
    def inspecting(self, shard: int) -> Iterator[ShardInspector]:
        """One shard's store of this moment. Raises as `store.inspecting`."""
        with inspecting(self.paths[shard], shard, self.shards) as inspector:
            yield inspector

    def checkpoint(self, shard: int) -> EntryId | None:
        """The last entry that a shard has applied; None without a store. Raises StoreUnavailable, StoreDamaged."""
        return summarise(self.paths[shard]).checkpoint.id if shard in self.paths else None


def home_at(folder: Path) -> Home | None:
    """What is there; None when there is no store. Raises StoreDamaged, StoreUnavailable when none can be read."""
    paths = {int(path.stem.removeprefix("shard-")): path for path in store_paths(folder)}
    fault: Fault | None = None
    for path in paths.values():
        try:
            summary = summarise(path)
        except (StoreDamaged, StoreUnavailable) as error:
            fault = error  # a damaged one stops its own shard, and no other
        else:
            return Home(folder, summary.pipeline, summary.shards, paths)
    if fault is not None:
        raise fault
    return None
