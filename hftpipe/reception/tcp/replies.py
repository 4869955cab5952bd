"""What a TCP client is told: one JSON object a line, in the order of its own lines. Pure.

Replies are written with one format for many lines: at 200,000 lines a second an object for each would cost too much.
"""

from enum import StrEnum
from functools import lru_cache
from typing import Final

import numpy as np
import orjson

from hftpipe.core.transaction import Column
from hftpipe.reception.receipts import BacklogFull, Receipts, Status, Unacknowledged
from hftpipe.validation import Invalid, Validated

VERSION: Final = 1
"""Of the protocol."""


class ReplyMode(StrEnum):
    """How much a client wants to be told."""

    LINE = "line"
    """Something of each line."""
    BATCH = "batch"
    """One summary of many lines, and of those that are not durable something each."""


class Code(StrEnum):
    """Why a connection is closed."""

    PROTOCOL = "protocol"
    BAD_HEADER = "bad_header"
    UNAUTHORIZED = "unauthorized"
    LINE_TOO_LONG = "line_too_long"
    TIMEOUT = "timeout"
    INCOMPLETE_LINE = "incomplete_line"
    TOO_MANY_CONNECTIONS = "too_many_connections"
    STOPPING = "stopping"


_STATUS_NAMES: Final = tuple(status.name.lower() for status in Status)

_STATUS_BITS: Final = 2
_SHARD_BITS: Final = 16
"""With 45 bits for the sequence number, one integer holds all that a receipt says of a row."""


def hello_reply(pipeline: str, shards: int) -> bytes:
    """The answer to a hello."""
    return orjson.dumps({"hello": VERSION, "pipeline": pipeline, "shards": shards}) + b"\n"


def error_reply(code: Code, line: int, message: str) -> bytes:
    """The last reply of a connection: neither `line` nor anything behind it was taken."""
    return orjson.dumps({"error": code, "line": line, "message": message}) + b"\n"


def busy_reply(line: int, unacknowledged: Unacknowledged) -> bytes:
    """The last reply of a connection: neither `line` nor anything behind it is acknowledged."""
    reason = "backlog_full" if isinstance(unacknowledged, BacklogFull) else "log_away"
    reply = {"line": line, "status": "busy", "reason": reason, "retry_after": unacknowledged.retry_after_s}
    return orjson.dumps(reply) + b"\n"


def line_replies(validated: Validated, receipts: Receipts | None) -> bytes:
    """One reply for each non-blank line; `receipts` of the valid ones, None when there are none."""
    return _told(validated.batch.rows, receipts, validated.invalid, end="\n").encode()


def batch_reply(first_line: int, last_line: int, validated: Validated, receipts: Receipts | None) -> bytes:
    """One reply for the lines of a block; none when all of them are blank."""
    if not validated.rows:
        return b""
    counts = [0] * len(Status)
    entries = told = ""
    others = validated.batch.rows[:0]
    if receipts is not None:
        counts = np.bincount(receipts.statuses, minlength=len(Status)).tolist()
        entries = _entries(receipts)
        other = np.flatnonzero(receipts.statuses)
        others, receipts = validated.batch.rows[other], receipts.pick(other)
    if len(others) or validated.invalid:
        told = _told(others, receipts, validated.invalid, end=",")[:-1]
    names = (*_STATUS_NAMES, "invalid")
    summary = ",".join(
        f'"{name}":{count}' for name, count in zip(names, (*counts, len(validated.invalid)), strict=True)
    )
    lines = f'"lines":[{first_line},{last_line}]'
    return f'{{{lines},{summary},"entries":[{entries}],"rows":[{told}]}}\n'.encode()


def _entries(receipts: Receipts) -> str:
    """The entries that durable rows are in, as JSON strings, by shard and sequence number."""
    durable = receipts.statuses == Status.DURABLE
    shards, sequences = receipts.shards[durable], receipts.sequences[durable]
    found: list[str] = []
    for shard in np.flatnonzero(np.bincount(shards)).tolist():
        of_shard = np.unique(sequences[shards == shard]).tolist()
        found += [f'"{shard}/{receipts.generation}-{sequence}"' for sequence in of_shard]
    return ",".join(found)


def _told(rows: Column, receipts: Receipts | None, invalid: list[Invalid], *, end: str) -> str:
    """An object for each row, by line number, with `end` behind each."""
    lines: list[int] = rows.tolist()
    formats = [] if receipts is None else _formats(receipts)
    if invalid:
        formats += [_invalid_format(row.field, row.reason) for row in invalid]
        lines += [row.line for row in invalid]
        order = sorted(range(len(lines)), key=lines.__getitem__)
        lines = [lines[at] for at in order]
        formats = [formats[at] for at in order]
    # One use of % for all lines costs half of what one for each does.
    return end.join([*formats, ""]) % tuple(lines)


def _formats(receipts: Receipts) -> list[str]:
    """A format for each row, which lacks the line number; few of them differ."""
    packed = receipts.sequences << _SHARD_BITS | receipts.shards
    keys: list[int] = (packed << _STATUS_BITS | receipts.statuses).tolist()
    formats = {key: _format(key, receipts.generation) for key in set(keys)}
    return [formats[key] for key in keys]


def _format(key: int, generation: int) -> str:
    status = _STATUS_NAMES[key & (1 << _STATUS_BITS) - 1]
    shard = key >> _STATUS_BITS & (1 << _SHARD_BITS) - 1
    sequence = key >> _STATUS_BITS + _SHARD_BITS
    return f'{{"line":%d,"status":"{status}","entry":"{shard}/{generation}-{sequence}"}}'


@lru_cache(1_024)
def _invalid_format(field: str, reason: str) -> str:
    told = orjson.dumps({"status": "invalid", "field": field, "reason": reason}).decode()
    return f'{{"line":%d,{told[1:].replace("%", "%%")}'
