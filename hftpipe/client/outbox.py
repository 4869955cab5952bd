"""Lines that are not acknowledged yet: which of them were sent, and which are to be sent again."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

_LINE_FEED: Final = ord("\n")
_BLANKS: Final = b" \t\r\n"

JOINED_BYTES_MAX: Final = 1 << 16
"""Short stretches are sent together up to so many bytes."""


@dataclass(slots=True)
class _Stretch:
    """Consecutive complete lines, each with its line feed."""

    first: int
    last: int
    octets: bytes


class Outbox:
    """A queue of lines between the one that was acknowledged last and the one that was added last.

    Pure. Bounded by its owner, who looks at `bytes_held` and `lines_held` before adding.
    """

    def __init__(self, first_line: int) -> None:
        self.first = first_line
        self.acknowledged = first_line - 1
        self.last = first_line - 1
        self.bytes_held = 0
        self._needed = first_line - 1
        self._sent: deque[_Stretch] = deque()
        self._unsent: deque[_Stretch] = deque()
        self._offset = 0

    @property
    def lines_held(self) -> int:
        """Lines added and not acknowledged."""
        return self.last - self.acknowledged

    @property
    def is_settled(self) -> bool:
        """Whether every line that is not blank was acknowledged; nobody answers for the blank ones."""
        return self.acknowledged >= self._needed

    def renumber(self) -> None:
        """Counts from 1 again; only when all is settled."""
        self._sent.clear()
        self._unsent.clear()
        self.first = 1
        self.acknowledged = self.last = self._needed = self._offset = self.bytes_held = 0

    def add(self, octets: bytes, count: int) -> None:
        """Takes the lines that follow; `count` is how many they are."""
        first, self.last = self.last + 1, self.last + count
        written = len(octets.rstrip(_BLANKS))
        if written:
            self._needed = self.last - (octets.count(b"\n", written) - 1)
        self._unsent.append(_Stretch(first, self.last, octets))
        self.bytes_held += len(octets)

    # --- sending -----------------------------------------------------------------------------------------------

    def outgoing(self) -> bytes | memoryview:
        """What is to be sent next; empty when everything was sent."""
        if not self._unsent:
            return b""
        first = self._unsent[0].octets
        if self._offset or len(first) >= JOINED_BYTES_MAX or len(self._unsent) == 1:
            return memoryview(first)[self._offset :]
        pieces: list[bytes] = []
        size = 0
        for stretch in self._unsent:
            if size + len(stretch.octets) > JOINED_BYTES_MAX:
                break
            pieces.append(stretch.octets)
            size += len(stretch.octets)
        return b"".join(pieces)

    def sent(self, count: int) -> None:
        """So many bytes of what is outgoing have left."""
        self._offset += count
        while self._unsent and self._offset >= len(self._unsent[0].octets):
            stretch = self._unsent.popleft()
            self._offset -= len(stretch.octets)
            self._sent.append(stretch)
        self._settle()

    @property
    def last_sent(self) -> int:
        """The last line of which anything has left."""
        if self._offset:
            return self._unsent[0].last
        return self._sent[-1].last if self._sent else self.acknowledged

    def rewind(self) -> None:
        """Nothing counts as sent any more: all from the first line that is not acknowledged goes again."""
        self._unsent.extendleft(reversed(self._sent))
        self._sent.clear()
        self._offset = 0
        if self._unsent and self._unsent[0].first <= self.acknowledged:
            stretch = self._unsent[0]
            kept = stretch.octets[_start_of(stretch, self.acknowledged + 1) :]
            self.bytes_held -= len(stretch.octets) - len(kept)
            self._unsent[0] = _Stretch(self.acknowledged + 1, stretch.last, kept)

    @property
    def is_in_doubt(self) -> bool:
        """Whether a whole line has left that is not acknowledged; what a server has of half a line it drops."""
        if self._sent:
            return not self.is_settled
        if not self._offset:
            return False
        stretch = self._unsent[0]
        start = _start_of(stretch, max(self.acknowledged + 1, stretch.first))
        return stretch.octets.find(b"\n", start, self._offset) >= 0

    # --- acknowledgements ----------------------------------------------------------------------------------------

    def acknowledge(self, last: int) -> None:
        """All lines up to this one are acknowledged."""
        self.acknowledged = last
        while self._sent and self._sent[0].last <= last:
            self.bytes_held -= len(self._sent.popleft().octets)
        self._settle()

    def blank_until(self, last: int) -> int:
        """How many of the lines from the first that is not acknowledged to this one are blank."""
        wanted = range(self.acknowledged + 1, last + 1)
        return sum(
            not line.strip(_BLANKS) for stretch in self._holding(wanted) for line in _cut(stretch, wanted)
        )

    def texts(self, lines: Sequence[int]) -> list[bytes]:
        """Some lines that are not acknowledged, given in ascending order, as they were sent."""
        found: list[bytes] = []
        for stretch in self._holding(lines):
            ends = np.flatnonzero(np.frombuffer(stretch.octets, dtype=np.uint8) == _LINE_FEED).tolist()
            for line in lines:
                if stretch.first <= line <= stretch.last:
                    at = line - stretch.first
                    found.append(stretch.octets[ends[at - 1] + 1 if at else 0 : ends[at]])
        return found

    def _holding(self, lines: Sequence[int]) -> Iterator[_Stretch]:
        """The stretches that have some of the lines."""
        if lines:
            for queue in (self._sent, self._unsent):
                yield from (each for each in queue if each.first <= lines[-1] and each.last >= lines[0])

    def _settle(self) -> None:
        # Only blank lines are left: nothing will ever come for them, and they must not fill the window.
        if self._sent and self.acknowledged >= self._needed:
            self.acknowledged = max(self.acknowledged, self._sent[-1].last)
            self.bytes_held -= sum(len(stretch.octets) for stretch in self._sent)
            self._sent.clear()


def _cut(stretch: _Stretch, wanted: range) -> list[bytes]:
    lines = stretch.octets.split(b"\n")[:-1]
    return lines[max(wanted.start - stretch.first, 0) : max(wanted.stop - stretch.first, 0)]


def _start_of(stretch: _Stretch, line: int) -> int:
    """Where a line begins in its stretch."""
    start = 0
    for _ in range(line - stretch.first):
        start = stretch.octets.index(b"\n", start) + 1
    return start
