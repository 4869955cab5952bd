"""What a careful user writes by hand with redis-py.

One row an entry, a thousand to a pipeline; COUNT 1000, and one commit and one XACK for all that a read brought.
A process appends, another applies.

Correctness: a crash repeats up to 1,000 rows, and only ids stop that; a lost entry goes unnoticed.
Rows: 200000
"""

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import common

STREAM = "redis-py-tuned"


def consume(socket: str, path: Path) -> int:
    """Applies entries until the stream ends; returns how many rows they carried."""
    client, store, books = common.connect(socket), common.open_store(path), common.Books()
    count = 0
    while True:
        entries = common.entries(
            client.xreadgroup(
                common.GROUP,
                common.CONSUMER,
                {STREAM: ">"},
                count=common.READ_ENTRIES_MAX,
                block=common.WAIT_S * 1_000,
            )
        )
        rows = common.rows_of(entries)
        books.apply(rows)
        store.execute("BEGIN IMMEDIATE")
        common.write(store, books, rows)
        store.execute("COMMIT")
        client.xack(STREAM, common.GROUP, *(entry_id for entry_id, _ in entries))
        count += len(rows)
        if len(rows) < len(entries):
            store.close()
            return count


def run(work: common.Work) -> common.Result:
    """Runs both sides, each in a process."""
    path = common.make_store(work.folder)
    with common.streams(work.socket, [STREAM], grouped=True), ProcessPoolExecutor(2) as pool:
        start = common.clock_s()
        producing = pool.submit(common.append_pipelined, work.path, work.socket, [STREAM])
        consuming = pool.submit(consume, work.socket, path)
        producing.result()
        count = consuming.result()
        seconds = common.clock_s() - start
    return common.Result(count, seconds, common.stored(work.folder))


if __name__ == "__main__":
    common.main(run)
