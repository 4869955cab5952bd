"""The payload of an entry: its transactions as JSON columns.

What orjson writes has one shape, without a blank: it is checked by what is left when digits and commas are taken away
(so names and letters are looked at again), and its integers are then read without a look at each one's type. JSON of
any other shape is read with all questions asked; both ways accept the same payloads.
"""

import re
from typing import Final

import numpy as np
import orjson

from hftpipe.core.transaction import KIND_LETTERS, Batch, Column

_COLUMNS: Final = ("kind", "account", "tx", "amount", "row")
_NAMES: Final = frozenset(_COLUMNS)
_LETTERS: Final = "".join(KIND_LETTERS).encode("ascii")
_NUMBERS: Final = b"0123456789,"
_SHAPE: Final = re.compile(
    rb'\{"kind":"[DWPRC]*""account":\[\]"tx":(?:\[\]|null)"amount":\[\]"row":\[\]\}',
)


class Unreadable(Exception):
    """Why a payload cannot be of our making."""


def read_columns(payload: bytes, previous: int, count: int) -> Batch:
    """The batch of `count` transactions in a payload whose rows begin behind `previous`. Raises Unreadable."""
    try:
        columns = orjson.loads(payload)
    except orjson.JSONDecodeError:
        raise Unreadable("field b is not JSON") from None
    if _SHAPE.fullmatch(payload.translate(None, _NUMBERS)) is None or columns.keys() != _NAMES:
        _check_shape(columns)
    kinds, txs = columns["kind"], columns["tx"]
    if kinds.encode("ascii", "replace").translate(None, _LETTERS):
        raise Unreadable("column kind holds an unknown letter")
    if count == 0 or len(kinds) != count:
        raise Unreadable("field n is not the number of transactions")
    accounts, amounts, increments = (
        _column(name, columns[name], count) for name in ("account", "amount", "row")
    )
    rows = np.cumsum(increments) + previous
    if rows[0] <= previous or (rows[1:] <= rows[:-1]).any():  # also where the sum went beyond 64 bits
        raise Unreadable("rows do not ascend")
    return Batch(kinds, accounts, None if txs is None else _column("tx", txs, count), amounts, rows)


def _check_shape(columns: object) -> None:
    """That the columns are there, no others, and hold letters and integers."""
    if not isinstance(columns, dict):
        raise Unreadable("field b is not an object")
    if unknown := sorted(columns.keys() - set(_COLUMNS)):
        raise Unreadable(f"unknown column {unknown[0][:40]!r}")
    if missing := sorted(set(_COLUMNS) - columns.keys()):
        raise Unreadable(f"missing column {missing[0]}")
    if not isinstance(columns["kind"], str):
        raise Unreadable("column kind holds an unknown letter")
    for name in _COLUMNS[1:]:
        values = columns[name]
        if name == "tx" and values is None:
            continue
        if not isinstance(values, list):
            raise Unreadable(f"column {name} has not n values")
        if not {int}.issuperset(map(type, values)) or min(values, default=0) < 0:
            raise _not_numbers(name)


def _column(name: str, values: list[int], count: int) -> Column:
    if len(values) != count:
        raise Unreadable(f"column {name} has not n values")
    try:
        return np.fromiter(values, np.int64, count)
    except OverflowError:  # orjson reads an integer beyond 64 bits as a float: it is never within them
        raise _not_numbers(name) from None


def _not_numbers(name: str) -> Unreadable:
    return Unreadable(f"column {name} holds something else than integers from 0 to 2^63-1")
