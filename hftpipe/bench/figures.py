"""What is measured, and what a measurement is asked for."""

import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PARTS: Final = ("throughput", "latency", "scale", "recovery", "serve", "limits")
"""The parts of a measurement, in the order in which they run."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured thing over its repetitions.

    part: one of `PARTS`. name: what was measured. setting: under what, such as `always, 10,000,000 rows`.
    unit: `tx/s`, `ms`, `µs/tx`, `bytes/tx`, `MB`, `s` or `×`. samples: one a repetition, none when it failed.
    note: what a reader has to know beside it. error: why it must not be believed, or could not be measured.
    """

    part: str
    name: str
    setting: str
    unit: str
    samples: tuple[float, ...]
    note: str = ""
    error: str = ""

    @property
    def median(self) -> float:
        """The middle of the samples; not a number when there is none."""
        return statistics.median(self.samples or (math.nan,))

    @property
    def low(self) -> float:
        """The smallest sample; not a number when there is none."""
        return min(self.samples or (math.nan,))

    @property
    def high(self) -> float:
        """The largest sample; not a number when there is none."""
        return max(self.samples or (math.nan,))


@dataclass(frozen=True, slots=True)
class Settings:
    """What a user asked for.

    rows: transactions of the large file. designs: folder with the programs to compare with, if any.
    """

    rows: int
    designs: Path | None = None
