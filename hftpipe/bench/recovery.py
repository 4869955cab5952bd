"""How long commits pause when a worker or the server is killed, and how fast stores are rebuilt from the log."""

import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import orjson

from hftpipe.bench.figures import Figure, Settings
from hftpipe.bench.ground import Ground
from hftpipe.bench.latency import running

RATE: Final = 5_000
"""Transactions a second that arrive meanwhile."""
SECONDS: Final = 6.0
SECONDS_QUICK: Final = 2.0


def measure(ground: Ground, settings: Settings) -> Iterator[Figure]:
    """With the private server, whose keeper starts it again, and `hftpipe up`, which starts workers again."""
    samples: defaultdict[str, list[float]] = defaultdict(list)
    for _ in range(ground.repetitions):
        for name, seconds in _pauses(ground):
            samples[name].append(seconds)
    setting = f"{RATE:,} tx/s arriving"
    for name, seconds_each in samples.items():
        yield Figure("recovery", name, setting, "s", tuple(seconds_each))
    # All of it is in the server's memory at once: a part of the large file is enough.
    rows = settings.rows // (5 if ground.quick else 2)
    rates = tuple(_replay_rate(ground, rows) for _ in range(ground.repetitions))
    note = "one process with all shards, starting included"
    yield Figure("recovery", "replay of the whole log into new stores", f"{rows:,} rows", "tx/s", rates, note)


def _pauses(ground: Ground) -> Iterator[tuple[str, float]]:
    """One blow to a worker, one to the server."""
    home = ground.home()
    server = ground.start("redis", home=home)
    with running(ground, home):
        for victim in ("worker", "server"):
            ground.say(f"recovery: SIGKILL of the {victim}")
            for what, seconds in _trial(ground, victim, home).items():
                yield f"SIGKILL of the {victim}, until the next {what}", seconds
    ground.end(server)
    ground.discard(home)


def _trial(ground: Ground, victim: str, home: Path) -> dict[str, float]:
    count = int(RATE * (SECONDS_QUICK if ground.quick else SECONDS))
    words = [victim, str(home), str(RATE), str(count)]
    done = ground.run([sys.executable, "-m", "hftpipe.bench.recovery_trial", *words])
    told: dict[str, float] = orjson.loads(done.output)
    return told


def _replay_rate(ground: Ground, rows: int) -> float:
    """Everything is in the log, and no store is there."""
    ground.say(f"recovery: replay of {rows:,} transactions")
    home = ground.home()
    with ground.server() as server:
        ground.hftpipe("ingest", str(ground.file(rows)), home=home, url=server.url)
        finished = ground.hftpipe("worker", "--until-idle", home=home, url=server.url)
    ground.discard(home)
    return rows / finished.seconds
