"""Where in a database file its rows stand: see "Database File Format" of SQLite, sections 1.6 and 2.1."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

_PAGES = (
    "SELECT pageno, pagetype, payload FROM dbstat WHERE name IN (SELECT value FROM json_each(?)) "
    "AND pagetype IN ('leaf', 'overflow')"
)
_TABLE_LEAF = 0x0D


def cells(path: Path, tables: Sequence[str]) -> list[range]:
    """The bytes of all cells on leaf pages of some tables, and of what overflows from them, as far as they are read.

    A row whose number is its first column has that in its place, too, as the type of a NULL, which SQLite never reads.
    """
    names = "[" + ",".join(f'"{table}"' for table in tables) + "]"
    with closing(sqlite3.connect(path)) as connection:
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        pages = connection.execute(_PAGES, (names,)).fetchall()
    content = path.read_bytes()
    found: list[range] = []
    for number, kind, payload in pages:
        start = (number - 1) * size
        if kind == "overflow":
            found.append(range(start + 4, start + 4 + payload))
        else:
            page = content[start : start + size]
            found += (range(start + cell.start, start + cell.stop) for cell in _cells(page, size))
    return found


def _cells(page: bytes, size: int) -> Iterator[range]:
    is_table = page[0] == _TABLE_LEAF
    for place in range(int.from_bytes(page[3:5])):
        first = int.from_bytes(page[8 + 2 * place : 10 + 2 * place])
        payload, content = _varint(page, first)
        if is_table:
            _, content = _varint(page, content)
        local = _local(payload, size, size - 35 if is_table else (size - 12) * 64 // 255 - 23)
        end = content + local + (4 if local < payload else 0)
        if is_table and page[content + 1] == 0:
            yield range(first, content + 1)
            yield range(content + 2, end)
        else:
            yield range(first, end)


def _local(payload: int, size: int, most: int) -> int:
    """How much of a payload stands in the cell itself."""
    if payload <= most:
        return payload
    least = (size - 12) * 32 // 255 - 23
    fitting = least + (payload - least) % (size - 4)
    return fitting if fitting <= most else least


def _varint(page: bytes, start: int) -> tuple[int, int]:
    """A number, and where it ends."""
    value = 0
    for place in range(start, start + 8):
        value = value << 7 | page[place] & 0x7F
        if page[place] < 0x80:
            return value, place + 1
    return value << 8 | page[start + 8], start + 9
