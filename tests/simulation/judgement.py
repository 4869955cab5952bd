"""What must be true at the end of a run, of all shards and sources together."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from random import Random

from hftpipe.config import WorkerLimits
from hftpipe.core.entry import Entry, RawEntry, decode
from hftpipe.core.snapshot import Snapshot, Tables
from hftpipe.log.memory import MemoryLog
from hftpipe.owning import World
from hftpipe.store.memory import MemoryStore
from hftpipe.worker import ShardWorker
from tests.simulation.oracle import (
    broken_content,
    broken_file,
    broken_outcomes,
    broken_shards,
    decided_rows,
    file_order,
    journal_order,
)
from tests.simulation.world import SimulatedWorld


def broken_end(world: SimulatedWorld, former: list[Snapshot]) -> Iterator[str]:
    """Everything that does not hold when all is drained; `former` is an earlier look."""
    snapshots, texts = world.snapshots, world.texts
    durable = confirmed_rows(world) if world.settings.loses_tail else world.durable
    yield from broken_shards(snapshots, former, durable, texts)
    outcomes = decided_rows(snapshots)
    for file in world.files:
        yield from broken_file(file.name, file.text, outcomes)
    yield from _broken_reports(world)
    # Live processes that were killed leave rows which their successors send again: only the journal has an order.
    is_separate = not world.settings.is_shared and not world.settings.live_sources
    for snapshot in snapshots:
        yield from broken_content(snapshot, texts)
        order = file_order(snapshot, outcomes, texts) if is_separate else journal_order(snapshot)
        yield from broken_outcomes(snapshot, texts, order)


def confirmed_rows(world: SimulatedWorld) -> Mapping[str, set[int]]:
    """Rows of entries that were confirmed to somebody and that the log did not lose since."""
    rows: defaultdict[str, set[int]] = defaultdict(set)
    for confirmed in [confirmed for confirmed in world.server.confirmed if not confirmed.is_lost]:
        entry = decode(RawEntry(confirmed.id, confirmed.fields), confirmed.shard, world.settings.shards)
        assert isinstance(entry, Entry)
        rows[entry.source].update(entry.batch.rows)
    return rows


def _broken_reports(world: SimulatedWorld) -> Iterator[str]:
    """I13: each command reports an invalid row once at most, and those of one file together all of them."""
    reported: defaultdict[str, set[int]] = defaultdict(set)
    for file, report in world.reports:
        reported[file.name].update(report.lines)
        if twice := sorted(line for line, times in Counter(report.lines).items() if times > 1):
            yield f"I13: invalid rows {twice} of {file.name} were reported twice"
    for file in world.files:
        if reported[file.name] != file.text.invalid:
            said, invalid = sorted(reported[file.name]), sorted(file.text.invalid)
            yield f"I13: rows {invalid} of {file.name} are invalid, {said} were reported"


def replayed(world: SimulatedWorld, commit_transactions_max: int) -> list[Tables]:
    """What the log as it is now makes of empty stores, in commits of that size."""
    log = MemoryLog(world.topology)
    tables = []
    for shard, stream in enumerate(world.server.log.streams):
        log.streams[shard].entries = dict(stream.entries)
        log.streams[shard].last = stream.last
        store = MemoryStore(world.topology, shard)
        limits = WorkerLimits(commit_transactions_max=commit_transactions_max, read_entries_max=5)
        ShardWorker(
            shard,
            world.topology,
            log=log.reader(shard, "replay"),
            open_store=_always(store),
            world=World(world.clock, "replay", lambda _: False, lambda: False, lambda _: None, Random(0)),
            limits=limits,
            until_idle=True,
        ).run()
        tables.append(store.snapshot().tables)
    return tables


def _always(store: MemoryStore) -> Callable[[], MemoryStore]:
    return lambda: store
