"""What a submitter over HTTP is told of each row; pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import orjson

from hftpipe.core.amount import render
from hftpipe.core.ledger import Account
from hftpipe.core.transaction import Column
from hftpipe.reception.receipts import Receipts, Status
from hftpipe.validation import Invalid, Validated

Result: TypeAlias = dict[str, object]
"""One row's answer, as JSON has it; without its index."""

STATUS_NAMES: Final = tuple(status.name.lower() for status in Status)
INVALID: Final = "invalid"

_SHARD_BITS: Final = 16


def results_of(receipts: Receipts) -> list[Result]:
    """Status and address of each row."""
    addresses = _addresses(receipts)
    statuses = receipts.statuses.tolist()
    return [
        {"status": STATUS_NAMES[status], "entry": address}
        for status, address in zip(statuses, addresses, strict=True)
    ]


def invalid_result(invalid: Invalid) -> Result:
    """The same of a row that validation did not let through."""
    return {"status": INVALID, "field": invalid.field, "reason": invalid.reason}


def balance_of(account: Account) -> dict[str, object]:
    """A balance as people read it."""
    return {
        "available": render(account.available),
        "held": render(account.held),
        "total": render(account.available + account.held),
        "locked": account.locked,
    }


def many_results(validated: Validated, results: Sequence[Result]) -> bytes:
    """The answer to a batch: `results` of its valid rows, in their order."""
    rows = [
        *zip((validated.batch.rows - 1).tolist(), results, strict=True),
        *((invalid.line - 1, invalid_result(invalid)) for invalid in validated.invalid),
    ]
    if validated.invalid:
        rows.sort(key=lambda row: row[0])
    counts = Counter(result["status"] for _, result in rows)
    body = {
        "results": [{"index": index, **result} for index, result in rows],
        "counts": {name: counts[name] for name in (*STATUS_NAMES, INVALID)},
    }
    return orjson.dumps(body)


def all_durable_results(rows: Column, receipts: Receipts) -> bytes:
    """What `many_results` gives when every row is valid and durable, sooner."""
    addresses = _addresses(receipts)
    formats = {
        address: f'{{"index":%d,"status":"durable","entry":"{address}"}}' for address in set(addresses)
    }
    # One use of % for all rows costs half of what one for each does.
    told = ",".join([formats[address] for address in addresses]) % tuple((rows - 1).tolist())
    counts: Mapping[str, int] = {**dict.fromkeys((*STATUS_NAMES, INVALID), 0), "durable": len(rows)}
    return b'{"results":[%b],"counts":%b}' % (told.encode("ascii"), orjson.dumps(counts))


def _addresses(receipts: Receipts) -> list[str]:
    """The address of each row; few of them differ."""
    keys: list[int] = (receipts.sequences << _SHARD_BITS | receipts.shards).tolist()
    mask = (1 << _SHARD_BITS) - 1
    known = {key: f"{key & mask}/{receipts.generation}-{key >> _SHARD_BITS}" for key in set(keys)}
    return [known[key] for key in keys]
