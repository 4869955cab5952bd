"""A program of its own: sends made-up transactions at a steady rate, and writes down what became of them and when.

In a process of its own, so that it waits for no interpreter lock of those who look on.
"""

import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Final

import numpy as np
import redis

from hftpipe.bench.latency_loop import Appends, Entries, open_loop
from hftpipe.clock import SystemClock
from hftpipe.config import IngestLimits
from hftpipe.core.entry import encode
from hftpipe.core.transaction import Batch
from hftpipe.log.redis import RedisLogWriter
from hftpipe.ports import Appended, Outgoing, Topology
from hftpipe.producer import Surroundings
from hftpipe.wiring.pipeline import Place, open_pipeline

ACCOUNTS: Final = 100_000
DEPOSITS_SHARE: Final = 0.65
AMOUNT_MAX: Final = 10_000_000
_BARE_KEY: Final = "bare"


class RecordingLog(RedisLogWriter):
    """Keeps shard, id and last row of every entry that was confirmed."""

    def __init__(self, place: Place, topology: Topology) -> None:
        super().__init__(place.reconnector("ingest"), place.keys, topology)
        self.seen: list[tuple[int, int, int]] = []

    def append(self, entries: Sequence[Outgoing]) -> Appended:
        """See `ports.LogWriter`."""
        appended = super().append(entries)
        confirmed = zip(entries, appended.ids, strict=False)
        self.seen += [(entry.shard, id_.sequence, int(entry.fields[b"pos"])) for entry, id_ in confirmed]
        return appended


@dataclass(frozen=True, slots=True)
class Sent:
    """All that a source knows of what it has sent."""

    appends: Appends
    shards: "np.ndarray[tuple[int], np.dtype[np.int64]]"
    entries: Entries

    def write(self, path: Path) -> None:
        """Keeps it in a file."""
        appends, entries = self.appends, self.entries
        np.savez(
            path,
            rate=appends.rate,
            start_s=appends.start_s,
            ends=appends.ends,
            confirmed_s=appends.confirmed_s,
            shards=self.shards,
            entry_shards=entries.shards,
            entry_sequences=entries.sequences,
            entry_rows=entries.rows,
        )

    @classmethod
    def read(cls, path: Path) -> "Sent":
        """What `write` has kept."""
        with np.load(path) as kept:
            appends = Appends(
                float(kept["rate"]),
                float(kept["start_s"]),
                kept["ends"].tolist(),
                kept["confirmed_s"].tolist(),
            )
            entries = Entries(kept["entry_shards"], kept["entry_sequences"], kept["entry_rows"])
            return cls(appends, kept["shards"], entries)


def transactions(count: int, seed: int) -> Batch:
    """Two deposits to one withdrawal, which takes a little of an earlier deposit: none is refused."""
    random = np.random.default_rng(seed)
    is_deposit = random.random(count) < DEPOSITS_SHARE
    is_deposit[0] = True
    places = np.arange(count)
    last_deposit = np.maximum.accumulate(np.where(is_deposit, places, 0))
    earlier = last_deposit[(random.random(count) * places).astype(np.int64)]
    accounts = random.integers(1, ACCOUNTS + 1, count)
    amounts = random.integers(AMOUNT_MAX // 2, AMOUNT_MAX, count)
    return Batch(
        np.where(is_deposit, ord("D"), ord("W")).astype(np.uint8).tobytes().decode("ascii"),
        np.where(is_deposit, accounts, accounts[earlier]),
        places + 1,
        np.where(is_deposit, amounts, 1),
        places + 1,
    )


def send(place: Place, source: str, rate: float, count: int) -> Sent:
    """Through the producer into the log, as fast as they are due."""
    batch = transactions(count, seed=int(rate))
    stop = threading.Event()
    surroundings = Surroundings(SystemClock(stop), Random(1), stop.is_set, report=_say)
    with (
        open_pipeline(place) as pipeline,
        closing(RecordingLog(place, pipeline.topology)) as log,
    ):
        recorded = replace(pipeline, log=log)
        producer = recorded.producer(source, surroundings, IngestLimits(), resumable=False)

        def append(first: int, stop: int) -> None:
            producer.append(batch.slice(first, stop))

        appends = _loop(rate, count, append)
        shards, sequences, rows = np.array(log.seen, dtype=np.int64).T
        return Sent(appends, batch.accounts % pipeline.topology.shards, Entries(shards, sequences, rows))


def send_bare(url: str, rate: float, count: int) -> Appends:
    """The same number of bytes by one XADD for all that is due: what server and disk alone need."""
    payload = encode("bare", 0, transactions(count, seed=int(rate)), 0)[b"b"]
    size = len(payload) // count
    with closing(redis.Redis.from_url(url)) as client:

        def append(first: int, stop: int) -> None:
            client.xadd(_BARE_KEY, {"b": payload[first * size : stop * size]})

        try:
            return _loop(rate, count, append)
        finally:
            client.delete(_BARE_KEY)


def _loop(rate: float, count: int, append: Callable[[int, int], None]) -> Appends:
    return open_loop(count, rate, append, clock=time.monotonic, sleep=time.sleep)


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def main() -> None:
    """Home, URL of the server (empty: the private one), rate, number of transactions, file for what is known then."""
    home, url, rate, count, path = sys.argv[1:]
    send(Place(Path(home), url), f"steady-{rate}-{path}", float(rate), int(count)).write(Path(path))


if __name__ == "__main__":
    main()
