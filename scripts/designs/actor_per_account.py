"""An actor for each account: an asyncio task with a mailbox, which alone knows the balance.

The reader posts each row to its account and lets the actors run every thousand rows; that bounds all mailboxes.

Correctness: a crash loses all; an id is unique in its account only.
Rows: 200000
"""

import asyncio
import gc
from pathlib import Path

import common

POSTED_ROWS_MAX = 1_000

Mailbox = asyncio.Queue[common.Row | None]


async def live(mailbox: Mailbox) -> tuple[int, int]:
    """One account until its mailbox ends; returns how many rows it got, and what is available."""
    available, count = 0, 0
    taken: set[int] = set()
    while (row := await mailbox.get()) is not None:
        count += 1
        kind, _, tx_text, amount = row
        tx = int(tx_text)
        if tx not in taken:
            taken.add(tx)
            balance = available + common.change(kind, amount)
            if balance >= 0:
                available = balance
    return count, available


async def post_all(path: Path) -> dict[int, tuple[int, int]]:
    """Gives every row to the actor of its account; returns what each account came to."""
    mailboxes: dict[int, Mailbox] = {}
    actors: dict[int, asyncio.Task[tuple[int, int]]] = {}
    async with asyncio.TaskGroup() as group:
        for chunk in common.chunks(common.rows(path), POSTED_ROWS_MAX):
            for row in chunk:
                account = int(row[1])
                mailbox = mailboxes.get(account)
                if mailbox is None:
                    mailbox = mailboxes[account] = asyncio.Queue()
                    actors[account] = group.create_task(live(mailbox))
                mailbox.put_nowait(row)
            await asyncio.sleep(0)
        for mailbox in mailboxes.values():
            mailbox.put_nowait(None)
    return {account: actor.result() for account, actor in actors.items()}


def run(work: common.Work) -> common.Result:
    """Runs reader and actors in one thread."""
    gc.disable()  # it would look through all those tasks again and again, for half of the time
    start = common.clock_s()
    finished = asyncio.run(post_all(work.path))
    seconds = common.clock_s() - start
    count = sum(rows for rows, _ in finished.values())
    return common.Result(count, seconds, {account: available for account, (_, available) in finished.items()})


if __name__ == "__main__":
    common.main(run)
