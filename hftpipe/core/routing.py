"""Which shard an account belongs to."""

from hftpipe.core.transaction import Batch


def shard_of(account: int, shards: int) -> int:
    """The shard of an account, 0..shards-1; every transaction of an account goes to the same one."""
    return account % shards


def route(batch: Batch, shards: int) -> dict[int, Batch]:
    """The batch split by shard; shards without a transaction are absent, order within a shard is kept."""
    if shards == 1:
        return {0: batch} if len(batch) else {}
    indexes: list[list[int]] = [[] for _ in range(shards)]
    for index, account in enumerate(batch.accounts):
        indexes[account % shards].append(index)
    return {shard: _pick(batch, chosen) for shard, chosen in enumerate(indexes) if chosen}


def _pick(batch: Batch, chosen: list[int]) -> Batch:
    kinds, accounts, txs, amounts, rows = batch.kinds, batch.accounts, batch.txs, batch.amounts, batch.rows
    return Batch(
        "".join([kinds[index] for index in chosen]),
        [accounts[index] for index in chosen],
        None if txs is None else [txs[index] for index in chosen],
        [amounts[index] for index in chosen],
        [rows[index] for index in chosen],
    )
