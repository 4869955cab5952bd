"""What is sent to the reception service: made-up transactions as text, made before any clock starts."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from hftpipe.bench.latency_source import transactions
from hftpipe.core.transaction import Batch

_CSV_HEADER: Final = "type,client,tx,amount\n"

_NAMES: Final = {"D": "deposit", "W": "withdrawal"}


def rows(count: int, first_tx: int) -> Batch:
    """Transactions with the ids first_tx, first_tx + 1, …; in this order, none is refused."""
    return replace(transactions(count, seed=first_tx), txs=np.arange(first_tx, first_tx + count))


def csv(batch: Batch) -> bytes:
    """As CSV, with its header."""
    lines = [f"{kind},{account},{tx},{amount}\n" for kind, account, tx, amount in _texts(batch)]
    return "".join([_CSV_HEADER, *lines]).encode()


def jsonl(batch: Batch) -> bytes:
    """As JSON Lines."""
    lines = [
        f'{{"type":"{kind}","client":{account},"tx":{tx},"amount":"{amount}"}}\n'
        for kind, account, tx, amount in _texts(batch)
    ]
    return "".join(lines).encode()


def _texts(batch: Batch) -> Iterator[tuple[str, int, int, str]]:
    txs: Sequence[int] = [] if batch.txs is None else batch.txs.tolist()
    kinds = [_NAMES[kind] for kind in batch.kinds]
    amounts = [f"{amount // 10_000}.{amount % 10_000:04d}" for amount in batch.amounts.tolist()]
    return zip(kinds, batch.accounts.tolist(), txs, amounts, strict=True)
