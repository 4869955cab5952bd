"""One shard's journal as it was at one moment, read beside any worker: records, and the entries they were made of."""

import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import orjson

from hftpipe.core.commit import Checkpoint
from hftpipe.core.entry import Entry, EntryId, Foreign
from hftpipe.core.journal import Record
from hftpipe.core.recorded import Fields, Unlike, entry_of, octets_of
from hftpipe.errors import JournalDamaged
from hftpipe.store.reading import open_reading
from hftpipe.store.sqlite import check_version, one_row, read_checkpoint, translated

PAGE_RECORDS_MAX: Final = 512
PAGE_BYTES_MAX: Final = 8 << 20
"""Records, and bytes of their payloads, that are in memory at a time."""

_IDENTITY = "SELECT pipeline, shard, shards FROM shard"
_RECORDS = (
    "SELECT number, entry, source, previous, position, time_ms, count, payload, outcomes, digest, hash "
    "FROM entries WHERE number BETWEEN ? AND ? ORDER BY number"
)
_NUMBER_OF = "SELECT max(number) FROM entries WHERE entry = ?"
_NUMBER_UNTIL = "SELECT max(number) FROM entries WHERE time_ms <= ? AND payload <> ''"
_DEAD_FIELDS = "SELECT fields FROM dead WHERE number = ?"
_ESCAPED: Final = re.compile(rb"\\(?:\\|x([0-9a-f]{2}))")

_TYPES: Final = (int, str, str, int, int, int, int, str, str, str, str)


@dataclass(frozen=True, slots=True)
class Recorded:
    """One journal record, and the entry that it was made of."""

    record: Record
    entry: Entry | Foreign


class Journal:
    """One shard's journal, of the moment at which it was opened: what is committed later does not show.

    As long as it is open, the database's write-ahead log cannot be folded in and grows.
    Raises StoreUnavailable, StoreDamaged.
    """

    def __init__(self, path: Path, shard: int, shards: int) -> None:
        """shard, shards: whose entries these must be; the file may say otherwise."""
        self._path = path
        self._shard = shard
        self._shards = shards
        with translated(path):
            self.connection = open_reading(path)
            """Of that moment, too, for who compares other tables. Text that is no UTF-8 comes with surrogates."""
            try:
                self.connection.text_factory = _lenient
                self.connection.execute("BEGIN")
                check_version(self.connection, path)  # the first look: it fixes the moment
            except BaseException:
                self.connection.close()
                raise

    def close(self) -> None:
        """Lets go of the database, and of the moment."""
        self.connection.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @cached_property
    def identity(self) -> tuple[str, int, int]:
        """Pipeline id, shard and number of shards that the file says it is of. Raises StoreDamaged."""
        with translated(self._path):
            row: tuple[str, int, int] = one_row(self.connection, _IDENTITY)
        return row

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """How far the shard was applied at that moment. Raises StoreDamaged."""
        with translated(self._path):
            return read_checkpoint(self.connection)

    def read(self, first: int = 1, last: int | None = None) -> Iterator[list[Recorded]]:
        """Pages of records first..last by number, ascending and without a hole, each checked against its digest.

        last: the checkpoint's by default. Raises JournalDamaged.
        """
        expected = first
        last = self.checkpoint.number if last is None else last
        for page in self.records(first, last):
            for record in page:
                if record.number != expected:
                    raise JournalDamaged(self._shard, expected, "is missing")
                expected += 1
            yield [Recorded(record, self.entry_of(record)) for record in page]
        if expected <= last:
            raise JournalDamaged(self._shard, expected, "is missing")

    def records(self, first: int, last: int) -> Iterator[list[Record]]:
        """Pages of records as they are there, unchecked but for the types of their columns. Raises JournalDamaged."""
        page: list[Record] = []
        size = 0
        with translated(self._path):
            try:
                for row in self.connection.execute(_RECORDS, (first, last)):
                    page.append(self._record(row))
                    size += len(page[-1].payload)
                    if len(page) >= PAGE_RECORDS_MAX or size >= PAGE_BYTES_MAX:
                        yield page
                        page, size = [], 0
            except (JournalDamaged, sqlite3.Error):
                if page:
                    yield page  # what was read before is whole
                raise
        if page:
            yield page

    def entry_of(self, record: Record) -> Entry | Foreign:
        """The entry that a record was made of. Raises JournalDamaged when its content is not that of its digest."""
        try:
            dead = None if record.payload else self._dead_fields(record.number)
            return entry_of(record, self._shard, self._shards, dead)
        except Unlike as problem:
            raise JournalDamaged(self._shard, record.number, str(problem)) from None

    def number_of(self, entry_id: EntryId) -> int | None:
        """The newest record of an entry; None when it is in no record."""
        return self._number(_NUMBER_OF, str(entry_id))

    def number_until(self, time_ms: int) -> int | None:
        """The last record whose entry was appended at or before a time; None when all came later."""
        return self._number(_NUMBER_UNTIL, time_ms)

    def _number(self, statement: str, value: object) -> int | None:
        with translated(self._path):
            (number,) = self.connection.execute(statement, (value,)).fetchone()
        return None if number is None else int(number)

    def _record(self, row: Any) -> Record:
        number, entry_id, *others = row
        if any(type(value) is not kind for value, kind in zip(row, _TYPES, strict=True)):
            raise JournalDamaged(self._shard, number, "has a column of another type than it must")
        try:
            return Record(number, EntryId.parse(entry_id), *others)
        except (ValueError, UnicodeError):
            raise JournalDamaged(self._shard, number, f"says that its entry is {entry_id!r}") from None

    def _dead_fields(self, number: int) -> Fields | None:
        with translated(self._path):
            row = self.connection.execute(_DEAD_FIELDS, (number,)).fetchone()
        if row is None:
            return None
        try:
            return read_legible(row[0])
        except (ValueError, TypeError, AttributeError):
            raise JournalDamaged(
                self._shard, number, f"is a dead letter whose fields cannot be read: {str(row[0])[:60]!r}"
            ) from None


def read_legible(text: str) -> dict[bytes, bytes]:
    """The fields of a dead letter, from the text in which a store keeps them. Raises ValueError when it is none."""
    return {_octets(name): _octets(value) for name, value in orjson.loads(octets_of(text)).items()}


def _octets(legible: str) -> bytes:
    """The bytes that `store.sqlite` has made legible."""
    return _ESCAPED.sub(lambda found: bytes([int(found[1], 16)]) if found[1] else b"\\", legible.encode())


def _lenient(octets: bytes) -> str:
    return octets.decode("utf-8", "surrogateescape")
