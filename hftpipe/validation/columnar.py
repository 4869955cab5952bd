"""The fast path of CSV: a whole block of ordinary lines read as columns, and nothing else.

An ordinary line has the header's number of fields, printable ASCII without blanks and quotes, kinds and canonical
numbers of up to 16 digits, and breaks no rule. Every other line, and every one in doubt, goes the plain way (`csv.py`)
and is reported there; so the plain way alone says what a line means, and this one only says it sooner.

Eight digits are read with three multiplications (D. Lemire, "Quickly parsing eight digits", 2018), here for a column
of them at a time.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hftpipe.config import LINE_BYTES_MAX
from hftpipe.core.transaction import AMOUNT_MAX, SCALE, Batch, Column, Kind
from hftpipe.validation.csv import CsvValidator
from hftpipe.validation.fields import ACCOUNT, AMOUNT, KIND, TX
from hftpipe.validation.rows import Validated

Words: TypeAlias = NDArray[np.uint64]
Flags: TypeAlias = NDArray[np.bool_]
Places: TypeAlias = NDArray[np.int64]

_MARGIN: Final = 16
"""Bytes round the block, so that whole words can be read before its first and behind its last field."""

_DIGITS_MAX: Final = 16
_WHOLE_DIGITS_MAX: Final = 14
_DECIMALS: Final = 4

_LINE_FEED, _COMMA, _POINT, _ZERO = b"\n,.0"

_UNUSUAL: Final = bytes(
    0 if byte == _LINE_FEED or (0x20 < byte < 0x7F and byte != ord('"')) else 1 for byte in range(256)
)
"""Bytes that make a line unusual: blanks, quotes, controls, and what is no ASCII."""

_LAST_BYTES: Final = np.array(
    [(2**64 - 1) ^ (2 ** (8 * (8 - kept)) - 1) for kept in range(9)], dtype=np.uint64
)
"""Masks that keep the last so many of a word's eight bytes, as they stand in the text (little endian)."""
_FIRST_BYTES: Final = np.array([2 ** (8 * kept) - 1 for kept in range(9)], dtype=np.uint64)

_LOWER: Final = np.uint64(0x2020202020202020)
_POWERS: Final = np.array([10**exponent for exponent in range(_DECIMALS + 1)], dtype=np.int64)


def _word(text: bytes) -> np.uint64:
    return np.uint64(int.from_bytes(text.ljust(8, b"\0"), "little"))


_KINDS: Final = tuple(
    (len(name), _word(name[:8]), _word(name[8:]), ord(kind.value))
    for kind in Kind
    for name in [kind.name.lower().encode()]
)


class ColumnarCsvValidator:
    """Gives what `CsvValidator` gives, sooner; `plain` is the specification, and judges what is unusual."""

    def __init__(self, plain: CsvValidator) -> None:
        self._plain = plain
        self._width = plain.width
        self._positions = plain.positions

    def validate(self, lines: bytes, first_line: int) -> Validated:
        """As `CsvValidator.validate`; with rules about whole rows, all goes the plain way."""
        if self._plain.has_row_rules:
            return self._plain.validate(lines, first_line)
        if b"\r" in lines:
            unix = lines.replace(b"\r\n", b"\n")
            if b"\r" in unix:
                return self._plain.validate(lines, first_line)
            lines = unix
        if not lines.endswith(b"\n"):
            lines += b"\n"
        block = _Block(lines, self._width)
        fast = _read(block, self._positions, first_line)
        if len(fast) == block.count:
            return Validated(fast, [], block.count)
        return self._joined(block, fast, first_line)

    def _joined(self, block: "_Block", fast: Batch, first_line: int) -> Validated:
        """The unusual lines judged the plain way, and put back into their places."""
        is_fast = np.zeros(block.count, dtype=bool)
        is_fast[fast.rows - first_line] = True
        numbers = np.flatnonzero(~is_fast) + first_line
        slow = self._plain.validate(b"\n".join(block.lines(numbers - first_line)), 1)
        invalid = [replace(row, line=int(numbers[row.line - 1])) for row in slow.invalid]
        batch = replace(slow.batch, rows=numbers[slow.batch.rows - 1])
        both = _concatenated(fast, batch) if len(batch) else fast
        order = np.argsort(both.rows, kind="stable")
        return Validated(both.pick(order), invalid, len(fast) + slow.rows)


class _Block:
    """Complete lines, cut at every comma; `starts` and `ends` of ordinary lines' fields are found by column."""

    def __init__(self, lines: bytes, width: int) -> None:
        self._text = lines
        padded = b"0" * _MARGIN + lines + b"0" * _MARGIN
        self.octets = np.frombuffer(lines, dtype=np.uint8)
        self._words: Words = np.ndarray((len(padded) - 7,), dtype="<u8", buffer=padded, strides=(1,))
        self.line_ends = np.flatnonzero(self.octets == _LINE_FEED)
        self.line_starts = np.concatenate([[0], self.line_ends[:-1] + 1])
        self.count = len(self.line_ends)
        commas = np.flatnonzero(self.octets == _COMMA)
        before = np.searchsorted(commas, self.line_ends)
        regular = np.diff(before, prepend=0) == width - 1
        regular &= self.line_ends - self.line_starts <= LINE_BYTES_MAX
        self._drop_unusual(regular)
        self.regular = np.flatnonzero(regular)
        first_commas = before[self.regular] - (width - 1)
        inner = (
            commas[first_commas[:, None] + np.arange(width - 1)]
            if width > 1
            else first_commas[:, None][:, :0]
        )
        self._cuts = np.column_stack(
            [self.line_starts[self.regular] - 1, inner, self.line_ends[self.regular]]
        )

    def _drop_unusual(self, regular: Flags) -> None:
        flags = self._text.translate(_UNUSUAL)
        if b"\x01" in flags:
            places = np.flatnonzero(np.frombuffer(flags, dtype=np.uint8))
            regular[np.searchsorted(self.line_ends, places)] = False

    def field(self, column: int) -> tuple[Places, Places]:
        """Where the fields of a column begin and end, one a regular line."""
        return self._cuts[:, column] + 1, self._cuts[:, column + 1]

    def words_at(self, places: Places) -> Words:
        """The eight bytes from each place on."""
        return self._words[places + _MARGIN]

    def lines(self, indexes: Places) -> list[bytes]:
        """Some lines, without their ends."""
        starts, ends = self.line_starts[indexes].tolist(), self.line_ends[indexes].tolist()
        return [self._text[start:end] for start, end in zip(starts, ends, strict=True)]


def _read(block: _Block, positions: Mapping[str, int], first_line: int) -> Batch:
    """The ordinary lines of a block."""
    letters = _kinds(block, *block.field(positions[KIND.name]))
    accounts, good = _identifiers(block, *block.field(positions[ACCOUNT.name]))
    moving = (letters == ord("D")) | (letters == ord("W"))
    good &= letters != 0
    txs: Column | None = None
    if TX.name in positions:
        txs, readable = _identifiers(block, *block.field(positions[TX.name]))
        good &= readable
    else:
        good &= moving
    if AMOUNT.name in positions:
        starts, ends = block.field(positions[AMOUNT.name])
        amounts, readable = _amounts(block, starts, ends)
        good &= (moving & readable) | (~moving & (starts == ends))
        amounts[~moving] = 0
    else:
        amounts = np.zeros(len(letters), dtype=np.int64)
        good &= ~moving
    batch = Batch(letters.tobytes().decode("ascii"), accounts, txs, amounts, block.regular + first_line)
    return batch if good.all() else batch.pick(np.flatnonzero(good))


def _kinds(block: _Block, starts: Places, ends: Places) -> NDArray[np.uint8]:
    """Letters of the kinds, in any case; 0 where it is none."""
    lengths = ends - starts
    first = (block.words_at(starts) | _LOWER) & _FIRST_BYTES[np.minimum(lengths, 8)]
    rest = (block.words_at(starts + 8) | _LOWER) & _FIRST_BYTES[np.clip(lengths - 8, 0, 8)]
    letters = np.zeros(len(starts), dtype=np.uint8)
    for length, head, tail, letter in _KINDS:
        letters[(lengths == length) & (first == head) & (rest == tail)] = letter
    return letters


def _identifiers(block: _Block, starts: Places, ends: Places) -> tuple[Column, Flags]:
    """Canonical numbers, and which fields hold one."""
    lengths = ends - starts
    values, good = _numbers(block, ends, lengths)
    good &= (lengths > 0) & (lengths <= _DIGITS_MAX)
    good &= (lengths == 1) | (block.octets[starts] != _ZERO)
    return values, good


def _amounts(block: _Block, starts: Places, ends: Places) -> tuple[Column, Flags]:
    """Amounts in ten-thousandths, and which fields hold one that breaks no rule."""
    points = np.flatnonzero(block.octets == _POINT)
    nearest = np.searchsorted(points, starts)
    point = np.append(points, len(block.octets))[nearest]
    has_point = point < ends
    whole_ends = np.where(has_point, point, ends)
    wholes = whole_ends - starts
    decimals = np.where(has_point, ends - point - 1, 0)
    whole, good = _numbers(block, whole_ends, wholes)
    fraction, readable = _numbers(block, ends, np.minimum(decimals, _DECIMALS))
    good &= readable & (decimals <= _DECIMALS) & (wholes <= _WHOLE_DIGITS_MAX) & (wholes + decimals > 0)
    amounts = whole * SCALE + fraction * _POWERS[_DECIMALS - np.minimum(decimals, _DECIMALS)]
    good &= (amounts > 0) & (amounts <= AMOUNT_MAX)
    return amounts, good


def _numbers(block: _Block, ends: Places, lengths: Places) -> tuple[Column, Flags]:
    """Numbers of up to 16 digits that end at the places, 0 for none; and where all of it were digits."""
    values, good = _eight_digits(block.words_at(ends - 8), np.clip(lengths, 0, 8))
    if len(lengths) and lengths.max() > 8:
        high, readable = _eight_digits(block.words_at(ends - 16), np.clip(lengths - 8, 0, 8))
        values += high * 100_000_000
        good &= readable
    return values, good


def _eight_digits(words: Words, lengths: Places) -> tuple[Column, Flags]:
    """The number in the last `lengths` bytes of each word."""
    kept = _LAST_BYTES[lengths]
    words = (words & kept) | (np.uint64(0x3030303030303030) & ~kept)
    high = np.uint64(0xF0F0F0F0F0F0F0F0)
    zeros = np.uint64(0x3030303030303030)
    good = (words & high == zeros) & ((words + np.uint64(0x0606060606060606)) & high == zeros)
    words = ((words & np.uint64(0x0F0F0F0F0F0F0F0F)) * np.uint64(2561)) >> np.uint64(8)
    words = ((words & np.uint64(0x00FF00FF00FF00FF)) * np.uint64(6553601)) >> np.uint64(16)
    words = ((words & np.uint64(0x0000FFFF0000FFFF)) * np.uint64(42949672960001)) >> np.uint64(32)
    return words.astype(np.int64), good


def _concatenated(one: Batch, other: Batch) -> Batch:
    txs = None if one.txs is None or other.txs is None else np.concatenate([one.txs, other.txs])
    return Batch(
        one.kinds + other.kinds,
        np.concatenate([one.accounts, other.accounts]),
        txs,
        np.concatenate([one.amounts, other.amounts]),
        np.concatenate([one.rows, other.rows]),
    )
