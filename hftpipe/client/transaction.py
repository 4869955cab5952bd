"""A transaction as a caller gives it, and the line that it is sent as."""

from dataclasses import dataclass
from decimal import Decimal
from typing import TypeAlias

import orjson

from hftpipe.core.transaction import INT64_MAX, Kind

Amount: TypeAlias = str | int | Decimal
"""Units: `"10.00"`, 10, `Decimal("10.00")`. Never a float: it has no exact decimals."""

AMOUNT_CHARACTERS_MAX = 100
"""Of a longer one the server would not even look at the line."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """One transaction; deposits and withdrawals carry an amount and a `tx` of their own.

    tx: for dispute, resolve and chargeback that of the deposit. What the numbers may be, the server decides, and says
    so in the receipt; only what cannot be written down at all raises, a TypeError or ValueError.
    """

    kind: Kind
    account: int
    tx: int
    amount: Amount | None = None

    def __post_init__(self) -> None:
        if isinstance(self.amount, float):
            raise TypeError(f"the amount {self.amount!r} is a float, which has no exact decimals; give text")
        if len(str(self.amount)) > AMOUNT_CHARACTERS_MAX:
            raise ValueError("the amount has more characters than any amount")
        for number in (self.account, self.tx, self.amount):
            if isinstance(number, int) and abs(number) > INT64_MAX:
                raise ValueError(f"{number} does not fit into 64 bits")

    def line(self) -> bytes:
        """As a line of JSON, with its line feed."""
        fields: dict[str, object] = {"type": _NAMES[self.kind], "account": self.account, "tx": self.tx}
        if self.amount is not None:
            fields["amount"] = f"{self.amount:f}" if isinstance(self.amount, Decimal) else self.amount
        return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)


_NAMES = {kind: kind.name.lower() for kind in Kind}
