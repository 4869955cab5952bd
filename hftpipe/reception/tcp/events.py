"""What a TCP connection can be told and can tell, and the states between."""

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final, TypeAlias

from hftpipe.reception.tcp.replies import Code
from hftpipe.validation import Validated


@dataclass(frozen=True, slots=True)
class BlockBounds:
    """How much is taken at a time; one line always is.

    The lines bound how long nobody else is served while they are judged, and how much there is to reply.
    """

    bytes_max: int = 1 << 18
    lines_max: int = 4_096
    wary_lines_max: int = 256
    blocks_max: int = 2


# --- events ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Opening:
    """Somebody wants to send; secret: the token presented, None when there is none."""

    secret: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Block:
    """Complete lines, judged; octets: how many bytes they had."""

    first_line: int
    last_line: int
    validated: Validated
    octets: int


@dataclass(frozen=True, slots=True)
class Failure:
    """The connection is at fault, or at its end; what is in it was not taken."""

    code: Code
    reply: bytes


@dataclass(frozen=True, slots=True)
class End:
    """Nothing more comes, and all of it is answered."""


Event: TypeAlias = Opening | Block | Failure | End


# --- states ---------------------------------------------------------------------------------------------------


class State(Enum):
    """Where a connection stands."""

    OPENING = auto()
    """The first line is waited for."""
    ASKING = auto()
    """Whether its sender may come in is not said yet."""
    FORMAT = auto()
    """The line that shows the format is waited for."""
    LINES = auto()
    """Lines can be taken, as long as not too many blocks of them are unanswered."""
    CLOSED = auto()
    """Nothing more happens."""


class Act(Enum):
    """What leads from state to state."""

    OPENED = auto()
    ADMITTED = auto()
    UNDERSTOOD = auto()
    CLOSED = auto()


TRANSITIONS: Final = {
    (State.OPENING, Act.OPENED): State.ASKING,
    (State.ASKING, Act.ADMITTED): State.FORMAT,
    (State.FORMAT, Act.UNDERSTOOD): State.LINES,
    **{(state, Act.CLOSED): State.CLOSED for state in State},
}
"""All that can happen; anything else is a bug of the caller (KeyError)."""
