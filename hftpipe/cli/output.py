"""Writing results: table, CSV or JSON."""

import csv
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain

import click
import orjson

from hftpipe.core.amount import render
from hftpipe.core.printable import guarded, printable
from hftpipe.store.reading import Balance

Row = Sequence[object]
"""The values of all columns, in their order."""

BALANCE_COLUMNS = ("client", "available", "held", "total", "locked")


Rendering = Callable[[str], str]
"""Makes a line of what is said."""

_renderings: list[Rendering] = []


def say(line: str) -> None:
    """One line for people, or a record for programs (`spoken_as`); when nobody listens any more, the work goes on."""
    with suppress(BrokenPipeError):
        click.echo(_renderings[-1](line) if _renderings else printable(line), err=True)


@contextmanager
def spoken_as(rendering: Rendering) -> Iterator[None]:
    """What is said during the body is written so, by any thread."""
    _renderings.append(rendering)
    try:
        yield
    finally:
        _renderings.remove(rendering)


def write_balances(balances: Iterable[Balance], format_: str) -> None:
    """Balances with four decimals, by client."""
    write(BALANCE_COLUMNS, (_balance_row(balance) for balance in balances), format_)


def _balance_row(balance: Balance) -> Row:
    account, available, held, locked = balance
    return account, render(available), render(held), render(available + held), locked


def write(columns: Sequence[str], rows: Iterable[Row], format_: str) -> None:
    """Writes rows to stdout, CSV and JSON as they come. A table is for a terminal: what could steer that is escaped."""
    {"csv": _write_csv, "json": _write_json, "table": _write_table}[format_](columns, rows)
    sys.stdout.flush()


def write_document(document: object) -> None:
    """Writes one JSON object to stdout: dataclasses as objects."""
    sys.stdout.write(f"{orjson.dumps(document, option=orjson.OPT_NON_STR_KEYS).decode()}\n")
    sys.stdout.flush()


def _write_csv(columns: Sequence[str], rows: Iterable[Row]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(map(_exported, row) for row in rows)


def _write_json(columns: Sequence[str], rows: Iterable[Row]) -> None:
    separator = "[\n"
    for row in rows:
        sys.stdout.write(f"{separator}{orjson.dumps(dict(zip(columns, row, strict=True))).decode()}")
        separator = ",\n"
    sys.stdout.write("[]\n" if separator == "[\n" else "\n]\n")


def _write_table(columns: Sequence[str], rows: Iterable[Row]) -> None:
    lines = [[printable(_cell(value)) for value in row] for row in rows]
    heads = list(map(printable, columns))
    widths = [max(map(len, column)) for column in zip(heads, *lines, strict=True)]
    for line in chain([heads], lines):
        cells = [
            cell.ljust(width) if _is_text(cell) else cell.rjust(width)
            for cell, width in zip(line, widths, strict=True)
        ]
        click.echo("  ".join(cells).rstrip())


def write_lines(lines: Iterable[str]) -> None:
    """Lines for people to stdout; what is in them of others cannot steer a terminal, nor look like another line."""
    for line in lines:
        click.echo(printable(line))


def _cell(value: object) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return "-"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _exported(value: object) -> str:
    """A cell of CSV: text of others is no formula, a number stays one."""
    cell = _cell(value)
    return guarded(cell) if isinstance(value, str) and _is_text(cell) else cell


def _is_text(cell: str) -> bool:
    return not cell.replace(".", "").removeprefix("-").isdecimal()


def counted(counts: Counter[str]) -> str:
    """`12 (bad_amount 8, bad_tx 4)`: a sum and its parts."""
    parts = ", ".join(f"{name} {count}" for name, count in counts.most_common())
    return f"{counts.total():,}{f' ({parts})' if parts else ''}"
