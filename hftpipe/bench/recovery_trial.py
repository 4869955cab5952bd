"""A program of its own: kills a worker, or the server, beneath a steady source; prints what it came to as JSON."""

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

import numpy as np
import orjson

from hftpipe.bench.latency_trial import Watch, observe
from hftpipe.embedded import Control, socket_path
from hftpipe.errors import HftpipeError
from hftpipe.owner import pid_of
from hftpipe.store.reading import summarise

_STEADY_S: Final = 0.7
"""How long commits have to go on before the blow."""

_AFTERGLOW_S: Final = 0.02
"""What is seen so soon after the blow was done before it; no worker and no server starts so fast."""


class Blow:
    """Waits until commits go on steadily, then kills with SIGKILL, once."""

    def __init__(self, victim: Callable[[Path], int]) -> None:
        self._victim = victim
        self.at_s = 0.0
        self.shards: list[int] = []

    def __call__(self, watch: Watch, home: Path) -> None:
        """Notes when, and which shards the killed process owned."""
        before = [seen[-1] for seen in watch.sequences]
        watch.look_until(
            lambda: all(seen[-1] > first for seen, first in zip(watch.sequences, before, strict=True)),
            "the first commits",
        )
        steady_s = time.monotonic() + _STEADY_S
        watch.look_until(lambda: time.monotonic() >= steady_s, "a steady stream")
        pid = self._victim(home)
        self.shards = [
            shard for shard, path in enumerate(watch.paths) if pid_of(summarise(path).owner) == pid
        ]
        os.kill(pid, signal.SIGKILL)
        self.at_s = time.monotonic()


def worker_pid(home: Path) -> int:
    """The process that owns the first shard."""
    pid = pid_of(summarise(home / "shard-0000.db").owner)
    if not pid:
        raise HftpipeError(f"nobody owns shard 0 of {home}; its worker must run")
    return pid


def server_pid(home: Path) -> int:
    """The process of the private server."""
    with closing(Control(socket_path(home), 5.0)) as control:
        return control.numbers("server")["process_id"]


def worker_trial(home: Path, rate: float, count: int) -> dict[str, float]:
    """Seconds from the blow until every shard of the killed worker has its next commit."""
    blow = Blow(worker_pid)
    seen = observe(home, "", rate=rate, count=count, act=lambda watch: blow(watch, home))
    next_s = [
        next((at_s for at_s in seen.sightings[shard].seen_s if at_s > blow.at_s + _AFTERGLOW_S), np.nan)
        for shard in blow.shards
    ]
    return {"commit": _since(blow, max(next_s))}


def server_trial(home: Path, rate: float, count: int) -> dict[str, float]:
    """Seconds from the blow until something sent after it is durable, and until it is committed."""
    blow = Blow(server_pid)
    seen = observe(home, "", rate=rate, count=count, act=lambda watch: blow(watch, home))
    after = seen.durable_s > blow.at_s + _AFTERGLOW_S
    return {
        "durable acknowledgement": _since(blow, seen.durable_s[after].min(initial=np.inf)),
        "commit": _since(blow, seen.committed_s[after].min(initial=np.inf)),
    }


def _since(blow: Blow, at_s: float) -> float:
    if not np.isfinite(at_s):
        raise HftpipeError(
            "nothing came after the blow: the source ended too early for this machine; try again"
        )
    return float(at_s) - blow.at_s


def main() -> None:
    """`worker` or `server`, home, rate, number of transactions."""
    victim, home, rate, count = sys.argv[1:]
    trial = {"worker": worker_trial, "server": server_trial}[victim]
    os.write(1, orjson.dumps(trial(Path(home), float(rate), int(count))))


if __name__ == "__main__":
    main()
