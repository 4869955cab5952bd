"""A FastStream subscriber that takes batches from a Redis stream.

Each row is published as JSON, as FastStream's documentation shows it. The subscriber belongs to a group, gets up to
1,000 messages at once and commits them together; FastStream acknowledges a batch when the function returns. A process
publishes, another applies.

Correctness: a failed batch stays pending while later ones go on: order is lost; a crash repeats rows.
Rows: 5000
"""

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from pathlib import Path

import common
from faststream.redis import RedisBroker, StreamSub

STREAM = "faststream-batch"
RUN_S_MAX = 600

Produce = Callable[[Path, str], None]
"""Publishes the rows of a file through a server's socket."""


def broker_of(socket: str) -> RedisBroker:
    """A broker that logs to stderr, and only what goes wrong."""
    return RedisBroker(f"unix://{socket}", logger=logging.getLogger(STREAM))


async def publish_all(path: Path, socket: str) -> None:
    """Publishes every row, then the end."""
    async with broker_of(socket) as broker:
        for row in common.rows(path):
            await broker.publish(dict(zip(common.HEADER, row, strict=True)), stream=STREAM)
        await broker.publish({common.LAST: "1"}, stream=STREAM)


def produce(path: Path, socket: str) -> None:
    """The process that publishes."""
    asyncio.run(publish_all(path, socket))


async def consume(
    work: common.Work, store: sqlite3.Connection, pool: ProcessPoolExecutor, produce: Produce
) -> int:
    """Subscribes, then has the rows published; returns how many came."""
    broker, books = broker_of(work.socket), common.Books()
    loop = asyncio.get_running_loop()
    over: asyncio.Future[int] = loop.create_future()
    count = 0

    @broker.subscriber(
        stream=StreamSub(
            STREAM,
            batch=True,
            group=common.GROUP,
            consumer=common.CONSUMER,
            max_records=common.READ_ENTRIES_MAX,
        )
    )
    async def apply(messages: list[dict[str, str]]) -> None:
        nonlocal count
        rows = [tuple(message.values()) for message in messages if common.LAST not in message]
        try:
            books.apply(rows)
            store.execute("BEGIN IMMEDIATE")
            common.write(store, books, rows)
            store.execute("COMMIT")
        except Exception as error:
            over.set_exception(error)  # FastStream itself would only log it
            raise
        count += len(rows)
        if len(rows) < len(messages):
            over.set_result(count)

    async with broker:
        await broker.start()
        producing = loop.run_in_executor(pool, produce, work.path, work.socket)
        async with asyncio.timeout(RUN_S_MAX):
            _, total = await asyncio.gather(producing, over)
    return total


def run(work: common.Work, produce: Produce = produce) -> common.Result:
    """Runs both sides, each in a process."""
    path = common.make_store(work.folder)
    with (
        common.streams(work.socket, [STREAM], grouped=True),
        closing(common.open_store(path)) as store,
        ProcessPoolExecutor(1) as pool,
    ):
        start = common.clock_s()
        count = asyncio.run(consume(work, store, pool, produce))
        seconds = common.clock_s() - start
    return common.Result(count, seconds, common.stored(work.folder))


if __name__ == "__main__":
    common.main(run)
