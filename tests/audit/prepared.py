"""A home with a bit of everything in it, made once; and copies of it, each with a log of its own, to be damaged."""

import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

from hftpipe.audit.findings import Finding
from hftpipe.audit.log_check import AuditedLog
from hftpipe.audit.verifying import Log, Report, verify
from hftpipe.config import IngestLimits, WorkerLimits
from hftpipe.core.commit import ACCEPTED_LOSS, Decision
from hftpipe.core.entry import EntryId, Lost, digest_of, encode
from hftpipe.core.ledger import Ledger
from hftpipe.core.posting import follow_chain, post
from hftpipe.core.transaction import Batch
from hftpipe.log.memory import MemoryLog
from hftpipe.ports import Outgoing, Store
from hftpipe.store.creation import create
from hftpipe.store.sqlite import SqliteStore, shard_path
from hftpipe.worker import ShardWorker
from tests.shell.memory_pipeline import WORKER_LIMITS, MemoryPipeline
from tests.system.support import transactions

SHARDS = 2
DISPUTES = b"""type,client,tx,amount
deposit,4,9000000000000000001,5
deposit,4,9000000000000000002,6
deposit,6,9000000000000000003,7
dispute,4,9000000000000000001,
dispute,4,9000000000000000002,
resolve,4,9000000000000000002,
dispute,6,9000000000000000003,
chargeback,6,9000000000000000003,
deposit,6,9000000000000000004,8
"""
ENTRY_LIMITS = IngestLimits(entry_transactions_max=24)


class FilePipeline(MemoryPipeline):
    """A pipeline whose log is in memory and whose stores are those of a home."""

    def __init__(self, home: Path, shards: int = SHARDS) -> None:
        super().__init__(shards)
        self.home = home

    def worker(
        self, shard: int, owner: str = "host 12 34 0123abcd", limits: WorkerLimits = WORKER_LIMITS
    ) -> ShardWorker:
        path = shard_path(self.home, shard)

        def open_store() -> Store:
            create(path, self.topology, shard)
            return SqliteStore(path, settings=("PRAGMA synchronous=OFF",))

        worker = super().worker(shard, owner, limits)
        worker._open_store = open_store
        return worker


@dataclass(frozen=True, slots=True)
class Prepared:
    """A home and its log."""

    home: Path
    log: MemoryLog

    def copy(self, folder: Path) -> "Prepared":
        """The same once more."""
        shutil.copytree(self.home, folder)
        return Prepared(folder, deepcopy(self.log))

    @classmethod
    def of(cls, folder: Path, content: bytes) -> "Prepared":
        """A home that has applied a file."""
        home, path = folder / "home", folder / "source.csv"
        home.mkdir()
        path.write_bytes(content)
        pipeline = FilePipeline(home)
        pipeline.ingest(path)
        pipeline.work()
        return cls(home, pipeline.log)

    def rewound(self, folder: Path) -> "Prepared":
        """A copy whose log has lost what was not applied, and some of what was; a worker went on, with new entries."""
        copied = self.copy(folder)
        stream = copied.log.streams[0]
        assert stream.group is not None
        lost = [stream.entries.pop(entry_id) for entry_id in list(stream.entries) if entry_id.sequence >= 30]
        stream.last = EntryId(1, 29)
        for fields in lost[1:]:
            copied.log.append(Outgoing(0, fields))
        copied.apply()
        return copied

    def apply(self) -> None:
        """Lets workers apply what is in the log."""
        pipeline = FilePipeline(self.home)
        pipeline.log = self.log
        pipeline.work()

    def give_up(self, lost: Lost) -> None:
        """Accepts a loss in shard 0, as `hftpipe repair` does."""
        with closing(SqliteStore(shard_path(self.home, 0))) as store:
            positions = store.positions(set(lost.positions))
            before = store.checkpoint()
            steps = follow_chain([lost], positions)
            epoch = store.take("host 12 34 0123abcd", store.ownership())
            assert epoch is not None
            commit = post(Ledger(before.highest_tx), before, steps, positions)
            address = f"0/{lost.first or lost.id}"
            decision = Decision(0, ACCEPTED_LOSS, address, commit.after.number, "me@here", "given up")
            store.commit(epoch, replace(commit, decisions=[decision]))
            store.release(epoch)

    def give_up_damaged(self, entry_id: EntryId) -> None:
        """Damages an entry in the log of shard 0, and accepts that loss."""
        entries = self.log.streams[0].entries
        fields = entries[entry_id] = {**entries[entry_id], b"t": b"1"}
        self.give_up(Lost(entry_id, "damaged", fields, digest_of(fields), entry_id, {}))

    def verified(
        self,
        *,
        asks_log: bool = True,
        chosen: Sequence[int] = (),
        stopping: Callable[[], bool] = lambda: False,
    ) -> Report:
        """What `hftpipe verify` finds."""
        log = Log(self.log.topology, self._opened) if asks_log else None
        return verify(self.home, chosen, log, processes=1, stopping=stopping, tell=lambda _: None)

    def findings(self, *, asks_log: bool = True, chosen: Sequence[int] = ()) -> list[Finding]:
        """Its rows."""
        report = self.verified(asks_log=asks_log, chosen=chosen)
        return [finding for findings in report.all for finding in findings.shown]

    @contextmanager
    def shard(self, shard: int = 0) -> Iterator[sqlite3.Connection]:
        """A connection to damage a shard's database by."""
        with closing(sqlite3.connect(shard_path(self.home, shard), isolation_level=None)) as connection:
            yield connection

    def change(self, statement: str, *values: object, shard: int = 0) -> None:
        """Damages a shard's database."""
        with self.shard(shard) as connection:
            assert connection.execute(statement, values).rowcount == 1, statement

    def _opened(self, shard: int) -> AbstractContextManager[AuditedLog]:
        return nullcontext(self.log.reader(shard, "verify"))


def named(findings: list[Finding], what: str, where: str, there: str = "", expected: str = "") -> Finding:
    """The finding of that kind whose place and sides match these patterns."""
    found = [
        finding
        for finding in findings
        if finding.what == what
        and re.search(where, finding.where)
        and re.search(there, finding.there)
        and re.search(expected, finding.expected)
    ]
    assert found, findings
    return found[0]


def prepare(folder: Path) -> Prepared:
    """Two shards: refusals, disputes, late ids, sources, dead letters, an entry behind a gap, and a backlog."""
    home = folder / "home"
    home.mkdir()
    pipeline = FilePipeline(home)
    for number in range(2):
        pipeline.clock.now_ms = 1_600_000_000_000 + number * 1_000_000
        lines = transactions(700, 20, seed=number, offset=number * 2**40, random_ids=bool(number))
        path = folder / f"source-{number}.csv"
        path.write_bytes(b"".join(lines))
        pipeline.ingest(path, limits=ENTRY_LIMITS, source=f"source-{number}")
        pipeline.log.append(Outgoing(0, {b"hello\\": b"w\xffrld", b"\xfe": b"\\x41"}))
        pipeline.work(replace(WORKER_LIMITS, commit_transactions_max=100))
    plain = folder / "plain.csv"
    plain.write_bytes(b"type,client,amount\n" + b"deposit,4,1.5\nwithdrawal,5,7\n" * 4)
    pipeline.ingest(plain, limits=ENTRY_LIMITS, source="plain")
    disputes = folder / "disputes.csv"
    disputes.write_bytes(DISPUTES)
    pipeline.ingest(disputes, limits=ENTRY_LIMITS, source="disputes")
    pipeline.log.append(
        Outgoing(0, encode("behind a gap", 5, Batch.of("D", [2], [7], [10_000], [6]), 1_700_000_000_000))
    )
    pipeline.work()
    backlog = folder / "backlog.csv"
    backlog.write_bytes(b"".join(transactions(200, 20, seed=9, offset=2**50)))
    pipeline.ingest(backlog, limits=ENTRY_LIMITS, source="backlog")
    return Prepared(home, pipeline.log)
