"""A program of its own: a steady source beside running workers, watched from outside; prints the waits as JSON."""

import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import orjson

from hftpipe.bench.latency_loop import Appends, Seconds, Sightings, committed_s, percentiles_ms
from hftpipe.bench.latency_source import Sent, send_bare
from hftpipe.core.entry import EntryId
from hftpipe.errors import HftpipeError
from hftpipe.store.reading import store_paths

WARM_UP_S: Final = 1.0
"""What is due so early is sent, and not counted."""

POLL_S: Final = 0.0005
PATIENCE_S: Final = 120.0
"""Longest wait for the last commit, once all is durable."""


class Watch:
    """Looks at how far each store of a home is committed, and notes when that changed: up to `POLL_S` late."""

    def __init__(self, home: Path) -> None:
        self.paths = store_paths(home)
        self.sequences: list[list[int]] = [[] for _ in self.paths]
        self.seen_s: list[list[float]] = [[] for _ in self.paths]
        self._stores = [
            sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=5) for path in self.paths
        ]

    def close(self) -> None:
        """Lets go of the stores."""
        for store in self._stores:
            store.close()

    def look(self) -> None:
        """One look at each."""
        for store, sequences, seen_s in zip(self._stores, self.sequences, self.seen_s, strict=True):
            ((checkpoint,),) = store.execute("SELECT checkpoint FROM shard").fetchall()
            sequence = EntryId.parse(checkpoint).sequence
            if not sequences or sequence > sequences[-1]:
                sequences.append(sequence)
                seen_s.append(time.monotonic())

    def look_until(self, condition: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
        """Looks and looks until the condition holds."""
        deadline_s = time.monotonic() + patience_s
        while not condition():
            if time.monotonic() > deadline_s:
                raise HftpipeError(
                    f"waited {patience_s:.0f} s for {what}; look at the machine's load, and try again"
                )
            time.sleep(POLL_S)
            self.look()

    def sightings(self) -> list[Sightings]:
        """What was seen, by shard."""
        return [Sightings(*both) for both in zip(self.sequences, self.seen_s, strict=True)]


@dataclass(frozen=True, slots=True)
class Observed:
    """When each transaction of a trial was due, durable and committed, and what was seen of each shard."""

    due_s: Seconds
    durable_s: Seconds
    committed_s: Seconds
    sightings: list[Sightings]


def observe(
    home: Path, url: str, *, rate: float, count: int, act: Callable[[Watch], None] = lambda _: None
) -> Observed:
    """Sends `count` transactions to the pipeline of a home whose workers run.

    act: called once the source has been started, and may look on.
    """
    with ExitStack() as stack:
        path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "sent.npz"
        watch = stack.enter_context(closing(Watch(home)))
        watch.look()
        source = subprocess.Popen(_source_command(home, url, rate, count, path))
        stack.callback(_end, source)
        act(watch)
        watch.look_until(
            lambda: source.poll() is not None, "the end of the source", count / rate + PATIENCE_S
        )
        if source.returncode:
            raise HftpipeError(f"the source ended with {source.returncode}; see above")
        sent = Sent.read(path)
        entries = sent.entries
        last = [
            int(entries.sequences[entries.shards == shard].max(initial=-1))
            for shard in range(len(watch.paths))
        ]
        watch.look_until(
            lambda: all(seen[-1] >= wanted for seen, wanted in zip(watch.sequences, last, strict=True)),
            "the last commit",
        )
        seen = watch.sightings()
    committed = committed_s(sent.shards, entries, seen)
    return Observed(sent.appends.due_s(), sent.appends.durable_s(), committed, seen)


def _source_command(home: Path, url: str, rate: float, count: int, path: Path) -> list[str]:
    words = [str(home), url, str(rate), str(count), str(path)]
    return [sys.executable, "-m", "hftpipe.bench.latency_source", *words]


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()


def judged(due_s: Seconds, done_s: Seconds) -> list[float]:
    """The percentiles of what was due after the warm-up."""
    counted = due_s >= due_s[0] + min(WARM_UP_S, (due_s[-1] - due_s[0]) / 2)
    return percentiles_ms((done_s - due_s)[counted])


def rate_of(due_s: Seconds, durable_s: Seconds) -> float:
    """Transactions a second from the first being due until the last was durable."""
    return len(due_s) / float(durable_s[-1] - due_s[0])


def pipeline_trial(home: Path, url: str, rate: float, count: int) -> dict[str, object]:
    """Latencies through the pipeline."""
    seen = observe(home, url, rate=rate, count=count)
    if np.isnan(seen.committed_s).any():
        raise HftpipeError(
            "some transactions were never seen to be committed; the measurement is worth nothing"
        )
    return {
        "durable": judged(seen.due_s, seen.durable_s),
        "committed": judged(seen.due_s, seen.committed_s),
        "rate": rate_of(seen.due_s, seen.durable_s),
    }


def bare_trial(url: str, rate: float, count: int) -> dict[str, object]:
    """Latencies of the server and its disk alone."""
    appends: Appends = send_bare(url, rate, count)
    due_s, durable_s = appends.due_s(), appends.durable_s()
    return {"durable": judged(due_s, durable_s), "rate": rate_of(due_s, durable_s)}


def main() -> None:
    """Home (empty: the server alone), URL of the server, rate, number of transactions."""
    home, url, rate, count = sys.argv[1:]
    if home:
        told = pipeline_trial(Path(home), url, float(rate), int(count))
    else:
        told = bare_trial(url, float(rate), int(count))
    os.write(1, orjson.dumps(told))


if __name__ == "__main__":
    main()
