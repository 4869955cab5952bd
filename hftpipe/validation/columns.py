"""Fields of many lines read at once, as columns: kinds, identifiers and amounts, written in the ordinary way.

What is not ordinary is not judged here: a reader says for each field whether it could read it, and what it could not
read goes the plain way. Nothing is read that the plain way would refuse or take for another value.

Eight digits are read with three multiplications (D. Lemire, "Quickly parsing eight digits", 2018), here for a column
of them at a time. A word is eight bytes of text, the first one in its lowest bits.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hftpipe.core.transaction import AMOUNT_MAX, SCALE, Column, Kind

Words: TypeAlias = NDArray[np.uint64]
Flags: TypeAlias = NDArray[np.bool_]
Letters: TypeAlias = NDArray[np.uint8]
Places: TypeAlias = NDArray[np.intp]

_MARGIN: Final = 16
"""Bytes round the text, so that whole words can be read before its first and behind its last field."""

_DIGITS_MAX: Final = 16
_WHOLE_DIGITS_MAX: Final = 14
_DECIMALS_MAX: Final = 4


def word_of(text: bytes) -> np.uint64:
    """Up to eight bytes as a word, the rest of it zero."""
    return np.uint64(int.from_bytes(text.ljust(8, b"\0"), "little"))


_ZEROS: Final = word_of(b"0" * 8)
_POINTS: Final = word_of(b"." * 8)
_LOWER: Final = np.uint64(0x20_20_20_20_20_20_20_20)
_LOW_BITS: Final = np.uint64(0x7F_7F_7F_7F_7F_7F_7F_7F)
_HIGH_BITS: Final = np.uint64(0x80_80_80_80_80_80_80_80)
_TEN_TO_HIGH_BIT: Final = np.uint64(0x76_76_76_76_76_76_76_76)
_FIRST_BYTE: Final = np.uint64(0xFF)


class Text:
    """Bytes that words can be read from, anywhere."""

    __slots__ = ("_words", "octets")

    def __init__(self, text: bytes) -> None:
        padded = bytes(_MARGIN) + text + bytes(_MARGIN)
        self.octets: Letters = np.frombuffer(padded, dtype=np.uint8)[_MARGIN:-_MARGIN]
        self._words: Words = np.ndarray((len(padded) - 7,), dtype="<u8", buffer=padded, strides=(1,))

    def words(self, places: Places) -> Words:
        """The words that begin at the places, which may lie 16 bytes before the text and 8 behind it."""
        return self._words[places + _MARGIN]

    def holds(self, literal: bytes, places: Places) -> Flags:
        """Where a literal stands at the places."""
        if len(literal) < 8:
            kept = word_of(b"\xff" * len(literal))
            short: Flags = (self.words(places) & kept) == word_of(literal)
            return short
        # The last word may overlap the one before.
        offsets = [*range(0, len(literal) - 8, 8), len(literal) - 8]
        found = np.ones(len(places), dtype=bool)
        for offset in offsets:
            found &= self.words(places + offset) == word_of(literal[offset : offset + 8])
        return found


@dataclass(frozen=True, slots=True)
class Cells:
    """Where the fields of a column begin and end; none is of negative length."""

    starts: Places
    ends: Places


class AmountForm(Enum):
    """How a format writes amounts. A value of another form is not wrong: it is not read here."""

    FREE = "digits and a point; digits on one side of it will do, and zeros may lead"
    STRICT = "digits on both sides of a point, if there is one, and no leading zeros"
    WHOLE = "digits without leading zeros"


_KINDS: Final = tuple((kind.name.lower().encode(), np.uint8(ord(kind.value))) for kind in Kind)


def read_kinds(text: Text, cells: Cells, *, any_case: bool) -> Letters:
    """Letters of the kinds; 0 where it is none."""
    lengths = cells.ends - cells.starts
    heads, tails = text.words(cells.starts), text.words(cells.ends - 8)
    if any_case:
        heads, tails = heads | _LOWER, tails | _LOWER
    letters = np.zeros(len(lengths), dtype=np.uint8)
    for name, letter in _KINDS:
        found = lengths == len(name)
        found &= (heads & word_of(b"\xff" * min(len(name), 8))) == word_of(name[:8])
        if len(name) > 8:
            found &= tails == word_of(name[-8:])
        letters |= found * letter
        if letters.all():
            break
    return letters


def read_identifiers(text: Text, cells: Cells) -> tuple[Column, Flags]:
    """Numbers without leading zeros, and which fields hold one."""
    lengths = cells.ends - cells.starts
    values, good, canonical = _read_digits(text, cells.starts, lengths)
    return values, good & canonical & (lengths > 0)


def read_amounts(text: Text, cells: Cells, form: AmountForm) -> tuple[Column, Flags]:
    """Amounts in ten-thousandths, and which fields hold one that breaks no rule."""
    lengths = cells.ends - cells.starts
    tails = text.words(cells.ends - 8)
    decimals = _behind_point(tails)
    has_point = (decimals <= _DECIMALS_MAX) & (decimals < lengths)
    decimals *= has_point
    wholes = lengths - decimals - has_point
    whole, good, canonical = _read_digits(text, cells.starts, wholes)
    # The decimals moved to where the fifth to eighth digit stand, so that 5 after the point counts 5,000.
    fraction, readable = _eight_digits(((tails ^ _ZEROS) >> _bits(8 - decimals)) << np.uint64(32))
    good &= readable & (wholes <= _WHOLE_DIGITS_MAX)
    if form is not AmountForm.FREE:
        good &= canonical & (wholes > 0) & ((decimals > 0) | ~has_point)
    if form is AmountForm.WHOLE:
        good &= ~has_point
    amounts = whole * SCALE + fraction
    good &= (amounts > 0) & (amounts <= AMOUNT_MAX)
    return amounts, good


def _read_digits(text: Text, starts: Places, lengths: Places) -> tuple[Column, Flags, Flags]:
    """Numbers, 0 for no digit at all; where all are digits, and not too many; and where no zero leads them."""
    words = text.words(starts) ^ _ZEROS
    values, good = _eight_digits(words << _bits(8 - lengths))
    canonical = (lengths <= 1) | ((words & _FIRST_BYTE) != 0)
    if len(lengths) and lengths.max() > 8:
        long = np.flatnonzero(lengths > 8)
        counts = lengths[long]
        high, high_good = _eight_digits(words[long] << _bits(_DIGITS_MAX - counts))
        low, low_good = _eight_digits(text.words(starts[long] + counts - 8) ^ _ZEROS)
        values[long] = high * 100_000_000 + low
        good[long] = high_good & low_good & (counts <= _DIGITS_MAX)
    return values, good, canonical


def _bits(counts: Places) -> Words:
    """So many bytes in bits; a negative number becomes so large a shift that nothing is left."""
    return (counts << 3).view(np.uint64)


def _eight_digits(words: Words) -> tuple[Column, Flags]:
    """The number whose digits, their values and not their characters, are the bytes of each word."""
    good = (((words + _TEN_TO_HIGH_BIT) | words) & _HIGH_BITS) == 0
    pairs = (words * np.uint64(10 * 2**8 + 1)) >> np.uint64(8)
    fours = ((pairs & np.uint64(0x00FF_00FF_00FF_00FF)) * np.uint64(100 * 2**16 + 1)) >> np.uint64(16)
    eights = ((fours & np.uint64(0x0000_FFFF_0000_FFFF)) * np.uint64(10_000 * 2**32 + 1)) >> np.uint64(32)
    return eights.view(np.int64), good


def _behind_point(words: Words) -> Places:
    """How many bytes follow the last point in each word; more than any field has for none."""
    others = words ^ _POINTS
    is_point = ~(((others & _LOW_BITS) + _LOW_BITS) | others | _LOW_BITS)
    # The exponent of a float is the place of the highest bit: 7 and 8 for each byte below.
    exponents = is_point.astype(np.float64).view(np.int64) >> 52
    highest: Places = 1023 + 7 + 8 * 7 - exponents
    return highest >> 3
