"""CSV: a header that names the columns, then one transaction a line. Quoted fields end within their line."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Final, NamedTuple, TypeAlias

from hftpipe.config import LINE_BYTES_MAX
from hftpipe.errors import SourceRefused
from hftpipe.validation.fields import (
    ACCOUNT,
    FIELD_OF_NAME,
    FIELDS,
    KIND,
    TEXT_READERS,
    TX,
    Rounding,
    ascii_lower,
)
from hftpipe.validation.lines import BLANKS, clean_text, readable_lines
from hftpipe.validation.reasons import Broken, Invalid, InvalidReason, shown, shown_bytes
from hftpipe.validation.rows import ABSENT, Absent, Accepted, Judge, RowRule, Validated, judge_lines

BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"

_Cells: TypeAlias = tuple[str | Absent, str | Absent, str | Absent, str | Absent]
"""Cells of kind, account, tx, amount."""

_QUOTED: Final = re.compile(r'[ \t]*"((?:[^"]|"")*+)("?)')
"""The beginning of a quoted field up to its closing quote, or to the end of the line when it has none."""

_EXPECTED: Final = "name the columns in the first line, such as type,client,tx,amount"


class SplitLine(NamedTuple):
    """The cells of one line, without the blanks and quotes round them.

    misquoted: index of the first cell whose quotes are not well made, or -1. Such a cell keeps them, so that it can
    never pass for one of our fields; behind a quote that never closes, the rest of the line is one cell.
    """

    cells: list[str]
    misquoted: int


class CsvValidator:
    """Validates the lines of one CSV source; made from its header, and without state from then on.

    A field counts as missing if the row ends before it; columns that are not ours may be missing at the row's end. A
    misquoted field of ours is reported as any other that cannot be read; in another column, as missing.
    """

    __slots__ = ("_judge", "_names", "_pick", "_pick_full", "_positions", "_width")

    def __init__(self, names: Sequence[str], rounding: Rounding, extra_rules: Sequence[RowRule]) -> None:
        self._names = names
        self._width = len(names)
        self._positions = {
            FIELD_OF_NAME[name].name: at for at, name in enumerate(names) if name in FIELD_OF_NAME
        }
        positions = [self._positions.get(field.name) for field in FIELDS]
        self._pick = _picker(positions)
        self._pick_full = _full_picker(positions)
        self._judge = Judge(TEXT_READERS, rounding, extra_rules, has_tx=TX.name in self._positions)

    @classmethod
    def from_header(
        cls, header_line: bytes, *, rounding: Rounding = Rounding.REJECT, extra_rules: Sequence[RowRule] = ()
    ) -> "CsvValidator":
        """Reads the header, the source's first line with or without its end; a byte order mark may lead it.

        Raises SourceRefused when the columns cannot be told from it; the caller puts the source's name in front.
        """
        return cls(_column_names(header_line), rounding, extra_rules)

    @property
    def width(self) -> int:
        """How many columns the header names."""
        return self._width

    @property
    def has_row_rules(self) -> bool:
        """Whether rows are judged as a whole, too."""
        return self._judge.has_row_rules

    @property
    def positions(self) -> Mapping[str, int]:
        """The column of each field that the header names."""
        return self._positions

    @property
    def has_tx(self) -> bool:
        """Whether the source has a column of transaction ids."""
        return TX.name in self._positions

    def validate(self, lines: bytes, first_line: int) -> Validated:
        """Judges complete lines; `first_line` is the line number of the first one. Never raises, whatever they hold.

        One bad line never harms another: each non-blank line is accepted or reported by itself.
        """
        texts, invalid = readable_lines(lines, first_line)
        is_plain = not (b'"' in lines or b" " in lines or b"\t" in lines)
        judge = self._judge_plain if is_plain else self._judge_any
        return judge_lines(texts, first_line, invalid, judge=judge, report=self._report, has_tx=self.has_tx)

    def _judge_plain(self, text: str) -> Accepted | Broken:
        """The same as `_judge_any` for a line without blanks and quotes, faster."""
        cells = text.split(",")
        if len(cells) != self._width:
            return self._judge_any(text)
        return self._judge.judge(*self._pick_full(cells))

    def _judge_any(self, text: str) -> Accepted | Broken:
        cells, misquoted = split_line(text)
        if len(cells) > self._width:
            return Broken("", InvalidReason.TOO_MANY_FIELDS)
        if misquoted >= 0 and misquoted not in self._positions.values():
            return Broken(self._column(misquoted), InvalidReason.MISSING_FIELD)
        pick = self._pick_full if len(cells) == self._width else self._pick
        return self._judge.judge(*pick(cells))

    def _column(self, position: int) -> str:
        return shown(self._names[position]) or f"column {position + 1}"

    def _report(self, number: int, text: str, broken: Broken) -> Invalid:
        cells = split_line(text).cells
        position = self._positions.get(broken.field, len(cells))
        content = cells[position] if position < len(cells) else text
        return Invalid(number, broken.field, broken.reason, shown(content))


def split_line(text: str) -> SplitLine:
    """Splits one line at its commas, not at those within quotes; a doubled quote within quotes is one (RFC 4180)."""
    if '"' not in text:
        return SplitLine([cell.strip(BLANKS) for cell in text.split(",")], -1)
    cells: list[str] = []
    misquoted = -1
    start = 0
    while start <= len(text):
        cell, start, is_well_made = _next_cell(text, start)
        if not is_well_made and misquoted < 0:
            misquoted = len(cells)
        cells.append(cell)
    return SplitLine(cells, misquoted)


def _next_cell(text: str, start: int) -> tuple[str, int, bool]:
    """The cell that begins at `start`, where the next one begins, and whether its quotes are well made."""
    opening = _QUOTED.match(text, start)
    if opening is None:
        end = _comma_from(text, start)
        cell = text[start:end].strip(BLANKS)
        return cell, end + 1, '"' not in cell
    content, closing = opening.groups()
    end = _comma_from(text, opening.end())
    if closing and not text[opening.end() : end].strip(BLANKS):
        return content.replace('""', '"').strip(BLANKS), end + 1, True
    return text[start:end].strip(BLANKS), end + 1, False


def _comma_from(text: str, start: int) -> int:
    comma = text.find(",", start)
    return len(text) if comma < 0 else comma


def _picker(positions: Sequence[int | None]) -> Callable[[Sequence[str]], _Cells]:
    """A function that picks the cells of kind, account, tx and amount out of a row, absent ones too."""

    def pick(cells: Sequence[str]) -> _Cells:
        kind, account, tx, amount = (
            ABSENT if position is None or position >= len(cells) else cells[position]
            for position in positions
        )
        return kind, account, tx, amount

    return pick


def _full_picker(positions: Sequence[int | None]) -> Callable[[Sequence[str]], _Cells]:
    """The same for rows as wide as the header, faster when it has all four columns."""
    kind, account, tx, amount = positions
    if kind is None or account is None or tx is None or amount is None:
        return _picker(positions)
    return itemgetter(kind, account, tx, amount)


# --- header -------------------------------------------------------------------------------------------------


def _column_names(header_line: bytes) -> list[str]:
    text = _header_text(header_line)
    _refuse_other_separators(text)
    cells, misquoted = split_line(text)
    if misquoted >= 0:
        raise SourceRefused(
            f"the quotes of its header are not well made: {shown(text)}; quote whole names or none"
        )
    names = [ascii_lower(cell) for cell in cells]
    _refuse_incomplete(names, text)
    _refuse_doubled(names)
    return names


def _header_text(header_line: bytes) -> str:
    line = header_line.removesuffix(b"\n").removesuffix(b"\r").removeprefix(BYTE_ORDER_MARK)
    if len(line) > LINE_BYTES_MAX:
        raise SourceRefused(
            f"its first line is longer than {LINE_BYTES_MAX} bytes, so it is no CSV header; {_EXPECTED}"
        )
    text = clean_text(line)
    if text is None:
        raise SourceRefused(
            f"its header is not clean UTF-8 text: {shown_bytes(line)}; save the file as CSV in UTF-8"
        )
    if not text.strip(BLANKS):
        raise SourceRefused(f"it has no header: its first line is blank; {_EXPECTED}")
    return text


def _refuse_other_separators(text: str) -> None:
    for separator, name in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        names = [cell.strip(f'{BLANKS}"').lower() for cell in text.split(separator)]
        if sum(name in FIELD_OF_NAME for name in names) > 1:
            raise SourceRefused(
                f"its columns are separated by {name}: {shown(text)}; save it with commas instead"
            )


def _refuse_doubled(names: Sequence[str]) -> None:
    doubled = sorted(name for name, count in Counter(names).items() if name and count > 1)
    if doubled:
        raise SourceRefused(
            f"its header names {shown(doubled[0])!r} twice; give each column a name of its own"
        )
    for field in FIELDS:
        aliases = [name for name in names if name in field.aliases]
        if len(aliases) > 1:
            raise SourceRefused(
                f"its columns {' and '.join(aliases)} both name the {field.name}; leave one, or rename the other"
            )


def _refuse_incomplete(names: Sequence[str], text: str) -> None:
    for field in (KIND, ACCOUNT):
        if not any(name in field.aliases for name in names):
            raise SourceRefused(
                f"its header names no {field.name} column ({', '.join(field.aliases)}): {shown(text)}; {_EXPECTED}"
            )
