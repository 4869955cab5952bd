"""How a person names a moment of the log: the address of an entry, or a time."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeAlias

from hftpipe.core.entry import EntryId

_ADDRESS: Final = re.compile(r"(?:([0-9]{1,9})/)?([0-9]{1,20}-[0-9]{1,20})", re.ASCII)
_UNIX: Final = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,9})?", re.ASCII)
_ISO: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ].*)?", re.ASCII)
_MILLISECONDS_FROM: Final = 100_000_000_000
"""A number from here on is milliseconds (from March 1973), below it is seconds (up to the year 5138)."""


@dataclass(frozen=True, slots=True)
class Address:
    """An entry; shard is None where it was not said."""

    shard: int | None
    entry: EntryId

    def __str__(self) -> str:
        return str(self.entry) if self.shard is None else f"{self.shard}/{self.entry}"


@dataclass(frozen=True, slots=True)
class Instant:
    """A time, Unix ms."""

    time_ms: int


Moment: TypeAlias = Address | Instant


def told_time(time_ms: int) -> str:
    """`2026-11-22 18:30:00.123+01:00`: a time, Unix ms, as `parse_moment` reads it; empty for 0, which is no time."""
    if not time_ms:
        return ""
    seconds, milliseconds = divmod(time_ms, 1000)
    moment = datetime.fromtimestamp(seconds).astimezone().replace(microsecond=milliseconds * 1000)
    return moment.isoformat(sep=" ", timespec="milliseconds")


def parse_moment(text: str) -> Moment:
    """Reads `3/1-1042`, `1-1042`, an ISO 8601 time (local unless it has an offset), Unix seconds or milliseconds.

    Raises ValueError for anything else.
    """
    return parse_address(text) if _ADDRESS.fullmatch(text) else Instant(_time_ms(text))


def parse_address(text: str) -> Address:
    """Reads `3/1-1042` or `1-1042`. Raises ValueError for anything else."""
    found = _ADDRESS.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:40]!r} is no address of an entry, like 3/1-1042 or 1-1042")
    return Address(int(found[1]) if found[1] else None, EntryId.parse(found[2]))


def _time_ms(text: str) -> int:
    try:
        if _UNIX.fullmatch(text):
            number = float(text)
            return int(text) if number >= _MILLISECONDS_FROM and text.isdigit() else round(number * 1000)
        if _ISO.fullmatch(text):
            return round(datetime.fromisoformat(text).astimezone().timestamp() * 1000)
        raise ValueError(text)
    except (ValueError, OverflowError, OSError):
        raise ValueError(
            f"{text[:40]!r} is no address of an entry (3/1-1042) and no time "
            "(2026-11-22T18:30, 2026-11-22T17:30:00Z, 1700000000)"
        ) from None
