"""Which shard an account belongs to."""

import numpy as np

from hftpipe.core.transaction import Batch


def shard_of(account: int, shards: int) -> int:
    """The shard of an account, 0..shards-1; every transaction of an account goes to the same one."""
    return account % shards


def route(batch: Batch, shards: int) -> dict[int, Batch]:
    """The batch split by shard; shards without a transaction are absent, order within a shard is kept."""
    if shards == 1 or not len(batch):
        return {0: batch} if len(batch) else {}
    if len(batch) == 1:
        return {shard_of(int(batch.accounts[0]), shards): batch}
    # Small numbers sort by radix: one pass, and stable.
    shard = (batch.accounts % shards).astype(np.uint16)
    order = np.argsort(shard, kind="stable")
    ends = np.cumsum(np.bincount(shard, minlength=shards))
    sorted_batch = batch.pick(order)
    return {
        number: sorted_batch.slice(start, end)
        for number, (start, end) in enumerate(zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True))
        if end > start
    }
