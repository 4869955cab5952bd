"""`hftpipe validate`: entries of any Redis client, while validators are killed, stopped and woken again."""

import signal
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import orjson
import redis

from hftpipe.core.entry import EntryId
from hftpipe.inbox import id_at
from hftpipe.log.keys import Keys
from tests.shell.memory_pipeline import MemoryPipeline
from tests.system.support import SHARDS, System, check, decided, transactions, wait_for

ENTRIES = 20_000
NAMES = ("type", "client", "tx", "amount")
FAULTS = (
    "inbox.read:2:kill",
    "inbox.appended:2:kill",
    "inbox.noted:2:kill",
    "inbox.rejected:1:kill",
    "ingest.post_append:2:kill",
    "inbox.rejected:2:kill",
)
KEYS = Keys()
LEASE_MS = 400


class Feed:
    """Transactions as a client adds them, one in fifty of them invalid; `ids` are those of the entries, in order."""

    def __init__(self, client: "redis.Redis", rows: int, seed: int) -> None:
        random = Random(seed)
        _, *lines = transactions(rows, 200, seed=seed)
        self.lines = [line.strip() if random.random() > 0.02 else line.strip() + b"x" for line in lines]
        self.ids: list[EntryId] = []
        self.client = client

    def add(self, count: int) -> None:
        """So many more, pipelined."""
        with self.client.pipeline(transaction=False) as pipeline:
            for line in self.lines[len(self.ids) : len(self.ids) + count]:
                pipeline.xadd(KEYS.inbox, dict(zip(NAMES, line.decode().split(","), strict=True)))
            self.ids += map(EntryId.parse, pipeline.execute())

    def invalid(self) -> set[str]:
        """Ids of those that are not let through: an `x` spoils an amount, and where there is none it is no amount."""
        return {
            str(entry_id) for entry_id, line in zip(self.ids, self.lines, strict=False) if line.endswith(b"x")
        }

    def write(self, path: Path) -> Path:
        """The valid ones as a CSV file."""
        lines = [line for line in self.lines[: len(self.ids)] if not line.endswith(b"x")]
        path.write_bytes(b"\n".join([",".join(NAMES).encode(), *lines, b""]))
        return path


def status(system: System) -> dict[str, object]:
    """What is shown of the inbox."""
    (row,) = orjson.loads(system.run("status", "--inbox", "--format", "json").out)
    assert isinstance(row, dict)
    return row


def is_empty(client: "redis.Redis") -> Callable[[], bool]:
    return lambda: not client.xlen(KEYS.inbox)


def check_all(system: System, feed: Feed, client: "redis.Redis") -> None:
    """Each entry was applied or refused once, or reported once; and the outcome is that of a quiet run of a file."""
    system.prepare()
    shards = check(system)
    rows = [row for shard in shards for row in decided(shard)]
    found = Counter(str(id_at(row[1])) for row in rows)
    invalid = feed.invalid()
    assert found == Counter(map(str, feed.ids)) - Counter(invalid)
    reports = [fields[b"id"].decode() for _, fields in client.xrange(KEYS.invalid)]
    assert Counter(reports) == Counter(invalid)
    quiet = MemoryPipeline(SHARDS)
    quiet.ingest(feed.write(system.folder / "same.csv"))
    quiet.work()
    assert outcomes(rows) == outcomes([row for store in quiet.stores for row in decided(store.snapshot())])
    balances = {
        account: balance[:3] for shard in shards for account, balance in shard.tables.balances.items()
    }
    assert balances == quiet.balances()


def outcomes(rows: Sequence[tuple[object, ...]]) -> dict[object, list[object]]:
    """By account: kind, id, amount and outcome of each transaction, in order."""
    found: dict[object, list[object]] = {}
    for row in sorted(rows, key=lambda row: row[1]):  # type: ignore[arg-type, return-value]
        found.setdefault(row[3], []).append((row[2], *row[4:]))
    return found


def test_validators_that_are_killed_lose_and_double_nothing(system: System) -> None:
    """At each step of their work, while clients add and a worker applies."""
    system.prepare()
    client = system.lasting_client()
    feed = Feed(client, ENTRIES, seed=5)
    worker = system.start("worker")
    portion = ENTRIES // (2 * len(FAULTS))
    for fault in FAULTS:
        feed.add(portion)
        validator = system.start("validate", "--lease-ms", LEASE_MS, fault=fault)
        wait_for(lambda: feed_until_ended(feed, validator.code), f"the end by {fault}")  # noqa: B023
        assert validator.code == -signal.SIGKILL
    validator = system.start("validate")
    feed.add(ENTRIES - len(feed.ids))
    wait_for(is_empty(client), "an empty inbox")
    assert validator.send(signal.SIGTERM).ended() == 0
    assert worker.send(signal.SIGTERM).ended() == 0
    assert len(feed.ids) == ENTRIES
    check_all(system, feed, client)


def feed_until_ended(feed: Feed, code: int | None) -> bool:
    """Gives it something to do for as long as it runs, when it has done what there was."""
    if code is None and len(feed.ids) < ENTRIES - 1_000 and not feed.client.xlen(KEYS.inbox):
        feed.add(200)
    return code is not None


def test_a_standby_takes_over_from_a_validator_that_stands_still(system: System) -> None:
    """And when that one wakes, with old entries in hand, nothing is doubled or passed over."""
    system.prepare()
    client = system.lasting_client()
    feed = Feed(client, 6_000, seed=6)
    owner = system.start("validate", "--lease-ms", LEASE_MS, fault="inbox.read:2:stop")
    wait_for(lambda: client.get(KEYS.inbox_owner), "an owner")
    standby = system.start("validate", "--lease-ms", LEASE_MS).says("standing by")
    assert status(system)["standbys"] == 1
    feed.add(1_500)
    wait_for(owner.is_stopped, "an owner that stands still")
    feed.add(1_500)
    wait_for(is_empty(client), "the standby's work")
    owner.send(signal.SIGCONT)
    feed.add(1_500)
    wait_for(is_empty(client), "the work of one of them")
    owner.says("standing by")
    feed.add(1_500)
    assert standby.send(signal.SIGTERM).ended() == 0
    wait_for(is_empty(client), "the work of the one that is left")
    assert owner.send(signal.SIGTERM).ended() == 0
    check_all(system, feed, client)


def test_an_inbox_is_emptied_and_shown(system: System) -> None:
    """Whoever adds: names in any case, values as in CSV; with --until-idle that is all."""
    system.prepare()
    assert system.run("status", "--inbox", "--format", "json").out == "[]\n"
    client = system.lasting_client()
    client.execute_command(*b"XADD hft:inbox * TYPE Deposit account 1 TX 1 amount 10.0".split())
    client.execute_command(*b"XADD hft:inbox * type deposit account 1 tx 2 amount 1 amount 1".split())
    assert status(system) == {"waiting": 2, "pending": 0, "invalid": 0, "owner": "", "standbys": 0}
    done = system.run("validate", "--until-idle")
    assert "2 entries taken, 1 durable, 1 (too_many_fields 1) invalid" in done.err
    system.drain()
    assert system.run("balances", "--format", "csv").out.splitlines()[1:] == [
        "1,10.0000,0.0000,10.0000,false"
    ]
    ((_, report),) = client.xrange(KEYS.invalid)
    assert report[b"field"] == b"amount"
    client.delete(KEYS.inbox)
    client.set(KEYS.inbox, "something")
    refused = system.run("validate", "--until-idle", code=1)
    assert f"{KEYS.inbox} cannot be used" in refused.err
