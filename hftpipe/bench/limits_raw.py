"""A program of its own: what parsing, XADD and SQLite cost by themselves, for the same rows; prints it as JSON."""

import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import orjson
import redis

from hftpipe.config import IngestLimits, WorkerLimits
from hftpipe.core.entry import encode
from hftpipe.core.routing import route
from hftpipe.core.transaction import Batch
from hftpipe.source.file import FileSource
from hftpipe.source.framing import Block
from hftpipe.store.reading import store_paths
from hftpipe.validation.columnar import ColumnarCsvValidator
from hftpipe.validation.csv import CsvValidator

Entry = tuple[int, dict[bytes, bytes]]
"""Shard and fields."""

Row = tuple[Any, ...]

_SETTINGS: Final = ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "PRAGMA wal_autocheckpoint=8192")
_TABLES: Final = "SELECT sql FROM sqlite_master WHERE type = 'table' AND name IN ('entries', 'balances')"


def parse(path: Path) -> tuple[float, list[Batch]]:
    """CPU seconds of reading and checking a file, and what was in it."""
    with closing(FileSource(path)) as source:
        assert source.header is not None  # noqa: S101 - a CSV file has one, or is refused
        validator = ColumnarCsvValidator(CsvValidator.from_header(source.header))
        blocks: Iterator[Block] = source.blocks()
        start_s = time.process_time()
        batches = [validator.validate(block.lines, block.first_line).batch for block in blocks]
        return time.process_time() - start_s, batches


def entries_of(batches: Sequence[Batch], shards: int) -> list[Entry]:
    """The entries that an ingest makes of the blocks of a file."""
    size = IngestLimits().entry_transactions_max
    return [
        (shard, encode("raw", 0, rows.slice(start, start + size), 0))
        for batch in batches
        for shard, rows in route(batch, shards).items()
        for start in range(0, len(rows), size)
    ]


def append(entries: Sequence[Entry], url: str) -> float:
    """CPU seconds of client and server for nothing but XADD."""
    window = IngestLimits().pipeline_entries_max
    with closing(redis.Redis.from_url(url)) as client:
        server_s, start_s = _server_seconds(client), time.process_time()
        for first in range(0, len(entries), window):
            with client.pipeline(transaction=False) as pipeline:
                for shard, fields in entries[first : first + window]:
                    pipeline.xadd(f"raw:{shard}", dict(fields), id="*")  # type: ignore[arg-type]
                pipeline.execute()
        return time.process_time() - start_s + _server_seconds(client) - server_s


def _server_seconds(client: "redis.Redis") -> float:
    told = client.info("cpu")
    return float(told["used_cpu_user"]) + float(told["used_cpu_sys"])


def insert(batches: Sequence[Batch], home: Path) -> float:
    """CPU seconds of writing what the stores of a home hold into new ones, in commits of the size of ours."""
    paths = store_paths(home)
    routed = [route(batch, len(paths)) for batch in batches]
    seconds = 0.0
    for shard, path in enumerate(paths):
        rows = [parts[shard].accounts for parts in routed if shard in parts]
        accounts = np.concatenate(rows) if rows else np.array([], dtype=np.int64)
        seconds += _insert(path, accounts)
    return seconds


def _insert(path: Path, accounts: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> float:
    """One store; `accounts` of all its transactions, in their order."""
    commits = -(-len(accounts) // WorkerLimits().commit_transactions_max) or 1
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as store:
        tables = [sql for (sql,) in store.execute(_TABLES)]
        entries = store.execute("SELECT * FROM entries ORDER BY number").fetchall()
        balances = {row[0]: row for row in store.execute("SELECT * FROM balances")}
    parts = [
        (
            [entries[index] for index in indexes.tolist()],
            [balances[account] for account in np.unique(touched).tolist() if account in balances],
        )
        for indexes, touched in zip(
            np.array_split(np.arange(len(entries)), commits), np.array_split(accounts, commits), strict=True
        )
    ]
    with TemporaryDirectory() as folder, closing(sqlite3.connect(Path(folder) / "raw.db")) as raw:
        for statement in (*_SETTINGS, *tables):
            raw.execute(statement)
        return _seconds(lambda: _write(raw, parts))


def _write(raw: sqlite3.Connection, parts: Sequence[tuple[list[Row], list[Row]]]) -> None:
    for entries, balances in parts:
        for first_words, rows in (
            ("REPLACE INTO entries VALUES", entries),
            ("REPLACE INTO balances VALUES", balances),
        ):
            if rows:
                # As many columns as the store has today.
                statement = f"{first_words} ({', '.join('?' * len(rows[0]))})"
                raw.executemany(statement, rows)
        raw.commit()


def _seconds(work: Callable[[], None]) -> float:
    start_s = time.process_time()
    work()
    return time.process_time() - start_s


def main() -> None:
    """File, URL of a server, home that the file was applied to."""
    path, url, home = sys.argv[1:]
    parse_s, batches = parse(Path(path))
    append_s = append(entries_of(batches, len(store_paths(Path(home)))), url)
    told = {"parsing": parse_s, "XADD": append_s, "SQLite": insert(batches, Path(home))}
    os.write(1, orjson.dumps(told))


if __name__ == "__main__":
    main()
