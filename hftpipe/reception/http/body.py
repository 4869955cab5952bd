"""Bodies of requests to lines of JSON, which the validators of files judge: one rule for all transports. Pure."""

import re
from enum import Enum
from functools import lru_cache
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hftpipe.errors import HftpipeError

_MEDIA_TYPE: Final = re.compile(
    rb'[ \t]*([a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+)[ \t]*(?:;[ \t]*charset=("?)utf-?8\2[ \t]*)?',
    re.IGNORECASE,
)

_BLANKS: Final = b" \t\r\n"
_TO_BLANKS: Final = bytes.maketrans(b"\r\n", b"  ")
_LINE_FEED: Final = ord("\n")

_QUOTE, _COMMA = 1, 4
_OTHERS: Final = bytes(set(range(256)) - set(b'"[{]},'))
_CODE_OF_OCTET: Final = bytes.maketrans(b'"[{]},' + _OTHERS, b"\1\2\2\3\3\4" + bytes(len(_OTHERS)))
_STEP_OF_CODE: Final = np.array([0, 0, 1, -1, 0], dtype=np.int8)
"""How much deeper one is behind a mark."""

Places: TypeAlias = NDArray[np.intp]


class BodyForm(Enum):
    """How transactions are written in a body; the value is its media type."""

    JSON = "application/json"
    """One object, or an array of them."""
    NDJSON = "application/x-ndjson"
    """An object a line; blank lines mean nothing."""


FORM_OF_TYPE: Final = {form.value.encode(): form for form in BodyForm}


class NotJson(HftpipeError):
    """A body that is neither an object nor an array as a whole."""


class TooManyElements(HftpipeError):
    """A body with more transactions than one request may have."""


@lru_cache(16)
def body_form(content_type: bytes) -> BodyForm | None:
    """The form that a Content-Type names; None for another one, or another charset than UTF-8."""
    found = _MEDIA_TYPE.fullmatch(content_type)
    return FORM_OF_TYPE.get(found[1].lower()) if found else None


def is_lone(body: bytes) -> bool:
    """Whether a JSON body is one object rather than an array."""
    return body.lstrip(_BLANKS)[:1] == b"{"


def lone_line(body: bytes) -> bytes:
    """A body that is one object, as a line. JSON has no line ends within strings; elsewhere they are blanks."""
    return body.strip(_BLANKS).translate(_TO_BLANKS) + b"\n"


def ndjson_lines(body: bytes, count_max: int) -> bytes:
    """The lines of a body, the last one with its end. Raises TooManyElements; blank lines count there."""
    lines = body if body.endswith(b"\n") or not body else body + b"\n"
    _require_few(lines.count(b"\n"), count_max)
    return lines


def array_lines(body: bytes, count_max: int) -> bytes:
    """Each element of a JSON array as a line of its own, whatever it is; without recursion, over bytes as columns.

    Only what separates the elements is judged here. Raises NotJson when it is not there, and TooManyElements.
    """
    text = body.strip(_BLANKS)
    if text[:1] != b"[" or text[-1:] != b"]":
        raise NotJson("the body is neither a JSON object nor a JSON array of objects")
    if not text[1:-1].strip(_BLANKS):
        return b""
    places, separating = _marks(text)
    _require_few(len(separating) + 1, count_max)
    # Where no mark stands between two of them, there may be nothing at all.
    bounds = np.concatenate([[0], separating, [len(places) - 1]])
    for at in np.flatnonzero(np.diff(bounds) == 1).tolist():
        start, end = places[bounds[at : at + 2]].tolist()
        if not text[start + 1 : end].strip(_BLANKS):
            raise NotJson("the body is not JSON: an element of the array is missing")
    lines = np.frombuffer(text.translate(_TO_BLANKS), dtype=np.uint8).copy()
    lines[places[bounds[1:]]] = _LINE_FEED
    return lines[1:].tobytes()


def _marks(text: bytes) -> tuple[Places, Places]:
    """Where quotes, brackets and commas of an array stand; and which of these marks separate its elements.

    Raises NotJson when the array does not end where the text does.
    """
    codes = np.frombuffer(_without_escapes(text).translate(_CODE_OF_OCTET), dtype=np.uint8)
    places = np.flatnonzero(codes)
    marks = codes[places]
    bare = (np.cumsum(marks == _QUOTE, dtype=np.uint8) & 1) == 0
    depth = np.cumsum(_STEP_OF_CODE[marks] * bare, dtype=np.int32)
    if depth[-1] != 0 or not bare[-1] or (depth[:-1] < 1).any():
        raise NotJson("the body is not JSON: brackets or quotes of the array do not match")
    return places, np.flatnonzero((marks == _COMMA) & bare & (depth == 1))


def _without_escapes(text: bytes) -> bytes:
    """The same length without escaped quotes: from its left end, two of a run of backslashes are one escaped."""
    if b"\\" not in text:
        return text
    return text.replace(b"\\\\", b"__").replace(b'\\"', b"__")


def _require_few(count: int, count_max: int) -> None:
    if count > count_max:
        raise TooManyElements(
            f"the body has {count} transactions or lines; a request may have {count_max}: send them in several"
        )
