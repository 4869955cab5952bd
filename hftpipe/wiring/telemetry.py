"""What a process tells of itself, put together. What only Prometheus needs is imported when it may ask."""

import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager, nullcontext
from typing import TYPE_CHECKING

from hftpipe.clock import SystemClock
from hftpipe.descriptors import make_room
from hftpipe.log.gauge import LIMITS, LOOKER, RedisStats
from hftpipe.owning import Witness
from hftpipe.telemetry.door import Door
from hftpipe.telemetry.measures import Measures
from hftpipe.telemetry.publishing import published
from hftpipe.wiring.pipeline import Place

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

    from hftpipe.inbox import Tally
    from hftpipe.telemetry.exposition import Exposition
    from hftpipe.telemetry.lookout import Lookout

Report = Callable[[str], None]


def lookout_of(place: Place, shards: Collection[int] | None = None) -> "Lookout":
    """Tells all in a process how a pipeline, or some shards of it, stand."""
    from hftpipe.telemetry.lookout import Lookout
    from hftpipe.telemetry.overview import Observer

    return Lookout(Observer(place, shards=shards), SystemClock(threading.Event()))


@contextmanager
def measured_workers(
    place: Place, shards: Collection[int], door: Door | None, report: Report
) -> Iterator[Witness]:
    """What the workers of some shards do during the body is measured, and can be seen from outside.

    door: where Prometheus may ask; None for nowhere.
    """
    make_room(2 * len(shards))  # a store each, and as many files again for connections to its log
    measures = Measures(shards, SystemClock(threading.Event()))
    endpoint = place.standing_endpoint(LIMITS)
    stats = RedisStats(lambda: endpoint.connect(f"{place.prefix}:{LOOKER}"), place.keys)

    def collector() -> "Collector":
        from hftpipe.telemetry.exported import WorkerCollector

        return WorkerCollector(measures)

    with (
        closing(stats),
        _exposition(place, shards, collector, door, report) as exposition,
        published(exposition, stats, measures),
    ):
        yield measures


@contextmanager
def measured_validation(
    place: Place, tally: Callable[[], "Tally"], door: Door | None, report: Report
) -> Iterator[None]:
    """The same for a validator of the inbox."""

    def collector() -> "Collector":
        from hftpipe.telemetry.exported import InboxCollector

        def counts() -> tuple[int, int, dict[str, int]]:
            now = tally()
            return now.taken, now.appended, dict(now.invalid)

        return InboxCollector(counts)

    with (
        _exposition(place, None, collector, door, report) as exposition,
        published(exposition, None, None) if exposition is not None else nullcontext(),
    ):
        yield


@contextmanager
def _exposition(
    place: Place,
    shards: Collection[int] | None,
    collector: Callable[[], "Collector"],
    door: Door | None,
    report: Report,
) -> Iterator["Exposition | None"]:
    """What Prometheus is told by a process: its own counts, and how its shards stand."""
    if door is None:
        yield None
        return
    from hftpipe.telemetry.exported import ShardCollector
    from hftpipe.telemetry.exposition import Exposition

    with closing(lookout_of(place, shards)) as lookout:
        yield Exposition(door, [collector(), ShardCollector(lookout.overview)], report)
