"""Bytes to lines of text: what is no line of clean UTF-8 text is taken out before its fields are looked at."""

import re
from typing import Final

from hftpipe.config import LINE_BYTES_MAX
from hftpipe.validation.reasons import Invalid, InvalidReason, shown_bytes

BLANKS: Final = " \t"
"""The only characters that count as blank, in a line or round a field."""

_ASCII_CONTROLS: Final = bytes({*range(0x20), 0x7F} - set(b"\t\n"))
_UNICODE_CONTROLS: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff]")


def readable_lines(block: bytes, first_line: int) -> tuple[list[str], list[Invalid]]:
    r"""The lines of a block, and a report for each that is over-long or not clean text.

    Only "\n" separates lines; one "\r" at the end of a line belongs to its end. The first list has one item for
    each line of the block; an unreadable line is "" there, as if it were blank, so that its neighbours keep their
    numbers. Clean text is UTF-8 without control characters (tab excepted), line separators or byte order marks.
    """
    raw_lines = _lines_without_ends(block)
    if max(map(len, raw_lines)) <= LINE_BYTES_MAX:
        text = clean_text(b"\n".join(raw_lines) if b"\r" in block else block.removesuffix(b"\n"))
        if text is not None:
            return text.split("\n"), []
    return _sorted_out(raw_lines, first_line)


def clean_text(octets: bytes) -> str | None:
    """The bytes as text, or None if they are not clean text; line ends are let through."""
    if len(octets.translate(None, _ASCII_CONTROLS)) != len(octets):
        return None
    try:
        text = octets.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return text if text.isascii() or not _UNICODE_CONTROLS.search(text) else None


def _lines_without_ends(block: bytes) -> list[bytes]:
    raw_lines = block.removesuffix(b"\n").split(b"\n")
    if b"\r" in block:
        raw_lines = [line.removesuffix(b"\r") for line in raw_lines]
    return raw_lines


def _sorted_out(raw_lines: list[bytes], first_line: int) -> tuple[list[str], list[Invalid]]:
    texts: list[str] = []
    invalid: list[Invalid] = []
    for number, line in enumerate(raw_lines, first_line):
        text = clean_text(line) if len(line) <= LINE_BYTES_MAX else None
        if text is None:
            invalid.append(_unreadable(number, line))
        texts.append(text or "")
    return texts, invalid


def _unreadable(number: int, line: bytes) -> Invalid:
    # Length first: the rest of an over-long line may have been cut off, in the middle of a character.
    too_long = len(line) > LINE_BYTES_MAX
    reason = InvalidReason.LINE_TOO_LONG if too_long else InvalidReason.BAD_ENCODING
    return Invalid(number, "", reason, shown_bytes(line))
