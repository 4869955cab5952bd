"""A consumer group on each of several streams, an entry at a time.

An account's rows go to one stream, and each stream has a process, as two consumers of one group would lose the order.
A read takes one entry (COUNT 1), then come a commit and an XACK. The producer pipelines, so that it does not hold the
consumers up.

Correctness: a crash repeats a row, and only its id stops that; nobody takes over from a dead consumer.
Rows: 10000
"""

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import common

STREAMS = [f"consumer-group-count-1-{number}" for number in range(4)]


def consume(socket: str, stream: str, path: Path) -> int:
    """Applies one entry after the other until the stream ends; returns how many rows that were."""
    client, store, books = common.connect(socket), common.open_store(path), common.Books()
    count = 0
    while True:
        reply = client.xreadgroup(
            common.GROUP, common.CONSUMER, {stream: ">"}, count=1, block=common.WAIT_S * 1_000
        )
        entries = common.entries(reply)
        rows = common.rows_of(entries)
        if rows:
            books.apply(rows)
            store.execute("BEGIN IMMEDIATE")
            common.write(store, books, rows)
            store.execute("COMMIT")
        client.xack(stream, common.GROUP, entries[0][0])
        count += len(rows)
        if not rows:
            store.close()
            return count


def run(work: common.Work) -> common.Result:
    """Runs the producer and all consumers, each in a process."""
    paths = [common.make_store(work.folder, number) for number in range(len(STREAMS))]
    with (
        common.streams(work.socket, STREAMS, grouped=True),
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
