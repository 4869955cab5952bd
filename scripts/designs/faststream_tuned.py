"""The FastStream subscriber for batches, with rows published a thousand to a pipeline.

As `faststream_batch.py`, but that publishing does not wait for each row's reply.

Correctness: as faststream_batch; and who publishes learns of a lost row only when its whole pipeline is done.
Rows: 100000
"""

import asyncio
from pathlib import Path

import common
import faststream_batch


async def publish_all(path: Path, socket: str) -> None:
    """Publishes every row, then the end."""
    async with faststream_batch.broker_of(socket) as broker:
        pipeline = (await broker.connect()).pipeline(transaction=False)
        for chunk in common.chunks(common.rows(path), common.PIPELINE_COMMANDS):
            for row in chunk:
                message = dict(zip(common.HEADER, row, strict=True))
                await broker.publish(message, stream=faststream_batch.STREAM, pipeline=pipeline)
            await pipeline.execute()
        await broker.publish({common.LAST: "1"}, stream=faststream_batch.STREAM)


def produce(path: Path, socket: str) -> None:
    """The process that publishes."""
    asyncio.run(publish_all(path, socket))


def run(work: common.Work) -> common.Result:
    """Runs both sides, each in a process."""
    return faststream_batch.run(work, produce)


if __name__ == "__main__":
    common.main(run)
