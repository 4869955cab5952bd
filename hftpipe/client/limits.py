"""Bounds of the client: each window, wait and reply has its maximum here."""

from dataclasses import dataclass
from typing import Final

WELCOME_BYTES_MAX: Final = 4_096
"""Longest answer to the hello; what answers more speaks another protocol."""

REPLY_BYTES_MAX: Final = 16 << 20
"""Longest reply: of a batch none of whose lines was taken."""

RECEIVE_BYTES: Final = 1 << 18
"""How much of the replies is read at a time."""

SECRET_BYTES_MAX: Final = 256
"""Longest secret of a token."""


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """Bounds of one client."""

    window_transactions_max: int = 10_000
    """Transactions of `send_many` sent and not yet acknowledged."""
    window_bytes_max: int = 4 << 20
    """The same for lines that are passed through; one block more may be in hand."""
    exchange_transactions: int = 64
    """Transactions of `send_many` sent between two looks at the replies."""
    connect_ms: int = 3_000
    """Longest wait for a connection, and for its TLS."""
    reply_ms: int = 30_000
    """A connection over which nothing has come for so long, though something was expected, counts as lost."""
    reach_ms: int = 5_000
    """A server that was never reached is given up after so long."""
    give_up_ms: int = 120_000
    """One that was, when it has acknowledged nothing for so long."""
    retry_first_ms: int = 50
    retry_max_ms: int = 2_000
    """First and longest wait before the next connection."""
    stop_ms: int = 1_000
    """How long a client that was told to stop waits for the receipts of what it has sent."""
    poll_ms: int = 100
    """Time between two looks at whether the client was told to stop."""
