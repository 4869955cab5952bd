"""Clients that note what they send and what they are told, while everything behind them is killed at random."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import orjson

from hftpipe.client import Client, ClientLimits, Kind, Receipt, Status, Transaction
from hftpipe.core.payload import read_columns
from hftpipe.core.snapshot import Snapshot
from tests.system.support import POLL_S, Running, System

SHARED_ACCOUNTS = 5
OWN_ACCOUNTS = 3
BATCH_MAX = 20
PAUSE_S_MAX = 0.25
FLOW_S_MAX = 5.0

LIMITS = ClientLimits(
    reply_ms=5_000, reach_ms=60_000, give_up_ms=60_000, retry_first_ms=10, retry_max_ms=200, poll_ms=20
)


@dataclass(frozen=True, slots=True)
class Intent:
    """A transaction that a client was about to send."""

    tx: int
    kind: str
    account: int
    amount: int


class Notes:
    """A file of lines, each batch of them on disk before anything else happens."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab")

    def add(self, rows: list[tuple[object, ...]]) -> None:
        self._file.write(b"".join(orjson.dumps(row) + b"\n" for row in rows))
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


@dataclass
class Submitter:
    """One client in a thread: accounts of its own and shared ones, ids of its own, small windows."""

    number: int
    address: str
    folder: Path
    random: Random
    stop: threading.Event
    acknowledged: int = 0
    failed: list[BaseException] = field(default_factory=list)
    thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._run, name=f"submitter {self.number}")
        self.thread.start()

    @property
    def intents(self) -> list[Intent]:
        return [Intent(*row) for row in _noted(self.folder / f"intents-{self.number}.log")]

    @property
    def acknowledgements(self) -> list[tuple[int, str, str]]:
        """tx, status, entry."""
        return [(tx, status, entry) for tx, status, entry in _noted(self.folder / f"acks-{self.number}.log")]

    def _run(self) -> None:
        intents = Notes(self.folder / f"intents-{self.number}.log")
        acks = Notes(self.folder / f"acks-{self.number}.log")
        try:
            with Client(self.address, limits=LIMITS) as client:
                first = 1
                while not self.stop.is_set():
                    batch = [self._intent(first + at) for at in range(self.random.randint(1, BATCH_MAX))]
                    first += len(batch)
                    intents.add([(each.tx, each.kind, each.account, each.amount) for each in batch])
                    receipts = list(client.send_many(map(_transaction, batch)))
                    acks.add([_noted_receipt(*each) for each in zip(batch, receipts, strict=True)])
                    self.acknowledged += len(batch)
                    self.stop.wait(self.random.random() * 0.02)
        except BaseException as error:  # told in the test's own thread
            self.failed.append(error)
        finally:
            intents.close()
            acks.close()

    def _intent(self, number: int) -> Intent:
        account = self.random.randrange(SHARED_ACCOUNTS)
        if self.random.random() < 0.6:
            account = 1_000 * (self.number + 1) + self.random.randrange(OWN_ACCOUNTS)
        kind = "deposit" if self.random.random() < 0.6 else "withdrawal"
        return Intent((self.number + 1) * 10**9 + number, kind, account, self.random.randint(1, 100))


@dataclass
class ServeChaos:
    """One seeded course of events; `killed` counts the victims of each kind."""

    system: System
    random: Random
    clients: int
    killed: dict[str, int] = field(default_factory=dict)
    submitters: list[Submitter] = field(default_factory=list)

    def run(self, strikes: int) -> None:
        """Then the clients finish what they have begun, and everything is killed once more."""
        self.port = free_port(self.random)
        stop = threading.Event()
        self._serve = self._start_serve()
        self._workers = [self._start_worker(shards) for shards in ("0-1", "2-3")]
        self.submitters = [
            Submitter(
                number, f"127.0.0.1:{self.port}", self.system.folder, Random(self.random.random()), stop
            )
            for number in range(self.clients)
        ]
        try:
            for _ in range(strikes):
                self._flow()
                threading.Event().wait(self.random.random() * PAUSE_S_MAX)
                self._strike()
            self._flow()
        finally:
            stop.set()
            for submitter in self.submitters:
                submitter.thread.join()
        for running in [self._serve, *self._workers]:
            running.kill()

    def _flow(self) -> None:
        """Lets every client get something acknowledged between two blows, if that can be."""
        before = [submitter.acknowledged for submitter in self.submitters]
        deadline = time.monotonic() + FLOW_S_MAX
        while time.monotonic() < deadline and any(
            submitter.acknowledged == count for submitter, count in zip(self.submitters, before, strict=True)
        ):
            threading.Event().wait(POLL_S)

    def _strike(self) -> None:
        victim = self.random.choice(["serve", "serve", "worker", "server", "keeper", "all"])
        self.killed[victim] = self.killed.get(victim, 0) + 1
        if victim in ("server", "keeper", "all"):
            self.system.kill_server(keeper=victim != "server")
        if victim in ("serve", "all"):
            self._serve.kill()
        if victim in ("worker", "all"):
            at = self.random.randrange(len(self._workers))
            self._workers[at].kill()
            self._workers[at] = self._start_worker(("0-1", "2-3")[at])
        if self._serve.code is not None:
            self._serve = self._start_serve()

    def _start_serve(self) -> Running:
        return self.system.start("serve", "--tcp", f"127.0.0.1:{self.port}", "--http", "off")

    def _start_worker(self, shards: str) -> Running:
        return self.system.start("worker", "--shards", shards)


def free_port(random: Random) -> int:
    """A port that nobody uses, and that the system gives to no outgoing connection."""
    while True:
        port = random.randrange(15_000, 30_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def _transaction(intent: Intent) -> Transaction:
    return Transaction(Kind[intent.kind.upper()], intent.account, intent.tx, intent.amount)


def _noted_receipt(intent: Intent, receipt: Receipt) -> tuple[object, ...]:
    return intent.tx, receipt.status, receipt.entry


def _noted(path: Path) -> list[tuple[int, str, int, int]]:
    return [tuple(orjson.loads(line)) for line in path.read_bytes().splitlines()]


# --- judging ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Decided:
    """A row of the journal: what it was, where it stands, and what became of it; `skipped` where it stood before."""

    intent: Intent
    entry: str
    outcome: str


def journal(shard: Snapshot) -> Iterator[Decided]:
    """All rows of one shard, in the order of its journal."""
    kinds = {kind.value: kind.name.lower() for kind in Kind}
    for record in shard.tables.records:
        outcomes = orjson.loads(record.outcomes)
        assert "dead" not in outcomes, record
        batch = read_columns(record.payload.encode(), record.previous, record.count)
        assert batch.txs is not None
        reasons = {at: reason for reason, places in outcomes.get("refused", {}).items() for at in places}
        skipped = len(batch) if "gap" in outcomes else outcomes.get("skipped", 0)
        rows = zip(
            batch.txs.tolist(), batch.kinds, batch.accounts.tolist(), batch.amounts.tolist(), strict=True
        )
        for at, (tx, kind, account, amount) in enumerate(rows):
            intent = Intent(tx, kinds[kind], account, amount // 10_000)
            outcome = "skipped" if at < skipped else reasons.get(at, "applied")
            yield Decided(intent, f"{shard.shard}/{record.id.generation}-{record.id.sequence}", outcome)


def broken_promises(shards: list[Snapshot], submitters: list[Submitter]) -> list[str]:
    """A line for everything that a client was promised and that does not hold."""
    rows = [row for shard in shards for row in journal(shard)]
    intents = {intent.tx: intent for submitter in submitters for intent in submitter.intents}
    decided: dict[int, list[str]] = {}
    entries: dict[int, set[str]] = {}
    order: dict[tuple[int, int], list[int]] = {}
    broken: list[str] = []
    for row in rows:
        tx, account = row.intent.tx, row.intent.account
        entries.setdefault(tx, set()).add(row.entry)
        if row.intent != intents.get(tx):
            broken.append(f"nobody sent {row}")
        if row.outcome == "skipped":
            continue
        if tx not in decided:
            order.setdefault((tx // 10**9, account), []).append(tx)
        decided.setdefault(tx, []).append(row.outcome)
    for tx, outcomes in decided.items():
        if outcomes[0] == "duplicate_tx" or set(outcomes[1:]) - {"duplicate_tx"}:
            broken.append(f"{tx} came to {outcomes}")
    for submitter in submitters:
        broken += _broken_to(submitter, decided, entries, order)
    return broken


def _broken_to(
    submitter: Submitter,
    decided: dict[int, list[str]],
    entries: dict[int, set[str]],
    order: dict[tuple[int, int], list[int]],
) -> Iterator[str]:
    for tx, status, entry in submitter.acknowledgements:
        if status not in {Status.DURABLE, Status.DUPLICATE}:
            yield f"{tx} was told to be {status}"
        elif tx not in decided:
            yield f"{tx} was acknowledged with {entry} and is not in the journal"
        elif entry not in entries[tx]:
            yield f"{tx} was said to be in {entry}, and is in {entries[tx]}"
    sent: dict[tuple[int, int], list[int]] = {}
    for intent in submitter.intents:
        if intent.tx in decided:
            sent.setdefault((submitter.number + 1, intent.account), []).append(intent.tx)
    for key, txs in sent.items():
        if order[key] != txs:
            yield f"client {submitter.number}, account {key[1]}: not in the order sent"
