"""The loop that the documentation of redis-py and of Redis Streams shows.

XADD row by row, each a round trip; COUNT 100, and for each entry a commit and an XACK. A process appends, another
applies.

Correctness: a crash repeats a row, and only its id stops that; 99 stay pending until claimed by hand.
Rows: 5000
"""

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import common

STREAM = "redis-py-documented"
READ_ENTRIES_MAX = 100


def produce(path: Path, socket: str) -> None:
    """Appends row by row, then the end."""
    client = common.connect(socket)
    for row in common.rows(path):
        client.xadd(STREAM, dict(zip(common.HEADER, row, strict=True)))
    client.xadd(STREAM, {common.LAST: "1"})


def consume(socket: str, path: Path) -> int:
    """Applies entries until the stream ends; returns how many rows they carried."""
    client, store, books = common.connect(socket), common.open_store(path), common.Books()
    count, is_over = 0, False
    while not is_over:
        reply = client.xreadgroup(
            common.GROUP,
            common.CONSUMER,
            {STREAM: ">"},
            count=READ_ENTRIES_MAX,
            block=common.WAIT_S * 1_000,
        )
        for entry in common.entries(reply):
            rows = common.rows_of([entry])
            if rows:
                books.apply(rows)
                store.execute("BEGIN IMMEDIATE")
                common.write(store, books, rows)
                store.execute("COMMIT")
            client.xack(STREAM, common.GROUP, entry[0])
            count += len(rows)
            is_over = not rows
    store.close()
    return count


def run(work: common.Work) -> common.Result:
    """Runs both sides, each in a process."""
    path = common.make_store(work.folder)
    with common.streams(work.socket, [STREAM], grouped=True), ProcessPoolExecutor(2) as pool:
        start = common.clock_s()
        producing = pool.submit(produce, work.path, work.socket)
        consuming = pool.submit(consume, work.socket, path)
        producing.result()
        count = consuming.result()
        seconds = common.clock_s() - start
    return common.Result(count, seconds, common.stored(work.folder))


if __name__ == "__main__":
    common.main(run)
