"""The fast path of plain stream entries: those that have the same names, read as the lines of one CSV source.

Only what is let through there is taken from there; every other entry goes the plain way (`entries.py`), which alone
says what an entry means.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from hftpipe.core.transaction import Batch
from hftpipe.validation.columnar import ColumnarCsvValidator
from hftpipe.validation.csv import CsvValidator
from hftpipe.validation.entries import EntryValidator, Positioned
from hftpipe.validation.fields import FIELDS
from hftpipe.validation.rows import Validated

_ENTRIES_MIN: Final = 8
"""Fewer than these are read sooner one by one."""
_NAME_BYTES_MAX: Final = 64


class ColumnarEntryValidator:
    """Gives what `EntryValidator` gives, sooner; `plain` is the specification, and judges what is unusual."""

    def __init__(self, plain: EntryValidator) -> None:
        self._plain = plain
        self._names: list[bytes] = []
        self._csv: ColumnarCsvValidator | None = None

    def validate(self, entries: Sequence[Positioned]) -> Validated:
        """As `EntryValidator.validate`."""
        if len(entries) < _ENTRIES_MIN or self._plain.has_row_rules:
            return self._plain.validate(entries)
        names = list(entries[0].fields[::2])
        if names != self._names:
            self._names, self._csv = names, self._reader(names)
        if self._csv is None:
            return self._plain.validate(entries)
        alike = [entry for entry in entries if entry.fields[::2] == names]
        lines = b"\n".join([b",".join(entry.fields[1::2]) for entry in alike])
        if _holds_marks(lines, len(alike), len(names)):
            return self._plain.validate(entries)
        batch = self._csv.validate(lines + b"\n", 1).batch
        positions = np.array([entry.position for entry in alike], dtype=np.int64)
        batch = replace(batch, rows=positions[batch.rows - 1])
        if len(batch) == len(entries):
            return Validated(batch, [], len(entries))
        read = set(batch.rows.tolist())
        slow = self._plain.validate([entry for entry in entries if entry.position not in read])
        return Validated(_merged(batch, slow.batch), slow.invalid, len(entries))

    def _reader(self, names: Sequence[bytes]) -> ColumnarCsvValidator | None:
        """A validator for the values of these names in CSV; None when they are not those of all four fields."""
        if len(names) != len(FIELDS) or max(map(len, names)) > _NAME_BYTES_MAX:
            return None
        if not self._plain.names_fields(names):
            return None
        return ColumnarCsvValidator(CsvValidator.from_header(b",".join(names), rounding=self._plain.rounding))


def _holds_marks(lines: bytes, count: int, width: int) -> bool:
    """Whether a value holds what parts lines or cells, or quotes them: it would mean something else in CSV."""
    return (
        b'"' in lines
        or b"\r" in lines
        or lines.count(b"\n") != count - 1
        or lines.count(b",") != count * (width - 1)
    )


def _merged(one: Batch, other: Batch) -> Batch:
    """Both, by row."""
    if not len(one) or not len(other):
        return one if len(one) else other
    assert one.txs is not None and other.txs is not None  # noqa: S101, PT018 - entries name their ids
    joined = Batch(
        one.kinds + other.kinds,
        np.concatenate([one.accounts, other.accounts]),
        np.concatenate([one.txs, other.txs]),
        np.concatenate([one.amounts, other.amounts]),
        np.concatenate([one.rows, other.rows]),
    )
    return joined.pick(np.argsort(joined.rows, kind="stable"))
