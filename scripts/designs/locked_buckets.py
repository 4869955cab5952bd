"""Threads that share a fixed number of buckets of accounts, with a lock for each bucket.

The reader gathers rows by bucket, and a thread takes a bucket's lock once for all of them. A lock does not say who
comes first, so a bucket's rows always go to the same thread.

Correctness: order comes from the dealing, not the locks; a crash loses all; ids unique per bucket.
Rows: 1000000
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import Queue
from threading import Lock

import common

THREADS = os.cpu_count() or 1
BUCKETS = 64
CHUNK_ROWS = 16_000
QUEUE_CHUNKS_MAX = 64


@dataclass(slots=True)
class Bucket:
    """What its lock guards."""

    lock: Lock = field(default_factory=Lock)
    books: common.Books = field(default_factory=common.Books)


Job = tuple[Bucket, list[common.Row]] | None


def work_off(jobs: "Queue[Job]") -> int:
    """Applies what one thread is given; returns how many rows that were."""
    count = 0
    while job := jobs.get(timeout=common.WAIT_S):
        bucket, rows = job
        with bucket.lock:
            bucket.books.apply(rows)
        count += len(rows)
    return count


def run(work: common.Work) -> common.Result:
    """Reads here, and applies in several threads."""
    buckets = [Bucket() for _ in range(BUCKETS)]
    queues: list[Queue[Job]] = [Queue(QUEUE_CHUNKS_MAX) for _ in range(THREADS)]
    with ThreadPoolExecutor(THREADS) as pool:
        start = common.clock_s()
        working = [pool.submit(work_off, queue) for queue in queues]
        for chunk in common.chunks(common.rows(work.path), CHUNK_ROWS):
            gathered: list[list[common.Row]] = [[] for _ in buckets]
            for row in chunk:
                gathered[int(row[1]) % BUCKETS].append(row)
            for number, rows in enumerate(gathered):
                if rows:
                    queues[number % THREADS].put((buckets[number], rows), timeout=common.WAIT_S)
        for queue in queues:
            queue.put(None, timeout=common.WAIT_S)
        count = sum(each.result() for each in working)
        seconds = common.clock_s() - start
    available = {account: held for bucket in buckets for account, held in bucket.books.available.items()}
    return common.Result(count, seconds, available)


if __name__ == "__main__":
    common.main(run)
