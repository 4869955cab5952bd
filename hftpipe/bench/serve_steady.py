"""A program of its own: sends lines over several connections when they are due, and prints when each was answered.

An open loop, as in `latency_loop`: line i is due at i / rate whatever became of those before it, and its wait is
counted from then until its acknowledgement was read. What this program itself is late by is in the waits.
"""

import gc
import select
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import orjson

from hftpipe.bench.latency_loop import Seconds
from hftpipe.bench.serve_socket import PATIENCE_S, connected, received, tell
from hftpipe.errors import HftpipeError

_DURABLE: Final = b'"status":"durable"'


@dataclass(slots=True)
class Acknowledgements:
    """What came back over one connection: so many replies were read at `seen_s[i]`, on the clock."""

    octets: list[bytes] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    seen_s: list[float] = field(default_factory=list)

    def add(self, octets: bytes, now_s: float) -> int:
        """Keeps what was read; how many replies ended in it."""
        count = octets.count(b"\n")
        self.octets.append(octets)
        self.counts.append(count)
        self.seen_s.append(now_s)
        return count

    def require_durable(self) -> None:
        """Raises HftpipeError when one says anything else."""
        text = b"".join(self.octets)
        if text.count(_DURABLE) != sum(self.counts):
            others = [line for line in text.splitlines() if _DURABLE not in line]
            raise HftpipeError(f"the service answered {b' '.join(others[:3]).decode('utf-8', 'replace')}")

    def times_s(self) -> Seconds:
        """When each reply was read, in their order."""
        return np.repeat(np.asarray(self.seen_s, dtype=float), self.counts)


@dataclass(frozen=True, slots=True)
class Waits:
    """When each line was due, and when its acknowledgement was read."""

    due_s: Seconds
    done_s: Seconds


def run(links: Sequence[socket.socket], lines: Sequence[bytes], rate: float) -> Waits:
    """Line i over connection i % len(links), each by itself when it is due."""
    taken = {link: Acknowledgements() for link in links}
    clock, count, sent, acknowledged = time.perf_counter, len(lines), 0, 0
    heard_s = start_s = clock()
    while acknowledged < count:
        now_s = clock()
        due = min(int((now_s - start_s) * rate) + 1, count)
        while sent < due:
            links[sent % len(links)].sendall(lines[sent])
            sent += 1
        wait_s = max(start_s + sent / rate - clock(), 0.0) if sent < count else PATIENCE_S
        ready, _, _ = select.select(links, (), (), wait_s)
        for link in ready:
            heard_s = clock()
            acknowledged += taken[link].add(received(link), heard_s)
        if not ready and clock() - heard_s > PATIENCE_S:
            raise HftpipeError(f"the service answered nothing for {PATIENCE_S:.0f} s; look at its load")
    return waits_of([taken[link] for link in links], start_s + np.arange(count) / rate)


def waits_of(taken: Sequence[Acknowledgements], due_s: Seconds) -> Waits:
    """Of all lines, from the replies of each connection. Raises HftpipeError when one was not durable."""
    done_s = np.empty(len(due_s))
    for number, acknowledgements in enumerate(taken):
        acknowledgements.require_durable()
        done_s[number :: len(taken)] = acknowledgements.times_s()
    return Waits(due_s, done_s)


def main() -> None:
    """Address, connections, rate, CSV file."""
    address, connections, rate, path = sys.argv[1:]
    header, *lines = Path(path).read_bytes().splitlines(keepends=True)
    gc.disable()
    gc.freeze()
    with ExitStack() as stack:
        links = [stack.enter_context(connected(address)) for _ in range(int(connections))]
        for link in links:
            link.sendall(header)
        before = time.process_time()
        waits = run(links, lines, float(rate))
        cpu_seconds = time.process_time() - before
    told = {"due_s": waits.due_s, "done_s": waits.done_s, "cpu_seconds": cpu_seconds}
    tell(orjson.dumps(told, option=orjson.OPT_SERIALIZE_NUMPY))


if __name__ == "__main__":
    main()
