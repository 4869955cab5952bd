"""Amounts for people: integers of ten-thousandths to text with four decimals."""

from hftpipe.core.transaction import SCALE


def render(amount: int) -> str:
    """`-12345` ten-thousandths as `-1.2345`."""
    units, fraction = divmod(abs(amount), SCALE)
    return f"{'-' if amount < 0 else ''}{units}.{fraction:04}"
