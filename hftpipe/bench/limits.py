"""What the parts cost that nobody can do without, and what everything of ours costs above them."""

import sys
from collections import defaultdict
from collections.abc import Iterator
from typing import Final

import orjson

from hftpipe.bench.figures import Figure, Settings
from hftpipe.bench.ground import Ground
from hftpipe.bench.scale_cost import cost_of

_TINY_ROWS: Final = 100

_NOTES: Final = {
    "parsing": "the file read and checked, nothing else",
    "XADD": "the same entries made beforehand, client and server",
    "SQLite": "the same journal and balances through executemany, in commits of the same size",
    "starting and stopping": "of all processes, and the output of the balances: measured with a tiny file, and alone",
    "our share": "all of it, less the parts above",
    "all of it": "`hftpipe run`, client, workers and server",
}


def measure(ground: Ground, settings: Settings) -> Iterator[Figure]:
    """All in seconds of the processors, so that what overlaps is counted once each."""
    rows = settings.rows // 5
    samples: defaultdict[str, list[float]] = defaultdict(list)
    for _ in range(ground.repetitions):
        ground.say(f"limits: {rows:,} rows")
        for name, seconds in _sample(ground, rows).items():
            samples[name].append(seconds / rows * 1e6)
    for name, values in samples.items():
        yield Figure("limits", name, f"CPU, {rows:,} rows", "µs/tx", tuple(values), _NOTES[name])


def _sample(ground: Ground, rows: int) -> dict[str, float]:
    """Seconds of each part, of all, and of what is left."""
    file, tiny = ground.file(rows), ground.file(_TINY_ROWS, accounts=_TINY_ROWS)
    home, tiny_home = ground.home(), ground.home()
    with ground.server() as server:
        total = cost_of(ground, server, "run", str(file), home=home).cpu_seconds
        output = cost_of(ground, server, "balances", "--format", "csv", home=home).cpu_seconds
    with ground.server() as server:
        start = cost_of(ground, server, "run", str(tiny), home=tiny_home).cpu_seconds
        start -= cost_of(ground, server, "balances", "--format", "csv", home=tiny_home).cpu_seconds
        words = [str(file), server.url, str(home)]
        done = ground.run([sys.executable, "-m", "hftpipe.bench.limits_raw", *words])
    for each in (home, tiny_home):
        ground.discard(each)
    parts: dict[str, float] = orjson.loads(done.output)
    parts["starting and stopping"] = start + output
    return {**parts, "our share": total - sum(parts.values()), "all of it": total}
