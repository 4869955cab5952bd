"""What a careful user writes by hand with redis-py.

One transaction an entry, pipelined; COUNT 1000, one commit and one XACK a read.

Costs in correctness: a commit and its XACK can part (a crash between them applies a thousand rows twice), a retried
XADD is a second entry, and nothing tells when entries are missing.

Usage: redis_py_tuned.py FILE.csv UNIX_SOCKET DATABASE; prints the seconds and the sum of all balances.
"""

import csv
import multiprocessing
import sqlite3
import sys
import time
from pathlib import Path

import redis

STREAM, GROUP, LAST = "transactions", "workers", b"last"
PIPELINE_COMMANDS = 1_000


def produce(path: str, socket: str) -> None:
    """Appends every row of the file."""
    client = redis.Redis(unix_socket_path=socket)
    with Path(path).open(newline="") as file:
        rows = csv.DictReader(file)
        pipeline = client.pipeline(transaction=False)
        for number, row in enumerate(rows, 1):
            pipeline.xadd(STREAM, row)
            if number % PIPELINE_COMMANDS == 0:
                pipeline.execute()
        pipeline.xadd(STREAM, {LAST: 1})
        pipeline.execute()


def consume(socket: str, database: str) -> int:
    """Applies entries until the last one; returns the sum of all balances in ten-thousandths."""
    client = redis.Redis(unix_socket_path=socket)
    store = sqlite3.connect(database, isolation_level=None)
    store.execute("PRAGMA journal_mode=WAL")
    store.execute("PRAGMA synchronous=FULL")
    store.execute("CREATE TABLE balances (account INTEGER PRIMARY KEY, available INTEGER)")
    store.execute("CREATE TABLE transactions (tx INTEGER PRIMARY KEY)")
    available: dict[int, int] = {}
    over = False
    while not over:
        reply = client.xreadgroup(GROUP, "worker", {STREAM: ">"}, count=1_000, block=1_000)
        if not reply:
            continue
        entries = reply[0][1]
        touched: set[int] = set()
        taken: list[tuple[int]] = []
        for _, fields in entries:
            if LAST in fields:
                over = True
            elif fields[b"type"] in (b"deposit", b"withdrawal"):
                account, tx = int(fields[b"client"]), int(fields[b"tx"])
                units, _, decimals = fields[b"amount"].partition(b".")
                amount = int(units) * 10_000 + int(decimals.ljust(4, b"0") or 0)
                balance = available.get(account, 0)
                taken.append((tx,))
                if fields[b"type"] == b"deposit":
                    available[account] = balance + amount
                elif balance >= amount:
                    available[account] = balance - amount
                touched.add(account)
        store.execute("BEGIN IMMEDIATE")
        store.executemany("INSERT OR IGNORE INTO transactions VALUES (?)", taken)
        store.executemany(
            "INSERT INTO balances VALUES (?, ?) ON CONFLICT (account) DO UPDATE SET available = excluded.available",
            [(account, available[account]) for account in touched if account in available],
        )
        store.execute("COMMIT")
        client.xack(STREAM, GROUP, *(entry_id for entry_id, _ in entries))
    store.close()
    return sum(available.values())


def main() -> None:
    """Runs both sides, each in a process."""
    path, socket, database = sys.argv[1:]
    client = redis.Redis(unix_socket_path=socket)
    client.delete(STREAM)
    client.xgroup_create(STREAM, GROUP, "0", mkstream=True)
    start = time.monotonic()
    producer = multiprocessing.Process(target=produce, args=(path, socket))
    producer.start()
    total = consume(socket, database)
    producer.join()
    client.delete(STREAM)
    print(f"{time.monotonic() - start:.3f} {total}")


if __name__ == "__main__":
    main()
