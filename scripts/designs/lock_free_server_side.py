"""Atomic updates inside the server: no lock, no queue, no worker.

Balances and ids live in Redis. A script looks whether the id is new, adds the amount, and takes it back if the account
went below zero; EVALSHA, a thousand to a pipeline. The update is atomic, whoever sends it, but the order is the
senders' own: each of them has its own accounts. How durable it is, the server's appendfsync says.

Correctness: repeats do no harm; two senders of an account lose its order; no journal; all in memory.
Rows: 200000
"""

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import common

BALANCES, IDS = "lock-free-balances", "lock-free-ids"
SENDERS = 2

# HINCRBY counts in 64-bit integers. Lua's own numbers are floats, and only the sign of one is looked at.
APPLY = """
local balances, ids = KEYS[1], KEYS[2]
local account, tx, change, back = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if redis.call('SADD', ids, tx) == 0 then
    redis.call('HSETNX', balances, account, 0)
    return 0
end
if redis.call('HINCRBY', balances, account, change) < 0 then
    redis.call('HINCRBY', balances, account, back)
    return 0
end
return 1
"""


def send(path: Path, socket: str, script: str, number: int) -> int:
    """Sends the rows of one sender's accounts to the server, which decides them; returns how many those were."""
    pipeline = common.connect(socket).pipeline(transaction=False)
    own = (row for row in common.rows(path) if int(row[1]) % SENDERS == number)
    count = 0
    for chunk in common.chunks(own, common.PIPELINE_COMMANDS):
        for kind, account, tx, amount in chunk:
            change = common.change(kind, amount)
            pipeline.evalsha(script, 2, BALANCES, IDS, account, tx, change, -change)
        count += len(pipeline.execute())
    return count


def run(work: common.Work) -> common.Result:
    """Runs the senders, each in a process."""
    client = common.connect(work.socket)
    client.delete(BALANCES, IDS)
    script = client.script_load(APPLY)
    with ProcessPoolExecutor(SENDERS) as pool:
        start = common.clock_s()
        sending = [pool.submit(send, work.path, work.socket, script, number) for number in range(SENDERS)]
        count = sum(each.result() for each in sending)
        seconds = common.clock_s() - start
    balances = client.hgetall(BALANCES)
    client.delete(BALANCES, IDS)
    available = {int(account): int(balance) for account, balance in balances.items()}
    return common.Result(count, seconds, available)


if __name__ == "__main__":
    common.main(run)
