"""The fast path: whole blocks of ordinary lines read as columns, and nothing else; of CSV here.

Every line that is not ordinary, and every one in doubt, goes the plain way (`csv.py`, `jsonl.py`) and is reported
there; so the plain way alone says what a line means, and this one only says it sooner.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple, Protocol, TypeAlias

import numpy as np

from hftpipe.config import LINE_BYTES_MAX
from hftpipe.core.transaction import Batch, Column
from hftpipe.validation.columns import (
    AmountForm,
    Cells,
    Flags,
    Places,
    Text,
    read_amounts,
    read_identifiers,
    read_kinds,
)
from hftpipe.validation.csv import CsvValidator
from hftpipe.validation.fields import ACCOUNT, AMOUNT, KIND, TX
from hftpipe.validation.reasons import Invalid
from hftpipe.validation.rows import Validated

_LINE_FEED, _COMMA, _QUOTE, _BLANK, _TILDE = b'\n," ~'


class Plain(Protocol):
    """The plain way of a format: the specification."""

    @property
    def has_row_rules(self) -> bool:
        """Whether rows are judged as a whole, too."""

    def validate(self, lines: bytes, first_line: int) -> Validated:
        """Judges complete lines."""


class Spelling(NamedTuple):
    """How a format writes what the columns read; `any_case`: kinds also with capitals."""

    any_case: bool
    amounts: AmountForm


class Cut(NamedTuple):
    """Some lines of a block, and for each of them the places of so many marks within it."""

    indexes: Places
    marks: Sequence[Places]

    def of(self, kept: Flags) -> "Cut":
        """Some of them."""
        return self if kept.all() else Cut(self.indexes[kept], [places[kept] for places in self.marks])


class Lines:
    """Complete lines, cut at every line feed and every separator; and which of them have been read."""

    def __init__(self, lines: bytes, separator: int, first_line: int) -> None:
        self.text = Text(lines)
        self.first_line = first_line
        self._lines = lines
        is_end = self.text.octets == _LINE_FEED
        self.count = int(np.count_nonzero(is_end))
        self._marks = np.flatnonzero(is_end | (self.text.octets == separator))
        self._unread: Flags | None = None

    def cut(self, separators: int) -> Cut:
        """The unread lines with so many separators.

        marks: the line feed before (-1 for the first line), the separators, the line's own line feed.
        """
        width = separators + 1
        if self._unread is None and len(self._marks) == self.count * width:
            table = np.ascontiguousarray(self._marks.reshape(-1, width).T)
            if (self.text.octets[table[-1]] == _LINE_FEED).all():
                return Cut(np.arange(self.count), [_before(table[-1]), *table])
        ends = self._line_feeds()
        is_wanted = np.diff(ends, prepend=-1) == width
        if self._unread is not None:
            is_wanted &= self._unread
        indexes = np.flatnonzero(is_wanted)
        own = ends[indexes]
        columns = [self._marks[own - behind] for behind in range(separators, -1, -1)]
        return Cut(indexes, [_before(self._marks[ends])[indexes], *columns])

    def read(self, indexes: Places, fields: Mapping[str, Cells], spelling: Spelling) -> Batch:
        """The ordinary ones of some lines, whose fields were found; they count as read from then on."""
        batch, good = _read(self.text, indexes + self.first_line, fields, spelling)
        if self._unread is None:
            self._unread = np.ones(self.count, dtype=bool)
        self._unread[indexes] = ~good
        return batch

    @property
    def has_unread(self) -> bool:
        """Whether there are lines that were not read."""
        return self._unread is None or bool(self._unread.any())

    def unread(self) -> Places:
        """Indexes of the lines that were not read."""
        return np.arange(self.count) if self._unread is None else np.flatnonzero(self._unread)

    def at(self, indexes: Places) -> list[bytes]:
        """Some lines, without their ends."""
        ends = self._marks[self._line_feeds()]
        starts = _before(ends)[indexes] + 1
        pairs = zip(starts.tolist(), ends[indexes].tolist(), strict=True)
        return [self._lines[start:end] for start, end in pairs]

    def _line_feeds(self) -> Places:
        """Which of the marks are line feeds."""
        return np.flatnonzero(self.text.octets[self._marks] == _LINE_FEED)


Read: TypeAlias = Callable[[Lines], Sequence[Batch]]
"""Reads what is ordinary of some lines."""


def validated(plain: Plain, lines: bytes, first_line: int, *, separator: int, read: Read) -> Validated:
    """What `plain` says of complete lines; with rules about whole rows, all of them go the plain way."""
    if plain.has_row_rules:
        return plain.validate(lines, first_line)
    if b"\r" in lines:
        unix = lines.replace(b"\r\n", b"\n")
        if b"\r" in unix:
            return plain.validate(lines, first_line)
        lines = unix
    if not lines.endswith(b"\n"):
        lines += b"\n"
    block = Lines(lines, separator, first_line)
    batches = [batch for batch in read(block) if len(batch)]
    invalid: list[Invalid] = []
    rows = block.count
    left = block.unread()
    if len(left):
        slow = plain.validate(b"\n".join(block.at(left)), 1)
        numbers = left + first_line
        if len(slow.batch) or not batches:
            batches.append(replace(slow.batch, rows=numbers[slow.batch.rows - 1]))
        invalid = [replace(row, line=int(numbers[row.line - 1])) for row in slow.invalid]
        rows += slow.rows - len(left)
    return Validated(_in_order(batches), invalid, rows)


class ColumnarCsvValidator:
    """Gives what `CsvValidator` gives, sooner; `plain` is the specification, and judges what is unusual."""

    def __init__(self, plain: CsvValidator) -> None:
        self._plain = plain
        self._positions = plain.positions
        # Where the amount comes last, lines of kinds that need none may end before it.
        may_end_before = self._positions.get(AMOUNT.name) == plain.width - 1
        self._widths = (plain.width, plain.width - 1)[: 1 + may_end_before]

    def validate(self, lines: bytes, first_line: int) -> Validated:
        """As `CsvValidator.validate`."""
        return validated(self._plain, lines, first_line, separator=_COMMA, read=self._read)

    def _read(self, lines: Lines) -> list[Batch]:
        return [self._read_width(lines, width) for width in self._widths if lines.has_unread]

    def _read_width(self, lines: Lines, width: int) -> Batch:
        """The lines with so many fields."""
        cut = lines.cut(width - 1)
        positions = {name: at for name, at in self._positions.items() if at < width}
        if width > len(positions):
            cut = cut.of(_are_clear(lines, cut))
        fields = {name: Cells(cut.marks[at] + 1, cut.marks[at + 1]) for name, at in positions.items()}
        return lines.read(cut.indexes, fields, _SPELLING)


_SPELLING: Final = Spelling(any_case=True, amounts=AmountForm.FREE)


def _are_clear(lines: Lines, cut: Cut) -> Flags:
    """Which lines are short, and of printable ASCII without quotes: columns that are not ours are not looked at."""
    octets = lines.text.octets
    places = np.flatnonzero((octets < _BLANK) | (octets > _TILDE) | (octets == _QUOTE))
    marks = cut.marks
    # A line's own line feed is the only such byte from its beginning to its end.
    first, last = np.searchsorted(places, (marks[0] + 1, marks[-1]))
    clear: Flags = (first == last) & (marks[-1] - marks[0] - 1 <= LINE_BYTES_MAX)
    return clear


def _before(ends: Places) -> Places:
    """Where the line feed before each line stands."""
    return np.concatenate([[-1], ends[:-1]])


def _read(text: Text, rows: Places, fields: Mapping[str, Cells], spelling: Spelling) -> tuple[Batch, Flags]:
    """The ordinary lines, and which they are; `rows` are the numbers of all."""
    letters = read_kinds(text, fields[KIND.name], any_case=spelling.any_case)
    accounts, good = read_identifiers(text, fields[ACCOUNT.name])
    moving = (letters == ord("D")) | (letters == ord("W"))
    good &= letters != 0
    txs: Column | None = None
    if TX.name in fields:
        txs, readable = read_identifiers(text, fields[TX.name])
        good &= readable
    else:
        good &= moving
    if AMOUNT.name in fields:
        cells = fields[AMOUNT.name]
        amounts, readable = read_amounts(text, cells, spelling.amounts)
        if spelling.amounts is not AmountForm.WHOLE:
            readable |= ~moving & (cells.starts == cells.ends)
        good &= readable
        amounts *= moving
    else:
        amounts = np.zeros(len(letters), dtype=np.int64)
        good &= ~moving
    batch = Batch(letters.tobytes().decode("ascii"), accounts, txs, amounts, rows)
    return batch if good.all() else batch.pick(np.flatnonzero(good)), good


def _in_order(batches: Sequence[Batch]) -> Batch:
    """All of them as one, by row."""
    if len(batches) == 1:
        return batches[0]
    txs = [batch.txs for batch in batches if batch.txs is not None]
    joined = Batch(
        "".join(batch.kinds for batch in batches),
        np.concatenate([batch.accounts for batch in batches]),
        np.concatenate(txs) if txs else None,
        np.concatenate([batch.amounts for batch in batches]),
        np.concatenate([batch.rows for batch in batches]),
    )
    return joined.pick(np.argsort(joined.rows, kind="stable"))
