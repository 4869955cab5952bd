"""Proves a shard's store: everything that follows from its journal is counted anew and compared; then the log."""

import re
import secrets
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from hftpipe.audit.decision_check import DecisionCheck
from hftpipe.audit.findings import Findings
from hftpipe.audit.journal import Journal
from hftpipe.audit.journal_check import JournalCheck
from hftpipe.audit.log_check import AuditedLog, LogCheck, Logs
from hftpipe.audit.parallel import Progress, Tell
from hftpipe.audit.recount import COMMIT_TRANSACTIONS, recount
from hftpipe.audit.scratch import Scratch
from hftpipe.audit.shared_ids import IdFiles
from hftpipe.audit.tables import check_integrity, check_schema, check_tables
from hftpipe.audit.tally import Teller
from hftpipe.core.columnar_ledger import ColumnarLedger
from hftpipe.core.commit import Checkpoint
from hftpipe.core.entry import EntryId, origin
from hftpipe.store.reading import open_reading, store_paths, summarise
from hftpipe.store.sqlite import shard_path, translated

_SHARD = "SELECT * FROM shard"
_RECORDED = "SELECT count(*) FROM entries"
_HAS_RECORD = "SELECT count(*) FROM entries WHERE entry = ? AND digest = ?"
_OWNER: Final = re.compile(r"\S+ [0-9]+ \S* [0-9a-f]{8}")
_EPOCH_MAX: Final = 2**63 - 1
_COUNTS: Final = ("applied", "refused", "skipped", "gaps", "dead")


@dataclass(frozen=True, slots=True)
class Verified:
    """What became of one shard."""

    findings: Findings
    records: int = 0
    transactions: int = 0


@dataclass(frozen=True, slots=True)
class Verify:
    """Verifies any shard of a home: a `parallel.Task`.

    pipeline, shards: what the files are to say. folder: for scratch stores and ids, these in so many `parts`.
    logs: None when the log is not to be looked at.
    """

    home: Path
    pipeline: str
    shards: int
    folder: Path
    parts: int
    logs: Logs | None

    def __call__(self, shard: int, tell: Tell) -> Verified:
        """Raises ScratchUnavailable."""
        findings = Findings(shard)
        path = shard_path(self.home, shard)
        verified = Verified(findings)
        with ExitStack() as stack:
            audit: _Audit | None = None
            if path.exists():
                with findings.guard("database", path.name, "a shard's database that can be read"):
                    journal = stack.enter_context(Journal(path, shard, self.shards))
                    audit = _Audit(self, shard, journal, findings)
                    verified = audit.run(tell)
            if self.logs is not None:
                with findings.guard("log", f"shard {shard}", "a log that can be asked, or --no-log"):
                    log = stack.enter_context(self.logs(shard))
                    looked = partial(tell, Progress(shard, 0, 0, verified.records))
                    check = LogCheck(log, shard, self.shards, findings, looked)
                    self._check_log(log, check, path, audit, findings)
            elif not path.exists() and store_paths(self.home):
                findings.notes.append(
                    f"shard {shard}: {path} is not there, other shards have theirs. Either its worker never ran, or "
                    "the file is lost: the log tells which, without --no-log"
                )
        return verified

    def _check_log(
        self, log: AuditedLog, check: LogCheck, path: Path, audit: "_Audit | None", findings: Findings
    ) -> None:
        if audit is None and not path.exists():
            topology = log.topology()
            start = origin(topology.generation if topology is not None else 1)
            group = log.group()
            # A worker makes its store before it reads the first entry; it may be doing so now.
            if group is not None and group[0] > start and not path.exists():
                there = f"a database: a worker has read the log up to {findings.shard}/{group[0]}"
                findings.add("database", path.name, "no file", there)
            check.run(None, None, start, lambda: start)
        elif audit is not None and audit.checkpoint is not None:
            check.run(audit.journal, audit.walked, audit.checkpoint, lambda: summarise(path).checkpoint.id)
        else:
            findings.notes.append(
                f"shard {findings.shard}: its log was not compared: its store does not say how far it is"
            )


class _Audit:
    """One shard's store under audit."""

    def __init__(self, task: Verify, shard: int, journal: Journal, findings: Findings) -> None:
        self._task = task
        self._shard = shard
        self._findings = findings
        self.journal = journal
        self.walked: JournalCheck | None = None
        self.checkpoint: EntryId | None = None

    def run(self, tell: Tell) -> Verified:
        """Raises StoreDamaged where the file cannot be read."""
        findings, live = self._findings, self.journal.connection
        with findings.guard("database", "integrity", "ok"):
            check_integrity(live, findings)
        row = self._shard_row()
        with suppress(KeyError, ValueError, TypeError, AttributeError):  # it is named when it is compared
            self.checkpoint = EntryId.parse(row["checkpoint"])
        incarnation = row.get("incarnation")
        walked = self.walked = JournalCheck(
            self.journal, incarnation if isinstance(incarnation, int) else 0, findings
        )
        counted = self._recount(walked, tell)
        self._check_shard(row, walked, counted)
        if walked.broken_at:
            findings.notes.append(
                f"shard {self._shard}: its tables were not compared: they follow from the journal, which is not "
                f"what it was from record {walked.broken_at} on"
            )
        with closing(open_reading(shard_path(self._task.folder, self._shard))) as scratch:
            check_schema(live, scratch, findings)
            if not walked.broken_at:
                check_tables(live, scratch, findings)
        if not walked.broken_at:
            with findings.guard("decisions", "all rows", "rows that can be read"):
                self._check_decisions(row, walked)
        totals = counted.totals
        return Verified(findings, walked.number, totals.applied + totals.refused + totals.skipped)

    def _shard_row(self) -> dict[str, Any]:
        """The one row of table `shard`, by column."""
        with translated(shard_path(self._task.home, self._shard)):
            cursor = self.journal.connection.execute(_SHARD)
            names = [column[0] for column in cursor.description]
            rows = cursor.fetchall()
        if len(rows) != 1:
            self._findings.add("shard", "all rows", f"{len(rows)} rows", "1 row")
        return dict(zip(names, rows[0], strict=True)) if rows else {}

    def _recount(self, walked: JournalCheck, tell: Tell) -> Checkpoint:
        """Counts the journal anew, as far as it is whole. Returns what it comes to."""
        task = self._task
        (records,) = self.journal.connection.execute(_RECORDED).fetchone()
        teller = Teller(self._shard, records, tell)
        identity = (task.pipeline, self._shard, task.shards)
        generation = 1 if self.checkpoint is None else self.checkpoint.generation
        with (
            Scratch(task.folder, identity, generation, journal=False) as scratch,
            closing(IdFiles(task.folder, self._shard, task.parts)) as ids,
        ):
            ledger = ColumnarLedger(seed=secrets.randbits(64))
            for commit in recount(scratch, walked.entries(), ledger, COMMIT_TRANSACTIONS):
                walked.compare(commit.records)
                ids.add(commit.taken)
                teller.add(commit)
            if walked.broken_at:
                walked.rest()
            return scratch.checkpoint()

    def _check_shard(self, row: dict[str, Any], walked: JournalCheck, counted: Checkpoint) -> None:
        """The checkpoint and the fence."""
        findings, task = self._findings, self._task
        for name, expected in (
            ("id", 1),
            ("pipeline", task.pipeline),
            ("shard", self._shard),
            ("shards", task.shards),
        ):
            findings.check("shard", name, row.get(name), expected)
        epoch = row.get("epoch")
        if type(epoch) is not int or epoch < min(walked.number, 1):
            findings.add(
                "shard", "epoch", epoch, "1 or more: entries were applied" if walked.number else "0 or more"
            )
        owner = row.get("owner")
        if not isinstance(owner, str) or (owner and not _OWNER.fullmatch(owner)):
            findings.add("shard", "owner", owner, "nobody, or host, process id, its start and 8 digits")
        for name in ("beat", "incarnation"):
            if type(row.get(name)) is not int or row[name] < 0:
                findings.add("shard", name, row.get(name), "0 or more")
        if not walked.broken_at:
            self._check_checkpoint(row, walked, counted)

    def _check_decisions(self, row: dict[str, Any], walked: JournalCheck) -> None:
        """And the bounds of what is counted in the fence; where a database was made anew, they are not known."""
        epoch, beat = row.get("epoch"), row.get("beat")
        check = DecisionCheck(self._shard, walked.losses, self._findings)
        check.run(self.journal.connection, epoch if isinstance(epoch, int) else _EPOCH_MAX)
        if check.is_rebuilt:
            return
        if isinstance(epoch, int) and isinstance(beat, int):
            # Each owner beats when it takes the shard, with each commit, and with each step back.
            least = epoch + walked.incarnation + min(walked.number, 1)
            if beat < least:
                self._findings.add("shard", "beat", beat, f"{least} or more: so many owners and steps back")
        if walked.incarnation > walked.steps_back:
            expected = f"{walked.steps_back} at most, by the order of the entries"
            self._findings.add("shard", "incarnation", walked.incarnation, expected)

    def _check_checkpoint(self, row: dict[str, Any], walked: JournalCheck, counted: Checkpoint) -> None:
        expected = {"number": counted.number, "hash": counted.hash, "highest_tx": counted.highest_tx}
        for name, value in (expected | {name: getattr(counted.totals, name) for name in _COUNTS}).items():
            self._findings.check("checkpoint", name, row.get(name), value)
        last = {"checkpoint": str(counted.id), "digest": counted.digest}
        there = {name: row.get(name) for name in last}
        # It went back, and nothing was applied since: then it stands at a former record.
        if there != last and walked.jumps < walked.incarnation and self._is_recorded(there):
            if self.checkpoint is not None:
                walked.steps_back += max(counted.id.sequence - self.checkpoint.sequence, 1)
        else:
            for name, value in last.items():
                self._findings.check("checkpoint", name, there[name], value)

    def _is_recorded(self, there: dict[str, Any]) -> bool:
        values = (there["checkpoint"], there["digest"])
        try:
            (count,) = self.journal.connection.execute(_HAS_RECORD, values).fetchone()
        except UnicodeEncodeError:  # a damaged cell
            return False
        return bool(count)
