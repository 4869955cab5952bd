"""What a damaged entry still says, as far as it can be read."""

from collections.abc import Mapping
from typing import Final

import numpy as np

from hftpipe.core.payload import Unreadable, read_columns
from hftpipe.core.transaction import Batch

_ACCOUNTS_SHOWN: Final = 10


def remains_told(fields: Mapping[bytes, bytes]) -> str:
    """`; it says that …`: not to be trusted, for it was changed."""
    told = [f"{fields[b'n'].decode(errors='backslashreplace')} transactions"]
    told.append(f"of {fields[b'src'].decode(errors='backslashreplace')}")
    batch = _batch(fields)
    if batch is not None:
        accounts = np.unique(batch.accounts).tolist()
        more = f" and {len(accounts) - _ACCOUNTS_SHOWN} more" if len(accounts) > _ACCOUNTS_SHOWN else ""
        told.append(f"rows {int(batch.rows[0])} to {int(batch.rows[-1])}")
        told.append(f"accounts {', '.join(map(str, accounts[:_ACCOUNTS_SHOWN]))}{more}")
    return f"; what is left of it says: {', '.join(told)}. It is kept as a dead letter"


def _batch(fields: Mapping[bytes, bytes]) -> Batch | None:
    try:
        return read_columns(fields[b"b"], int(fields[b"prev"]), int(fields[b"n"]))
    except (Unreadable, ValueError, OverflowError):
        return None
