"""What an audit finds to differ, each with its place, what is there and what must be there."""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from hftpipe.errors import HftpipeError, Interrupted, ScratchUnavailable

SHOWN_MAX: Final = 100
"""Findings of one shard that are kept; all are counted."""

_CHARACTERS_MAX: Final = 200


class Finding(NamedTuple):
    """One difference.

    shard: None where it concerns the pipeline. what: a table, `database`, `checkpoint`, `log`, … where: a key in it, a
    journal record, the address of an entry. there, expected: what is found, and what must be there.
    """

    shard: int | None
    what: str
    where: str
    there: str
    expected: str


@dataclass(slots=True)
class Findings:
    """The findings of one shard. notes: what could not be looked at, and why, for people."""

    shard: int | None
    shown: list[Finding] = field(default_factory=list)
    count: int = 0
    notes: list[str] = field(default_factory=list)

    def add(self, what: str, where: str, there: object, expected: object) -> None:
        """Takes in a difference."""
        self.count += 1
        if len(self.shown) < SHOWN_MAX:
            self.shown.append(Finding(self.shard, what, where, _legible(there), _legible(expected)))

    def check(self, what: str, where: str, there: object, expected: object) -> bool:
        """Takes in a difference if there is one; True when there is none."""
        if there == expected and type(there) is type(expected):
            return True
        self.add(what, where, there, expected)
        return False

    def check_all(
        self, what: str, where: str, there: Mapping[str, object], expected: Mapping[str, object]
    ) -> None:
        """Takes in, as one difference, all values of the same names that differ."""
        names = [name for name, value in expected.items() if there.get(name) != value]
        if names:
            told = (
                " ".join(f"{name}={values.get(name)!r}" for name in names) for values in (there, expected)
            )
            self.add(what, where, *told)

    @contextmanager
    def guard(self, what: str, where: str, expected: str) -> Iterator[None]:
        """What cannot be read at all is a finding, and the audit goes on behind it; what stops the audit is none."""
        try:
            yield
        except (Interrupted, ScratchUnavailable):
            raise
        except (HftpipeError, sqlite3.Error, UnicodeDecodeError) as error:
            self.add(what, where, error, expected)


def _legible(value: object) -> str:
    text = str(value).encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= _CHARACTERS_MAX else f"{text[:_CHARACTERS_MAX]}…"
