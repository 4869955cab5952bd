"""How long a transaction takes until it is durable and until it is committed, at several rates, in an open loop."""

import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import orjson

from hftpipe.bench.figures import Figure, Settings
from hftpipe.bench.ground import Ground, Server
from hftpipe.errors import HftpipeError
from hftpipe.store.reading import store_paths, summarise

RATES: Final = (1_000, 10_000, 50_000, 100_000)
BARE_RATES: Final = (1_000, 10_000)
RATES_QUICK: Final = (10_000, 100_000)
BARE_RATES_QUICK: Final = (10_000,)
SECONDS: Final = 7.0
"""Of each rate, with the second that is not counted."""
SECONDS_QUICK: Final = 2.0

PERCENTILE_NAMES: Final = ("p50", "p99", "p99.9")
_START_S: Final = 60.0
_KEPT_UP: Final = 0.98

_Samples = dict[tuple[str, int], list[float]]
"""By name of a figure and rate."""


def measure(ground: Ground, settings: Settings) -> Iterator[Figure]:
    """Through the real producer and real workers; beside it, one bare XADD for all that is due."""
    # A second takes no more transactions than the large file has.
    rates = [rate for rate in (RATES_QUICK if ground.quick else RATES) if rate <= settings.rows]
    bare_rates = [
        rate for rate in (BARE_RATES_QUICK if ground.quick else BARE_RATES) if rate <= settings.rows
    ]
    samples: _Samples = defaultdict(list)
    for _ in range(ground.repetitions):
        with ground.server() as server:
            for rate in bare_rates:
                ground.say(f"latency: bare XADD at {rate:,} tx/s")
                _keep(samples, "bare XADD", rate, _trial(ground, server, None, rate))
            home = ground.home()
            with running(ground, home, server.url):
                for rate in rates:
                    ground.say(f"latency: {rate:,} tx/s")
                    _keep(samples, "", rate, _trial(ground, server, home, rate))
        ground.discard(home)
    for (name, rate), values in samples.items():
        if not name.endswith("rate"):
            yield Figure("latency", name, f"{rate:,} tx/s", "ms", tuple(values), _note(samples, name, rate))


def _trial(ground: Ground, server: Server, home: Path | None, rate: int) -> dict[str, object]:
    seconds = SECONDS_QUICK if ground.quick else SECONDS
    words = ["" if home is None else str(home), server.url, str(rate), str(int(rate * seconds))]
    done = ground.run([sys.executable, "-m", "hftpipe.bench.latency_trial", *words])
    told: dict[str, object] = orjson.loads(done.output)
    return told


def _keep(samples: _Samples, name: str, rate: int, told: dict[str, object]) -> None:
    """What a trial told, under the names of the figures."""
    for what, values in told.items():
        if isinstance(values, list):
            for percentile, value in zip(PERCENTILE_NAMES, values, strict=True):
                samples[f"{name or what} {percentile}", rate].append(value)
        elif isinstance(values, float):
            samples[f"{name} {what}".strip(), rate].append(values)


def _note(samples: _Samples, name: str, rate: int) -> str:
    """That a rate was not reached."""
    rates = samples["bare XADD rate" if name.startswith("bare") else "rate", rate]
    return "" if min(rates) >= _KEPT_UP * rate else f"fell behind: {min(rates):,.0f} tx/s became durable"


@contextmanager
def running(ground: Ground, home: Path, url: str = "") -> Iterator[None]:
    """The workers of a home are at work during the body."""
    up = ground.start("up", home=home, url=url)
    try:
        wait_for_owners(ground, up, home)
        yield
    finally:
        ground.end(up)


def wait_for_owners(ground: Ground, up: "subprocess.Popen[bytes]", home: Path) -> None:
    """Returns when every shard of a home has its worker."""
    deadline_s = time.monotonic() + _START_S
    while not _is_owned(home):
        if up.poll() is not None or time.monotonic() > deadline_s:
            raise HftpipeError(f"the workers did not start: {ground.said(up)}")
        time.sleep(0.02)


def _is_owned(home: Path) -> bool:
    summaries = [summarise(path) for path in store_paths(home)]
    return bool(summaries) and all(
        summary.owner and len(summaries) == summary.shards for summary in summaries
    )
