"""Figures of one run on this machine: throughput beside the hand-written pipeline, growth, memory, latency.

Everything is measured on whole processes, with the private server and `appendfsync always`; the file is read, made
durable, applied and committed. Compare figures of one run only: machines differ, and have moods.
"""

import argparse
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from hftpipe.core.routing import shard_of
from hftpipe.embedded import starting
from hftpipe.store.reading import balances
from hftpipe.store.sqlite import shard_path

HFTPIPE = [sys.executable, "-m", "hftpipe"]
BY_HAND = Path(__file__).parent / "designs" / "redis_py_tuned.py"
ACCOUNTS = 100_000
SHARDS = 4
KINDS = "deposit=65,withdrawal=35"
DISPUTED_KINDS = "deposit=60,withdrawal=35,dispute=3,resolve=1.5,chargeback=0.5"
LATENCY_ROWS = 300


@dataclass(frozen=True)
class Finished:
    """A process that has ended: seconds on the clock and of both processors, and its largest size."""

    seconds: float
    cpu_seconds: float
    memory_mb: float


def run(*arguments: str, home: Path | None = None) -> Finished:
    """Runs hftpipe to its end."""
    environment = dict(os.environ) if home is None else {**os.environ, "HFTPIPE_HOME": str(home)}
    start = time.monotonic()
    process = subprocess.Popen(
        [*HFTPIPE, *arguments], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    told = process.stderr.read() if process.stderr else b""
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(told.decode())
    return Finished(time.monotonic() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def generate(folder: Path, rows: int, kinds: str = KINDS) -> Path:
    """A file of transactions."""
    path = folder / f"{rows}-{len(kinds)}.csv"
    with path.open("wb") as file:
        arguments = [
            "generate",
            "--rows",
            str(rows),
            "--accounts",
            str(ACCOUNTS),
            "--seed",
            "1",
            "--kinds",
            kinds,
        ]
        subprocess.run([*HFTPIPE, *arguments], stdout=file, check=True)
    return path


def by_hand(path: Path, folder: Path) -> tuple[float, int]:
    """Seconds and the sum of balances of the hand-written pipeline, on the same server with the same settings."""
    home = Path(tempfile.mkdtemp(dir=folder))
    with starting(home) as socket:
        done = subprocess.run(
            [sys.executable, str(BY_HAND), str(path), str(socket), str(home / "by-hand.db")],
            stdout=subprocess.PIPE,
            check=True,
        )
    seconds, total = done.stdout.split()
    return float(seconds), int(total)


def throughput(folder: Path, rows: int, repetitions: int) -> None:
    """`hftpipe run` beside the hand-written pipeline, which gets a tenth of the rows."""
    ours, theirs = generate(folder, rows), generate(folder, rows // 10)
    ratios: list[float] = []
    for _ in range(repetitions):
        own = rows / run("run", str(ours)).seconds
        seconds, _ = by_hand(theirs, folder)
        other = rows // 10 / seconds
        ratios.append(own / other)
        print(
            f"  hftpipe run {own:>9,.0f} tx/s   by hand {other:>9,.0f} tx/s   ratio {own / other:5.1f}",
            flush=True,
        )
    print(f"  ratio: median {statistics.median(ratios):.1f}, {min(ratios):.1f} to {max(ratios):.1f}")
    check_same_sum(theirs, folder)


def check_same_sum(path: Path, folder: Path) -> None:
    """Both must have come to the same money."""
    home = Path(tempfile.mkdtemp(dir=folder))
    run("run", str(path), home=home)
    _, total = by_hand(path, folder)
    ours = sum(balance.available for balance in balances(home))
    print(f"  same balances: {'yes' if ours == total else f'NO: {ours} and {total}'}")


def growth(folder: Path, rows: int) -> None:
    """Cost of a transaction in a small and in a five times larger file, and in a file with disputes."""
    small = run("run", str(generate(folder, rows)))
    large = run("run", str(generate(folder, 5 * rows)))
    mixed = run("run", str(generate(folder, rows, DISPUTED_KINDS)))
    for name, finished, count in (
        ("rows", small, rows),
        ("rows", large, 5 * rows),
        ("rows with 5 % disputes", mixed, rows),
    ):
        microseconds = finished.seconds / count * 1e6
        print(f"  {count:>10,} {name}: {finished.seconds:6.2f} s, {microseconds:.2f} µs a transaction")
    print(
        f"  per transaction, five times the rows cost {large.seconds / small.seconds / 5:.2f} times as much"
    )


def memory(folder: Path, rows: int) -> None:
    """Largest size of an ingest and of a worker with all shards, one after the other."""
    for count in (rows, 5 * rows):
        home = Path(tempfile.mkdtemp(dir=folder))
        path = generate(folder, count)
        appended = run("ingest", str(path), home=home)
        applied = run("worker", "--until-idle", home=home)
        print(
            f"  {count:>10,} rows: ingest {appended.memory_mb:.0f} MB, "
            f"{appended.cpu_seconds / count * 1e6:.2f} µs CPU; "
            f"worker {applied.memory_mb:.0f} MB, {applied.cpu_seconds / count * 1e6:.2f} µs CPU a transaction"
        )


@contextmanager
def service(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`hftpipe up`, and an `hftpipe ingest -` to write to."""
    environment = {**os.environ, "HFTPIPE_HOME": str(home)}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment}
    workers = subprocess.Popen([*HFTPIPE, "up"], **quiet)  # type: ignore[call-overload]
    source = subprocess.Popen([*HFTPIPE, "ingest", "-"], stdin=subprocess.PIPE, **quiet)  # type: ignore[call-overload]
    try:
        yield source
    finally:
        if source.stdin:
            source.stdin.close()
        source.wait()
        workers.terminate()
        workers.wait()


def latency(folder: Path) -> None:
    """From writing one line to `hftpipe ingest -` until SQLite shows it, while workers are up and otherwise idle."""
    home = Path(tempfile.mkdtemp(dir=folder))
    waits: list[float] = []
    with service(home) as source:
        write(source, b"type,client,tx,amount\n")
        for tx in range(LATENCY_ROWS):
            start = time.monotonic()
            write(source, b"deposit,%d,%d,1.0\n" % (tx, tx))
            wait_for(home, tx, tx)
            waits.append((time.monotonic() - start) * 1e3)
    later = sorted(waits[LATENCY_ROWS // 10 :])
    median, p99 = statistics.median(later), later[int(len(later) * 0.99)]
    print(
        f"  a lone transaction is in SQLite after {median:.1f} ms median, {p99:.1f} ms p99 ({len(later)} of them)"
    )


def write(source: subprocess.Popen[bytes], line: bytes) -> None:
    """One line into the pipe, at once."""
    if source.stdin:
        source.stdin.write(line)
        source.stdin.flush()


def wait_for(home: Path, account: int, tx: int) -> None:
    """Returns when the transaction is committed."""
    path = shard_path(home, shard_of(account, SHARDS))
    deadline = time.monotonic() + 60
    while not path.exists():
        check(deadline)
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=5)) as store:
        while not store.execute("SELECT 1 FROM transactions WHERE tx = ?", (tx,)).fetchone():
            check(deadline)


def check(deadline: float) -> None:
    """Waits a moment, but not for ever."""
    time.sleep(0.0002)
    if time.monotonic() > deadline:
        sys.exit("a transaction did not arrive within a minute")


def main() -> None:
    """All figures, or those asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--only", choices=["throughput", "growth", "memory", "latency"])
    options = parser.parse_args()
    rows = options.rows // 10 if options.quick else options.rows
    with tempfile.TemporaryDirectory(prefix="hftpipe-bench-") as name:
        folder = Path(name)
        parts = {
            "throughput": lambda: throughput(folder, rows, options.repetitions),
            "growth": lambda: growth(folder, rows),
            "memory": lambda: memory(folder, rows),
            "latency": lambda: latency(folder),
        }
        for title, part in parts.items():
            if options.only in (None, title):
                print(f"{title}: {rows:,} rows, {ACCOUNTS:,} accounts, {os.cpu_count()} cores", flush=True)
                part()


if __name__ == "__main__":
    main()
