"""Many rows of integers, written with few calls."""

import sqlite3
from typing import Final

from hftpipe.core.transaction import Column

_ROWS_AT_ONCE: Final = 100


class Rows:
    """A statement that writes one row of integers, and one for many: a call into SQLite costs more than a row does."""

    def __init__(self, statement: str) -> None:
        """statement: with the values of one row, once."""
        row = statement[statement.index("(?") : statement.index("?)") + 2]
        self._one = statement
        self._many = statement.replace(row, ", ".join([row] * _ROWS_AT_ONCE))

    def write(self, connection: sqlite3.Connection, rows: Column) -> None:
        """Writes all rows, in their order."""
        if not len(rows):
            return
        whole = len(rows) - len(rows) % _ROWS_AT_ONCE
        blocks = rows[:whole].reshape(-1, _ROWS_AT_ONCE * rows.shape[1])
        connection.executemany(self._many, (block.tolist() for block in blocks))
        connection.executemany(self._one, rows[whole:].tolist())
