"""What validation says about a row that it does not let through."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from hftpipe.core.printable import printable

CONTENT_CHARACTERS_MAX: Final = 80
"""Longest excerpt of an invalid row that is kept, reported or logged."""


class InvalidReason(StrEnum):
    """Why a row never enters the log."""

    MISSING_FIELD = "missing_field"
    TOO_MANY_FIELDS = "too_many_fields"
    BAD_KIND = "bad_kind"
    BAD_ACCOUNT = "bad_account"
    BAD_TX = "bad_tx"
    BAD_AMOUNT = "bad_amount"
    AMOUNT_NOT_POSITIVE = "amount_not_positive"
    TOO_PRECISE = "too_precise"
    AMOUNT_TOO_LARGE = "amount_too_large"
    BAD_ENCODING = "bad_encoding"
    LINE_TOO_LONG = "line_too_long"
    BAD_JSON = "bad_json"


@dataclass(frozen=True, slots=True)
class Broken:
    """The first rule that a row breaks: which field, and why.

    field: `kind`, `account`, `tx`, `amount`, the name of another column or key, or "" for the row as a whole.
    reason: an `InvalidReason`, or the own word of a rule that a user of the library added.
    """

    field: str
    reason: str


@dataclass(frozen=True, slots=True)
class Invalid:
    """One row that was not let through, ready to be reported.

    line: physical line number in the source, from 1.
    field, reason: as in `Broken`.
    content: the offending text, made safe by `shown`.
    """

    line: int
    field: str
    reason: str
    content: str


def shown(text: str) -> str:
    """Foreign text for a report or a log: at most 80 characters, each printable, the others as escapes."""
    excerpt = printable(text[: CONTENT_CHARACTERS_MAX + 1])
    if len(excerpt) <= CONTENT_CHARACTERS_MAX:
        return excerpt
    return excerpt[: CONTENT_CHARACTERS_MAX - 1] + "…"


def shown_bytes(line: bytes) -> str:
    """The same for bytes that need not be UTF-8."""
    return shown(line[: 4 * CONTENT_CHARACTERS_MAX + 4].decode("utf-8", "backslashreplace"))
