"""Several streams, and one plain consumer for each.

An account's rows go to one stream. Each stream has a process that reads it with XREAD, without a group, and keeps how
far it has come in SQLite, in the same commit as the balances. The producer pipelines.

Correctness: exact while one consumer runs; nothing stops a second one; a lost entry goes unnoticed.
Rows: 200000
"""

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import common

STREAMS = [f"consumer-per-stream-{number}" for number in range(4)]


def consume(socket: str, stream: str, path: Path) -> int:
    """Applies entries until the stream ends; returns how many rows they carried."""
    client, store, books = common.connect(socket), common.open_store(path), common.Books()
    (position,) = store.execute("SELECT entry_id FROM position").fetchone()
    count = 0
    while True:
        reply = client.xread({stream: position}, count=common.READ_ENTRIES_MAX, block=common.WAIT_S * 1_000)
        entries = common.entries(reply)
        rows, position = common.rows_of(entries), entries[-1][0]
        books.apply(rows)
        store.execute("BEGIN IMMEDIATE")
        common.write(store, books, rows)
        store.execute("UPDATE position SET entry_id = ?", (position,))
        store.execute("COMMIT")
        count += len(rows)
        if len(rows) < len(entries):
            store.close()
            return count


def make_store(folder: Path, number: int) -> Path:
    """A store with the place for a position."""
    path = common.make_store(folder, number)
    store = common.open_store(path)
    store.execute("CREATE TABLE position (entry_id TEXT NOT NULL) STRICT")
    store.execute("INSERT INTO position VALUES ('0')")
    store.close()
    return path


def run(work: common.Work) -> common.Result:
    """Runs the producer and all consumers, each in a process."""
    paths = [make_store(work.folder, number) for number in range(len(STREAMS))]
    with (
        common.streams(work.socket, STREAMS, grouped=False),
        ProcessPoolExecutor(1 + len(STREAMS)) as pool,
    ):
        start = common.clock_s()
        producing = pool.submit(common.append_pipelined, work.path, work.socket, STREAMS)
        consuming = [pool.submit(consume, work.socket, *place) for place in zip(STREAMS, paths, strict=True)]
        producing.result()
        count = sum(each.result() for each in consuming)
        seconds = common.clock_s() - start
    return common.Result(count, seconds, common.stored(work.folder))


if __name__ == "__main__":
    common.main(run)
