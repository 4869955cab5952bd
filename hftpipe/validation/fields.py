"""The fields of a transaction as one table, and how the text of each is read.

Nothing here converts text whose characters have not been checked first: `int` would take other alphabets' digits
and underscores, `Decimal` exponents and NaN.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final, Generic, TypeVar

from hftpipe.core.transaction import AMOUNT_MAX, INT64_MAX, KIND_LETTERS, MOVING, SCALE, Kind
from hftpipe.validation.reasons import InvalidReason

Cell = TypeVar("Cell")
"""What a format gives for one field: text in CSV, any JSON value in JSON Lines."""


class Rounding(Enum):
    """What happens to an amount with more than four decimals."""

    REJECT = "reject"
    HALF_EVEN = "half-even"


# --- the table ----------------------------------------------------------------------------------------------

NO_KIND: Final = ""
"""What reading a kind gives when it is none."""

EVERY_ROW: Final = KIND_LETTERS | {NO_KIND}


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a transaction.

    name: as reported. aliases: what a header or a JSON key may call it. reason: given when it cannot be read.
    needed_by: letters of the kinds that must have it; with `NO_KIND`, every row must.
    """

    name: str
    aliases: tuple[str, ...]
    reason: InvalidReason
    needed_by: frozenset[str]


KIND: Final = Field("kind", ("type", "kind", "transaction_type"), InvalidReason.BAD_KIND, EVERY_ROW)
ACCOUNT: Final = Field("account", ("client", "account", "account_id"), InvalidReason.BAD_ACCOUNT, EVERY_ROW)
TX: Final = Field("tx", ("tx", "tx_id", "id"), InvalidReason.BAD_TX, EVERY_ROW)
AMOUNT: Final = Field("amount", ("amount",), InvalidReason.BAD_AMOUNT, MOVING)

FIELDS: Final = (KIND, ACCOUNT, TX, AMOUNT)
"""In the order in which they are checked."""

FIELD_OF_NAME: Final = {alias: field for field in FIELDS for alias in field.aliases}


@dataclass(frozen=True, slots=True)
class Readers(Generic[Cell]):
    """How one format writes the fields.

    kind: a letter, or `NO_KIND`. identifier (account, tx): None when it is none. amount: ten-thousandths, or the
    reason why it is none. unused_amount: whether it will do where no amount is needed.
    """

    kind: Callable[[Cell], str]
    identifier: Callable[[Cell], int | None]
    amount: Callable[[Cell, Rounding], int | InvalidReason]
    unused_amount: Callable[[Cell], bool]


# --- text ---------------------------------------------------------------------------------------------------

LETTER_OF_KIND: Final = {kind.name.lower(): kind.value for kind in Kind}

_IDENTIFIER_DIGITS_MAX: Final = len(str(INT64_MAX))

_AMOUNT_DIGITS_MAX: Final = 32
"""Digits before the point, and after it, that are looked at; with more of them it is no amount."""

_DECIMALS: Final = 4
_POWERS: Final = tuple(10**digits for digits in range(_AMOUNT_DIGITS_MAX + 1))
_LARGEST: Final = tuple(AMOUNT_MAX // SCALE * power for power in _POWERS)


def text_kind(text: str) -> str:
    """The letter of a kind written in any case, or `NO_KIND`."""
    return LETTER_OF_KIND.get(text) or LETTER_OF_KIND.get(ascii_lower(text), NO_KIND)


def ascii_lower(text: str) -> str:
    """ASCII text in lower case; other text as it is, for some of its letters would turn into ASCII ones."""
    return text.lower() if text.isascii() else text


def text_identifier(text: str) -> int | None:
    """0..2^63-1 in ASCII digits without leading zeros, else None."""
    if not (text.isdigit() and text.isascii()) or len(text) > _IDENTIFIER_DIGITS_MAX:
        return None
    if text[0] == "0" and text != "0":
        return None
    number = int(text)
    return number if number <= INT64_MAX else None


def text_amount(text: str, rounding: Rounding) -> int | InvalidReason:
    """`digits[.digits]`, either of them may be left out, in ten-thousandths: 1..AMOUNT_MAX.

    Zeros behind the fourth decimal change nothing, so they are not too precise: some systems write `20.000000`.
    Whether it is too large is decided as it is written, before it is rounded; whether it is positive, after.
    """
    whole, _, decimals = text.partition(".")
    digits = whole + decimals
    count = len(decimals)
    if not (digits.isdigit() and digits.isascii()):
        return InvalidReason.BAD_AMOUNT
    if count > _AMOUNT_DIGITS_MAX or len(whole) > _AMOUNT_DIGITS_MAX:
        return InvalidReason.BAD_AMOUNT
    number = int(digits)
    if number > _LARGEST[count]:
        return InvalidReason.AMOUNT_TOO_LARGE
    if count <= _DECIMALS:
        return number * _POWERS[_DECIMALS - count] or InvalidReason.AMOUNT_NOT_POSITIVE
    divisor = _POWERS[count - _DECIMALS]
    if rounding is Rounding.REJECT and number % divisor:
        return InvalidReason.TOO_PRECISE
    return _half_even(number, divisor) or InvalidReason.AMOUNT_NOT_POSITIVE


def text_unused_amount(text: str) -> bool:
    """Whether it is empty or written like an amount, whatever its value."""
    return not text or text_amount(text, Rounding.REJECT) != InvalidReason.BAD_AMOUNT


def _half_even(number: int, divisor: int) -> int:
    quotient, rest = divmod(number, divisor)
    above = 2 * rest > divisor or (2 * rest == divisor and quotient % 2 == 1)
    return quotient + above


TEXT_READERS: Final[Readers[str]] = Readers(text_kind, text_identifier, text_amount, text_unused_amount)
"""How CSV writes the fields, once the blanks round them are gone."""


# --- JSON values --------------------------------------------------------------------------------------------


def json_kind(value: object) -> str:
    """The letter of a kind written in lower case, or `NO_KIND`."""
    return LETTER_OF_KIND.get(value, NO_KIND) if isinstance(value, str) else NO_KIND


def json_identifier(value: object) -> int | None:
    """A real integer 0..2^63-1, else None: no string, no float, no boolean."""
    return value if type(value) is int and 0 <= value <= INT64_MAX else None


def json_amount(value: object, rounding: Rounding) -> int | InvalidReason:
    """An integer of whole units, or a string `0|digits without leading zero[.digits]`; otherwise as `text_amount`."""
    text = _amount_text(value)
    return InvalidReason.BAD_AMOUNT if text is None else text_amount(text, rounding)


def json_unused_amount(value: object) -> bool:
    """Whether it is an empty string or written like an amount, whatever its value."""
    text = "" if value == "" else _amount_text(value)
    return text is not None and text_unused_amount(text)


def _amount_text(value: object) -> str | None:
    if type(value) is int:
        return str(value)
    return value if isinstance(value, str) and _is_canonical(value) else None


def _is_canonical(text: str) -> bool:
    whole, point, decimals = text.partition(".")
    leading_zero = whole.startswith("0") and whole != "0"
    return bool(whole) and not leading_zero and bool(decimals) == bool(point)


JSON_READERS: Final[Readers[object]] = Readers(json_kind, json_identifier, json_amount, json_unused_amount)
"""How JSON Lines writes the fields: exactly, no blanks, no other case."""
