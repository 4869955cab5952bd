"""The reception service, put together: a source of its own, and what the log holds that is not applied yet."""

import secrets
import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from random import Random

from prometheus_client.registry import Collector

from hftpipe.clock import SystemClock
from hftpipe.config import IngestLimits, ServeLimits
from hftpipe.core.entry import Entry, decode, origin
from hftpipe.descriptors import make_room
from hftpipe.errors import EntryDamaged, PassingFault, ShardStopped
from hftpipe.log.redis import RedisLogReader
from hftpipe.ports import Books
from hftpipe.producer import Surroundings
from hftpipe.reception.desk import Desk
from hftpipe.reception.metrics import Metrics
from hftpipe.reception.repeats import Repeats
from hftpipe.store.books import SqliteBooks
from hftpipe.wiring.pipeline import Pipeline


class DeskWiring:
    """Makes the desk of a pipeline; see `reception.service.OpenDesk`.

    halt: when it is set, the log is not waited for any more. report: takes one line for people.
    collectors: of what is told to Prometheus beside the service's own metrics.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        halt: threading.Event,
        report: Callable[[str], None],
        reach: Callable[[str], None],
        limits: ServeLimits,
        collectors: Iterable[Collector] = (),
    ) -> None:
        self._pipeline = pipeline
        self._collectors = collectors
        self._surroundings = Surroundings(SystemClock(halt), Random(), halt.is_set, report, reach)
        self._limits = limits

    def __call__(self, metrics: Metrics, failed: Callable[[BaseException], None]) -> Desk:
        for collector in self._collectors:
            metrics.registry.register(collector)
        topology = self._pipeline.topology
        # A source of this process alone: its positions count what it has appended, and nothing is resumed.
        source = f"serve:{socket.gethostname()}:{secrets.token_hex(8)}"
        producer = self._pipeline.producer(source, self._surroundings, IngestLimits(), resumable=False)
        books = self._books()
        repeats = Repeats(books, topology.shards, self._limits.recent_transactions_max, secrets.randbits(64))
        self._warm(repeats, books)
        return Desk(
            topology,
            producer=producer,
            repeats=repeats,
            books=self._books(),
            metrics=metrics,
            limits=self._limits,
            failed=failed,
        )

    def _books(self) -> SqliteBooks:
        make_room(self._pipeline.topology.shards)
        return SqliteBooks(self._pipeline.place.home, self._pipeline.topology.shards)

    def _warm(self, repeats: Repeats, books: Books) -> None:
        """What was appended before this process began, and is not applied: its ids are known too.

        Without it, who sends again what a killed process had appended would append it twice; the ledger would refuse
        the second, and the submitter be told `durable` for it.
        """
        place = self._pipeline.place
        is_complete = True
        for shard in range(self._pipeline.topology.shards):
            reader = RedisLogReader(place.reconnector(f"serve:{shard}"), place.keys, shard, "serve")
            with closing(reader):
                is_complete &= self._warm_shard(repeats, books, reader, shard)
        if is_complete:
            repeats.trust()

    def _warm_shard(self, repeats: Repeats, books: Books, reader: RedisLogReader, shard: int) -> bool:
        """Whether all of a shard that is not applied was read."""
        last = (
            reader.extent().last
        )  # before the checkpoint: what is appended behind it is found by its number
        if last is None:
            return True
        repeats.last_of[shard] = last.sequence
        topology = self._pipeline.topology
        applied = origin(topology.generation)
        with suppress(PassingFault, ShardStopped):  # its worker says what is wrong; the other shards go on
            applied = books.applied(shard) or applied
        newest = last.moved(1 - self._limits.warm_entries_max)
        first = max(applied.moved(1), newest)
        while first <= last:
            page = reader.range(first, last, self._limits.warm_page_entries)
            if not page or page[0].id != first:
                return False
            for raw in page:
                try:
                    entry = decode(raw, shard, topology.shards)
                except EntryDamaged:
                    continue  # the worker of the shard stops there, and says so
                if isinstance(entry, Entry):
                    repeats.warm(entry.batch, shard, raw.id.sequence)
            first = page[-1].id.moved(1)
        return newest <= applied.moved(1)
