"""The setting: how many entries, for how long, how many bytes."""

import re
from dataclasses import dataclass
from typing import Final

ALL: Final = "all"

_NUMBER_MAX: Final = 10**15 - 1
_ENTRIES: Final = re.compile(r"[0-9]{1,15}", re.ASCII)
_AGE: Final = re.compile(r"([0-9]{1,15})(ms|s|m|h|d)", re.ASCII)
_SIZE: Final = re.compile(r"([0-9]{1,15})(B|KB|MB|GB|TB)", re.ASCII)
_MILLISECONDS: Final = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_BYTES: Final = {"TB": 10**12, "GB": 10**9, "MB": 10**6, "KB": 10**3, "B": 1}


@dataclass(frozen=True, slots=True)
class Retention:
    """What stays of a shard's applied entries; what is beyond any of the bounds is trimmed. None is no bound.

    entries: so many. age_ms: those that were appended or applied so long ago at most. size_bytes: the newest that have
    so many bytes together, as `reach.size_of` counts them.
    """

    entries: int | None = None
    age_ms: int | None = None
    size_bytes: int | None = None

    def __str__(self) -> str:
        bounds = [] if self.entries is None else [str(self.entries)]
        bounds += [] if self.age_ms is None else [_written(self.age_ms, _MILLISECONDS)]
        bounds += [] if self.size_bytes is None else [_written(self.size_bytes, _BYTES)]
        return ",".join(bounds) or ALL


def parse_retention(text: str) -> Retention:
    """Reads `1000`, `24h`, `500MB`, several with commas, or `all`. Raises ValueError for anything else."""
    entries = age_ms = size_bytes = None
    parts = [] if text.strip() == ALL else [part.strip() for part in text.split(",")]
    for part in parts:
        if _ENTRIES.fullmatch(part) and entries is None:
            entries = int(part)
        elif (age := _AGE.fullmatch(part)) and age_ms is None:
            age_ms = _number(age, _MILLISECONDS)
        elif (size := _SIZE.fullmatch(part.upper())) and size_bytes is None:
            size_bytes = _number(size, _BYTES)
        else:
            raise ValueError(
                f"{text[:40]!r} is not like 1000 (entries), 24h (ms, s, m, h, d), 500MB (B, KB, MB, GB, TB), several "
                "of different kinds with commas, or all"
            )
    return Retention(entries, age_ms, size_bytes)


def _number(found: re.Match[str], units: dict[str, int]) -> int:
    return min(int(found[1]) * units[found[2]], _NUMBER_MAX)


def _written(number: int, units: dict[str, int]) -> str:
    unit = next(unit for unit, size in units.items() if number % size == 0 and (number or size == 1))
    return f"{number // units[unit]}{unit}"
