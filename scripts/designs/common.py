"""What the designs share: rows, amounts, books in memory, their SQLite tables, and the line that each prints.

All do the same work on deposits and withdrawals, as `hftpipe generate --kinds deposit=65,withdrawal=35` writes them,
and trust their input. They keep every balance and id in memory, and none is written to be started a second time:
what a design costs when something breaks is in its `Correctness` line.
"""

import argparse
import csv
import json
import sqlite3
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

if TYPE_CHECKING:
    from _csv import Reader

    import redis

HEADER = ["type", "client", "tx", "amount"]
LAST = "last"
"""The field of the entry that ends a stream."""

GROUP, CONSUMER = "workers", "worker"
PIPELINE_COMMANDS = 1_000
READ_ENTRIES_MAX = 1_000
WAIT_S = 30
"""Whoever gets nothing for so long gives up: the other side must have ended."""

Row = Sequence[str]
Entry = tuple[str, dict[str, str]]


class Work(NamedTuple):
    """What a design is given: the file, the server's socket, an empty folder."""

    path: Path
    socket: str
    folder: Path


class Result(NamedTuple):
    """What a design came to: rows decided, seconds, and what each account has in ten-thousandths."""

    transactions: int
    seconds: float
    available: dict[int, int]


def main(design: Callable[[Work], Result]) -> None:
    """Runs a design as a command."""
    parser = argparse.ArgumentParser(
        description=sys.modules["__main__"].__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--socket", required=True, help="Unix socket of a Redis or Valkey server")
    parser.add_argument("--folder", type=Path, required=True, help="an empty folder")
    options = parser.parse_args()
    result = design(Work(options.file, options.socket, options.folder))
    digest = blake2b(digest_size=16)
    for account, available in sorted(result.available.items()):
        digest.update(b"%d,%d\n" % (account, available))
    line = {
        "design": Path(sys.argv[0]).stem,
        "transactions": result.transactions,
        "seconds": round(result.seconds, 6),
        "accounts": len(result.available),
        "digest": digest.hexdigest(),
    }
    print(json.dumps(line))


def clock_s() -> float:
    """Seconds, to be subtracted from one another."""
    return time.perf_counter()


# --- rows and rules -----------------------------------------------------------------------------------------------


def csv_reader(file: TextIO) -> "Reader":
    """A reader behind the header. Raises ValueError on any other header."""
    reader = csv.reader(file)
    if (header := next(reader, None)) != HEADER:
        raise ValueError(f"a header of {header} instead of {HEADER}; make the file with hftpipe generate")
    return reader


def rows(path: Path) -> Iterator[list[str]]:
    """The rows of a file: kind, account, id, amount."""
    with path.open(newline="", encoding="ascii") as file:
        yield from csv_reader(file)


def chunks(all_rows: Iterator[list[str]], rows_max: int) -> Iterator[list[list[str]]]:
    """The same rows, so many at a time."""
    while chunk := list(islice(all_rows, rows_max)):
        yield chunk


def ten_thousandths(amount: str) -> int:
    """An amount of up to four decimals as an integer."""
    units, _, decimals = amount.partition(".")
    return int(units + decimals.ljust(4, "0"))


def change(kind: str, amount: str) -> int:
    """What a row would add to its account. Raises ValueError on a kind that is none of the two."""
    if kind == "deposit":
        return ten_thousandths(amount)
    if kind == "withdrawal":
        return -ten_thousandths(amount)
    raise ValueError(f"{kind!r} is neither a deposit nor a withdrawal")


@dataclass(slots=True)
class Books:
    """The balances of some accounts, and the ids that were used on them."""

    available: dict[int, int] = field(default_factory=dict)
    taken: set[int] = field(default_factory=set)

    def apply(self, some_rows: Iterable[Row]) -> None:
        """Decides rows in order: the first use of an id takes it, whether it was refused or not."""
        available, taken = self.available, self.taken
        for kind, account_text, tx_text, amount in some_rows:
            account, tx = int(account_text), int(tx_text)
            balance = available.setdefault(account, 0)
            if tx in taken:
                continue
            taken.add(tx)
            balance += change(kind, amount)
            if balance >= 0:
                available[account] = balance


# --- SQLite -------------------------------------------------------------------------------------------------------


def make_store(folder: Path, number: int = 0) -> Path:
    """A new file with empty tables."""
    path = folder / f"balances-{number}.db"
    with closing(open_store(path)) as store:
        store.execute("PRAGMA journal_mode=WAL")
        store.execute(
            "CREATE TABLE balances (account INTEGER PRIMARY KEY, available INTEGER NOT NULL) STRICT"
        )
        store.execute("CREATE TABLE transactions (tx INTEGER PRIMARY KEY) STRICT")
    return path


def open_store(path: Path) -> sqlite3.Connection:
    """A connection on which every commit reaches the disk."""
    store = sqlite3.connect(path, isolation_level=None)
    store.execute("PRAGMA synchronous=FULL")
    return store


def write(store: sqlite3.Connection, books: Books, some_rows: Iterable[Row]) -> None:
    """Writes what these rows left behind in the books; the caller begins and commits."""
    some_rows = list(some_rows)
    accounts = {int(row[1]) for row in some_rows}
    store.executemany("INSERT OR IGNORE INTO transactions VALUES (?)", [(int(row[2]),) for row in some_rows])
    store.executemany(
        "INSERT INTO balances VALUES (?, ?) ON CONFLICT (account) DO UPDATE SET available = excluded.available",
        [(account, books.available[account]) for account in accounts],
    )


def stored(folder: Path) -> dict[int, int]:
    """The balances in all files of a folder."""
    balances: dict[int, int] = {}
    for path in folder.glob("*.db"):
        with closing(open_store(path)) as store:
            balances.update(store.execute("SELECT account, available FROM balances"))
    return balances


# --- Redis --------------------------------------------------------------------------------------------------------


def connect(socket: str) -> "redis.Redis":
    """A client that answers with text, in the reply shapes of protocol 2."""
    import redis

    return redis.Redis(unix_socket_path=socket, protocol=2, decode_responses=True)


@contextmanager
def streams(socket: str, names: Sequence[str], *, grouped: bool) -> Iterator[None]:
    """Empty streams, with a group each if wanted; gone again afterwards."""
    client = connect(socket)
    client.delete(*names)
    if grouped:
        for name in names:
            client.xgroup_create(name, GROUP, "0", mkstream=True)
    try:
        yield
    finally:
        client.delete(*names)


def append_pipelined(path: Path, socket: str, names: Sequence[str]) -> None:
    """Appends every row to the stream of its account, one an entry, many to a round trip; then ends each stream."""
    pipeline = connect(socket).pipeline(transaction=False)
    for chunk in chunks(rows(path), PIPELINE_COMMANDS):
        for row in chunk:
            pipeline.xadd(names[int(row[1]) % len(names)], dict(zip(HEADER, row, strict=True)))
        pipeline.execute()
    for name in names:
        pipeline.xadd(name, {LAST: "1"})
    pipeline.execute()


def entries(reply: Any) -> list[Entry]:
    """What a read of one stream brought. Raises TimeoutError when that was nothing."""
    if not reply:
        raise TimeoutError(f"no entry came within {WAIT_S} s; look whether the producer failed")
    found: list[Entry] = reply[0][1]
    return found


def rows_of(some_entries: Iterable[Entry]) -> list[Row]:
    """The rows that entries carry, without the end of the stream."""
    return [tuple(fields.values()) for _, fields in some_entries if LAST not in fields]
