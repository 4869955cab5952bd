"""A few rows of a payload, read without a look at all the others.

What orjson writes has one shape: columns of digits and commas, without a blank. Values are then cut out of the text,
which costs less than reading all of them. JSON of any other shape is read whole. Nothing is checked here: the payload
was, when its entry was applied.
"""

from typing import Final

import numpy as np
import orjson

from hftpipe.core.transaction import Column

_START: Final = '{"kind":"'
_NAMES: Final = ("account", "tx", "amount", "row")
_NOT_OURS: Final = " \t\n\r-"
_COMMA: Final = ord(",")
_NONE: Final = "null"
_FEW: Final = 48
"""More values are read with all others sooner than one by one."""


class Glimpse:
    """A payload. Raises ValueError and KeyError, as its methods do, where it is none."""

    def __init__(self, payload: str) -> None:
        self._sections = _sections(payload)
        self._whole = {} if self._sections else orjson.loads(payload)
        self.kinds: str = self._sections["kind"] if self._sections else self._whole["kind"]
        """One letter a row."""

    def places_of(self, value: int, name: str = "account") -> Column:
        """Which rows have that value in a column, ascending."""
        if not self._sections:
            return np.flatnonzero(np.array(self._whole[name], dtype=np.int64) == value)
        text, sought = self._sections[name], f",{value},"
        if text.count(sought) > _FEW:
            return np.flatnonzero(_read(text) == value)
        places: list[int] = []
        start = count = 0
        while (found := text.find(sought, start)) >= 0:
            count += text.count(",", start, found)
            places.append(count)
            start = found  # the comma behind it may be the one before the next
            count += 1
            start += 1
        return np.array(places, dtype=np.int64)

    def picked(self, name: str, places: Column) -> Column | None:
        """Some rows' values of a column; None for the ids of a source that has none."""
        if not self._sections:
            column = self._whole[name]
            return None if column is None else np.array(column, dtype=np.int64)[places]
        text = self._sections[name]
        if text == f",{_NONE},":
            return None
        if len(places) > _FEW:
            return _read(text)[places]
        commas = np.flatnonzero(np.frombuffer(text.encode("ascii"), dtype=np.uint8) == _COMMA)
        starts, ends = commas[places].tolist(), commas[places + 1].tolist()
        return np.array(
            [int(text[start + 1 : end]) for start, end in zip(starts, ends, strict=True)], dtype=np.int64
        )


def _read(text: str) -> Column:
    return np.array(orjson.loads(f"[{text[1:-1]}]"), dtype=np.int64)


def _sections(payload: str) -> dict[str, str]:
    """The text of each column, with a comma before and behind each value; empty when the payload has another shape."""
    if not payload.startswith(_START) or any(sign in payload for sign in _NOT_OURS):
        return {}
    end = payload.find('"', len(_START))
    found = {"kind": payload[len(_START) : end]}
    end += 1
    for name in _NAMES:
        head = f',"{name}":'
        start = end + len(head)
        if not payload.startswith(head, end):
            return {}
        if payload.startswith(_NONE, start):
            end = start + len(_NONE)
            found[name] = f",{_NONE},"
        elif payload.startswith("[", start):
            end = payload.find("]", start) + 1
            found[name] = f",{payload[start + 1 : end - 1]},"
        else:
            return {}
    return found if payload[end:] == "}" else {}
