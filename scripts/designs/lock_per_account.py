"""Threads that share all accounts, with a lock for each account.

An account has its balance, its ids and its lock. A lock does not say who comes first, so the reader deals rows to the
threads by account, in chunks; any other thread may look at an account all the same.

Correctness: order comes from the dealing, not the locks; a crash loses all; ids unique per account.
Rows: 1000000
"""

import gc
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import Queue
from threading import Lock

import common

THREADS = os.cpu_count() or 1
CHUNK_ROWS = 4_000
QUEUE_CHUNKS_MAX = 4


@dataclass(slots=True)
class Account:
    """What its lock guards."""

    lock: Lock = field(default_factory=Lock)
    available: int = 0
    taken: set[int] = field(default_factory=set)


def apply(accounts: dict[int, Account], rows: Iterable[common.Row]) -> None:
    """Decides each row under the lock of its account."""
    for kind, account_text, tx_text, amount in rows:
        number, tx = int(account_text), int(tx_text)
        account = accounts.get(number)
        if account is None:
            account = accounts.setdefault(number, Account())  # atomic: two threads get the same one
        change = common.change(kind, amount)
        with account.lock:
            if tx not in account.taken:
                account.taken.add(tx)
                if account.available + change >= 0:
                    account.available += change


def work_off(accounts: dict[int, Account], chunks: "Queue[list[common.Row]]") -> int:
    """Applies what one thread is dealt; returns how many rows that were."""
    count = 0
    while rows := chunks.get(timeout=common.WAIT_S):
        apply(accounts, rows)
        count += len(rows)
    return count


def run(work: common.Work) -> common.Result:
    """Reads here, and applies in several threads."""
    gc.disable()  # it would look through all accounts again and again, for a third of the time
    accounts: dict[int, Account] = {}
    queues: list[Queue[list[common.Row]]] = [Queue(QUEUE_CHUNKS_MAX) for _ in range(THREADS)]
    with ThreadPoolExecutor(THREADS) as pool:
        start = common.clock_s()
        working = [pool.submit(work_off, accounts, queue) for queue in queues]
        for chunk in common.chunks(common.rows(work.path), CHUNK_ROWS * THREADS):
            dealt: list[list[common.Row]] = [[] for _ in queues]
            for row in chunk:
                dealt[int(row[1]) % THREADS].append(row)
            for queue, rows in zip(queues, dealt, strict=True):
                if rows:
                    queue.put(rows, timeout=common.WAIT_S)
        for queue in queues:
            queue.put([], timeout=common.WAIT_S)
        count = sum(each.result() for each in working)
        seconds = common.clock_s() - start
    available = {number: account.available for number, account in accounts.items()}
    return common.Result(count, seconds, available)


if __name__ == "__main__":
    common.main(run)
