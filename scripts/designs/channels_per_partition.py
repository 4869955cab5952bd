"""In-process channels, and a worker thread for each partition.

The reader deals rows to bounded queues by account, in chunks, as a row at a time would cost more than the work on it.
A worker applies a chunk and commits it to a SQLite file of its own.

Correctness: a crash loses what was not committed, and nothing tells where to go on.
Rows: 500000
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

import common

PARTITIONS = 4
CHUNK_ROWS = 10_000
QUEUE_CHUNKS_MAX = 4

Channel = Queue[list[common.Row]]


def deal(path: Path, channels: list[Channel]) -> None:
    """Puts each row into the channel of its account; an empty chunk ends a channel."""
    waiting: list[list[common.Row]] = [[] for _ in channels]
    for row in common.rows(path):
        partition = int(row[1]) % PARTITIONS
        chunk = waiting[partition]
        chunk.append(row)
        if len(chunk) == CHUNK_ROWS:
            channels[partition].put(chunk, timeout=common.WAIT_S)
            waiting[partition] = []
    for channel, chunk in zip(channels, waiting, strict=True):
        if chunk:
            channel.put(chunk, timeout=common.WAIT_S)
        channel.put([], timeout=common.WAIT_S)


def received(channel: Channel) -> Iterator[list[common.Row]]:
    """The chunks of a channel until it ends."""
    while chunk := channel.get(timeout=common.WAIT_S):
        yield chunk


def work_off(channel: Channel, path: Path) -> int:
    """Applies one partition; returns how many rows that were."""
    store, books = common.open_store(path), common.Books()
    count = 0
    for rows in received(channel):
        books.apply(rows)
        store.execute("BEGIN IMMEDIATE")
        common.write(store, books, rows)
        store.execute("COMMIT")
        count += len(rows)
    store.close()
    return count


def run(work: common.Work) -> common.Result:
    """Reads here, and applies in a thread a partition."""
    paths = [common.make_store(work.folder, number) for number in range(PARTITIONS)]
    channels: list[Channel] = [Queue(QUEUE_CHUNKS_MAX) for _ in paths]
    with ThreadPoolExecutor(PARTITIONS) as pool:
        start = common.clock_s()
        working = [pool.submit(work_off, *place) for place in zip(channels, paths, strict=True)]
        deal(work.path, channels)
        count = sum(each.result() for each in working)
        seconds = common.clock_s() - start
    return common.Result(count, seconds, common.stored(work.folder))


if __name__ == "__main__":
    common.main(run)
