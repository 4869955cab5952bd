"""Amounts for people: integers of ten-thousandths to text with four decimals."""

from hftpipe.core.transaction import SCALE


def render(amount: int) -> str:
    """`-12345` ten-thousandths as `-1.2345`."""
    if amount < 0:
        return f"-{render(-amount)}"
    return f"{amount // SCALE}.{amount % SCALE:04}"
