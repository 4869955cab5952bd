"""Whatever is changed in a home's stores or in its log, verify finds it, and names the place and both sides."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftpipe.audit.findings import SHOWN_MAX, Finding
from hftpipe.core.entry import EntryId, Lost, digest_of
from hftpipe.errors import Interrupted, UsageError
from hftpipe.store.sqlite import shard_path
from tests.audit.pages import cells
from tests.audit.prepared import Prepared, named


@dataclass(frozen=True, slots=True)
class Fault:
    """A change in the database of shard 0, and the finding that must name it."""

    name: str
    statement: str
    what: str
    where: str
    there: str = ""
    expected: str = ""

    def __str__(self) -> str:
        return self.name


FAULTS = [
    Fault(
        "a flipped balance",
        "UPDATE balances SET available = available + 1 WHERE account = 4",
        "balances",
        "^account 4$",
        r"^available=\d+$",
        r"^available=\d+$",
    ),
    Fault(
        "a balance held",
        "UPDATE balances SET held = 5 WHERE account = 2",
        "balances",
        "account 2",
        "held=5",
        "held=0",
    ),
    Fault(
        "a locked account",
        "UPDATE balances SET locked = 0 WHERE account = 6",
        "balances",
        "account 6",
        "=0",
        "=1",
    ),
    Fault(
        "a last entry", "UPDATE balances SET last_entry = 1 WHERE account = 4", "balances", "account 4", "=1$"
    ),
    Fault(
        "an account too many",
        "INSERT INTO balances VALUES (1000, 1, 0, 0, 1)",
        "balances",
        "1000",
        "av",
        "no row",
    ),
    Fault(
        "an account too few",
        "DELETE FROM balances WHERE account = 4",
        "balances",
        "account 4",
        "no row",
        "available",
    ),
    Fault(
        "an edited payload",
        "UPDATE entries SET payload = replace(payload, ':[', ': [') WHERE number = 9",
        "entries",
        "^record 9$",
        "content of digest [0-9a-f]{32}, but says [0-9a-f]{32}",
    ),
    Fault(
        "an edited time",
        "UPDATE entries SET time_ms = time_ms + 1 WHERE number = 9",
        "entries",
        "record 9",
        "digest",
    ),
    Fault(
        "an edited digest",
        "UPDATE entries SET digest = hash WHERE number = 9",
        "entries",
        "record 9",
        "digest",
    ),
    Fault(
        "edited outcomes",
        "UPDATE entries SET outcomes = '{\"skipped\":1}' WHERE number = 9",
        "entries",
        r"record 9 \(1-8\)",
        "outcomes='{\"skipped\":1}'",
        "outcomes=",
    ),
    Fault(
        "an edited hash",
        "UPDATE entries SET hash = digest WHERE number = 9",
        "entries",
        r"record 9 \(1-8\)",
        "hash=",
    ),
    Fault(
        "a missing entry",
        "DELETE FROM entries WHERE number = 9",
        "entries",
        "record 9",
        r"next is record 10 \(1-9\)",
    ),
    Fault(
        "a missing last entry",
        "DELETE FROM entries WHERE number = (SELECT max(number) FROM entries)",
        "checkpoint",
        "number",
        r"^\d+$",
        r"^\d+$",
    ),
    Fault(
        "an entry's other id",
        "UPDATE entries SET entry = '1-77' WHERE number = 9",
        "entries",
        "record 9",
        "1-77",
        "1-8",
    ),
    Fault(
        "an entry's broken id",
        "UPDATE entries SET entry = '1-' WHERE number = 9",
        "entries",
        "record 9",
        "'1-'",
    ),
    Fault(
        "a wrong checkpoint",
        "UPDATE shard SET checkpoint = '1-3'",
        "checkpoint",
        "checkpoint",
        "^1-3$",
        r"^1-\d+$",
    ),
    Fault(
        "a broken checkpoint",
        "UPDATE shard SET checkpoint = '1x3'",
        "checkpoint",
        "checkpoint",
        "1x3",
        r"^1-\d+$",
    ),
    Fault("a checkpoint's digest", "UPDATE shard SET digest = hash", "checkpoint", "digest", "[0-9a-f]{32}"),
    Fault(
        "a checkpoint's hash",
        "UPDATE shard SET hash = digest",
        "checkpoint",
        "hash",
        "[0-9a-f]{32}",
        "[0-9a-f]{32}",
    ),
    Fault("a checkpoint's number", "UPDATE shard SET number = number - 1", "checkpoint", "number"),
    Fault("the highest id", "UPDATE shard SET highest_tx = 5", "checkpoint", "highest_tx", "^5$", "^9"),
    Fault("a total", "UPDATE shard SET refused = refused + 1", "checkpoint", "refused", r"^\d+$", r"^\d+$"),
    Fault("dead letters' total", "UPDATE shard SET dead = 1", "checkpoint", "dead", "^1$", "^2$"),
    Fault("a forgotten gap", "UPDATE shard SET gaps = 0", "checkpoint", "gaps", "^0$", "^1$"),
    Fault("no epoch", "UPDATE shard SET epoch = 0", "shard", "epoch", "^0$", "1 or more"),
    Fault("an owner's name", "UPDATE shard SET owner = 'me'", "shard", "owner", "me"),
    Fault("another pipeline", "UPDATE shard SET pipeline = 'other'", "shard", "pipeline", "other", "memory"),
    Fault("another shard", "UPDATE shard SET shard = 1", "shard", "shard", "1", "0"),
    Fault("another number of shards", "UPDATE shard SET shards = 3", "shard", "shards", "3", "2"),
    Fault(
        "a second row",
        "INSERT INTO shard SELECT 2, pipeline, <others> FROM shard",
        "shard",
        "all rows",
        "2 rows",
        "1 row",
    ),
    Fault("no row", "DELETE FROM shard", "shard", "all rows", "0 rows", "1 row"),
    Fault(
        "a range's bound",
        "UPDATE id_ranges SET lowest = lowest - 1 WHERE entry = 1",
        "id_ranges",
        "highest",
        "lowest=",
    ),
    Fault(
        "a late id",
        "DELETE FROM late_ids WHERE tx = (SELECT min(tx) FROM late_ids)",
        "late_ids",
        "tx",
        "no row",
    ),
    Fault(
        "a late id's entry",
        "UPDATE late_ids SET entry = 1 WHERE tx = (SELECT min(tx) FROM late_ids)",
        "late_ids",
        "tx",
    ),
    Fault(
        "an id that is not taken any more",
        "UPDATE taken_ids SET txs = zeroblob(length(txs)) WHERE entry = 9",
        "taken_ids",
        "entry 9",
        "txs=0000",
        "txs=",
    ),
    Fault(
        "a mention",
        "DELETE FROM mentions WHERE tx = 9000000000000000001",
        "mentions",
        "tx 9000000000000000001",
    ),
    Fault(
        "a dispute's state",
        "UPDATE disputes SET state = 'resolved' WHERE tx = 9000000000000000001",
        "disputes",
        "tx 9000000000000000001",
        "state=resolved",
        "state=disputed",
    ),
    Fault(
        "a dispute's amount",
        "UPDATE disputes SET amount = 1 WHERE tx = 9000000000000000003",
        "disputes",
        "",
        "=1",
    ),
    Fault(
        "a source", "UPDATE sources SET position = 3 WHERE source = 'plain'", "sources", "plain", "=3", "=8"
    ),
    Fault(
        "a source's name",
        "UPDATE sources SET source = 'plaim' WHERE source = 'plain'",
        "sources",
        "plaim",
        "pos",
        "no",
    ),
    Fault(
        "a dead letter's reason",
        "UPDATE dead SET reason = '' WHERE entry = '1-15'",
        "dead",
        "number 16",
        "reason=",
    ),
    Fault("a dead letter", "DELETE FROM dead WHERE entry = '1-15'", "entries", "record 16", "not kept"),
    Fault(
        "a dead letter's field",
        "UPDATE dead SET fields = '{}' WHERE entry = '1-15'",
        "entries",
        "record 16",
        "digest",
    ),
    Fault(
        "an epoch that nobody had", "UPDATE shard SET epoch = beat + 1", "shard", "beat", r"^\d+$", "or more"
    ),
    Fault(
        "a step back that was none", "UPDATE shard SET incarnation = 1", "shard", "incarnation", "^1$", "^0 "
    ),
    Fault(
        "a migration",
        "UPDATE _sqlite_migrations SET name = 'version_9'",
        "_sqlite_migrations",
        "id 1",
        "=version_9",
        "=version_4",
    ),
    Fault("a view", "DROP VIEW refusals", "schema", "view refusals", "nothing", "SELECT"),
    Fault(
        "a table too many", "CREATE TABLE extra (id INTEGER)", "schema", "table extra", "CREATE", "nothing"
    ),
]


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_changed_database_is_found_and_named(copied: Prepared, fault: Fault) -> None:
    """Table, key and column; what is there, and what must be."""
    with copied.shard() as connection:
        names = [name for _, name, *_ in connection.execute("PRAGMA table_info(shard)")]
        changed = connection.execute(fault.statement.replace("<others>", ", ".join(names[2:]))).rowcount
    assert changed in {1, -1}, "the fault has changed something"
    found = named(copied.findings(chosen=[0]), fault.what, fault.where, fault.there, fault.expected)
    assert found.shard == 0


def test_what_is_well_is_not_named(prepared: Prepared) -> None:
    """Nor does verify change anything, in stores or log."""
    report = prepared.verified()
    assert [findings.shown for findings in report.all] == [[], [], []]
    assert sum(verified.records for verified in report.shards.values()) == sum(
        stream.group.delivered.sequence + 1 for stream in prepared.log.streams if stream.group is not None
    )


def test_swapped_entries_are_named(copied: Prepared) -> None:
    copied.change("UPDATE entries SET number = 0 WHERE number = 9")
    copied.change("UPDATE entries SET number = 9 WHERE number = 10")
    copied.change("UPDATE entries SET number = 10 WHERE number = 0")
    findings = copied.findings()
    named(findings, "entries", "record 9$", "entry 1-9", "entry 1-8")
    named(findings, "entries", r"record 10 \(1-8\): hash upon the one before")


def test_a_doubled_entry_is_named(copied: Prepared) -> None:
    """Put in between, with all behind it moved up."""
    with copied.shard() as connection:
        for number in range(35, 8, -1):
            connection.execute("UPDATE entries SET number = ? WHERE number = ?", (number + 1, number))
        connection.execute("CREATE TEMP TABLE doubled AS SELECT * FROM entries WHERE number = 10")
        connection.execute("UPDATE doubled SET number = 9")
        connection.execute("INSERT INTO entries SELECT * FROM doubled")
    named(copied.findings(), "entries", "record 10$", "entry 1-8", "entry 1-9")


def test_a_record_that_was_made_up_whole_is_named_by_the_log(copied: Prepared) -> None:
    """With its digest, its hash and all behind it: the journal agrees with itself, the log does not."""
    stream = copied.log.streams[0]
    last = stream.group.delivered if stream.group is not None else None
    assert last is not None
    first = next(iter(stream.entries))
    stream.entries[first] = {**stream.entries[first], b"t": b"1"}
    stream.entries[first] = {**stream.entries[first], b"d": digest_of(stream.entries[first]).encode()}
    named(copied.findings(), "log", f"^0/{first}$", "t=b'1'", r"t=b'\d+'")
    assert not copied.findings(asks_log=False)


def _remove(copied: Prepared, entry_id: EntryId) -> None:
    del copied.log.streams[0].entries[entry_id]


def _cut(copied: Prepared, last: EntryId) -> None:
    stream = copied.log.streams[0]
    stream.last = last
    for entry_id in [entry_id for entry_id in stream.entries if entry_id > last]:
        del stream.entries[entry_id]


def _begin(copied: Prepared, first: EntryId) -> None:
    stream = copied.log.streams[0]
    for entry_id in [entry_id for entry_id in stream.entries if entry_id < first]:
        del stream.entries[entry_id]


def _spoil(copied: Prepared, entry_id: EntryId) -> None:
    entries = copied.log.streams[0].entries
    entries[entry_id] = {**entries[entry_id], b"t": b"1"}


LOG_FAULTS: list[tuple[str, Callable[[Prepared], None], str, str]] = [
    (
        "an entry missing before the checkpoint",
        lambda copied: _remove(copied, EntryId(1, 9)),
        "0/1-9",
        "up to 0/1-9",
    ),
    (
        "an entry missing behind it",
        lambda copied: _remove(copied, EntryId(1, 36)),
        "0/1-36",
        "nothing up to 0/1-36",
    ),
    ("entries cut off", lambda copied: _cut(copied, EntryId(1, 20)), "0/1-34", "ends with 1-20"),
    ("a changed entry", lambda copied: _spoil(copied, EntryId(1, 9)), "0/1-9", "t=b'1'"),
    (
        "a changed entry behind the checkpoint",
        lambda copied: _spoil(copied, EntryId(1, 36)),
        "0/1-36",
        "digest",
    ),
    (
        "a log that begins too late",
        lambda copied: _begin(copied, EntryId(1, 37)),
        "0/1-35",
        "nothing up to 0/1-36",
    ),
    ("an empty log", lambda copied: _begin(copied, EntryId(1, 99)), "0/1-34", "empty"),
    (
        "a dead letter that none is",
        lambda copied: copied.log.streams[0].dead.update({EntryId(1, 3): {b"a": b"b"}}),
        "0/1-3",
        "dead letter",
    ),
]


@pytest.mark.parametrize(
    ("plant", "where", "there"), [fault[1:] for fault in LOG_FAULTS], ids=[fault[0] for fault in LOG_FAULTS]
)
def test_a_changed_log_is_found_and_named(
    copied: Prepared, plant: Callable[[Prepared], None], where: str, there: str
) -> None:
    plant(copied)
    named(copied.findings(chosen=[0]), "log", f"^{where}$", there)


def test_a_damaged_file_is_named_and_the_other_shards_are_verified(copied: Prepared) -> None:
    path = shard_path(copied.home, 0)
    path.write_bytes(b"no database" + path.read_bytes()[11:])
    copied.change("UPDATE balances SET held = held + 1 WHERE account = 5", shard=1)
    findings = copied.findings()
    assert named(findings, "database", "shard-0000.db", "not a database").shard == 0
    assert named(findings, "balances", "account 5").shard == 1


def test_a_file_of_another_version_and_a_file_too_many_are_named(copied: Prepared) -> None:
    with copied.shard(1) as connection:
        connection.execute("PRAGMA user_version = 2")
    shard_path(copied.home, 7).write_bytes(shard_path(copied.home, 0).read_bytes())
    findings = copied.findings(asks_log=False)
    named(findings, "database", "shard-0001.db", "version 2")
    named(findings, "database", "shard-0007.db", "shard 7", "0 to 1")


def test_a_missing_file_is_named(copied: Prepared) -> None:
    """Where a worker has read the log, there was a store; where none has, there must be the whole log."""
    shard_path(copied.home, 0).unlink()
    named(copied.findings(), "database", "^shard-0000.db$", "no file", "up to 0/1-34")
    report = copied.verified(asks_log=False)
    assert [findings.shown for findings in report.all] == [[], [], []]
    assert [len(findings.notes) for findings in report.all] == [0, 1, 0]
    copied.log.streams[0].group = None
    assert not copied.findings()
    _begin(copied, EntryId(1, 5))
    named(copied.findings(), "log", "0/1-0", "nothing up to 0/1-4")


def test_an_id_that_two_shards_have_taken_is_named_with_both_addresses(tmp_path: Path) -> None:
    shared = Prepared.of(
        tmp_path,
        b"type,client,tx,amount\ndeposit,2,5,1\ndeposit,3,6,1\nwithdrawal,3,5,1\ndeposit,2,8,1\ndispute,3,8,\n",
    )
    assert shared.findings() == [Finding(None, "taken_ids", "tx 5", "taken by 0/1-0 and 1/1-0", "taken once")]


def test_a_journal_whose_checkpoint_went_back_is_well(prepared: Prepared, tmp_path: Path) -> None:
    """The log lost its tail; the worker went back, and what came again was skipped."""
    again = prepared.rewound(tmp_path / "home")
    assert not again.findings()
    again.change("UPDATE shard SET incarnation = 0")
    named(again.findings(), "entries", r"record \d+", r"entry 1-3\d", r"entry 1-3\d")


def test_a_loss_that_was_accepted_is_well_and_a_forged_one_is_not(copied: Prepared) -> None:
    """Entries 35 and 36 are gone; a third is there, and is applied."""
    for sequence in (35, 36):
        _remove(copied, EntryId(1, sequence))
    named(copied.findings(), "log", "0/1-35", "nothing up to 0/1-36")
    copied.give_up(Lost(EntryId(1, 36), "lost", {}, "", EntryId(1, 35), {"backlog": 60}))
    assert not copied.findings()
    copied.apply()
    assert not copied.findings()
    with copied.shard() as connection:
        assert connection.execute("SELECT max(number) FROM entries").fetchone() == (38,)
    copied.change("UPDATE entries SET outcomes = replace(outcomes, '1-35', '1-34') WHERE number = 36")
    named(copied.findings(), "entries", "record 36", "entry 1-34", "entry 1-35")


def test_a_log_that_was_lost_whole_and_given_up_goes_on(copied: Prepared) -> None:
    stream = copied.log.streams[0]
    stream.entries.clear()
    named(copied.findings(), "log", "0/1-34", "empty")
    copied.give_up(Lost(EntryId(1, 34), "lost", {}, "", None, {}))
    stream.last = EntryId(1, 34)
    assert not copied.findings()
    stream.last = EntryId(1, 33)
    named(copied.findings(), "log", "0/1-34", "ends with 1-33")


def test_only_the_first_findings_are_shown_and_all_are_counted(copied: Prepared) -> None:
    with copied.shard() as connection:
        count = connection.execute("DELETE FROM late_ids").rowcount
    assert count > SHOWN_MAX
    report = copied.verified(chosen=[0])
    assert [(len(findings.shown), findings.count) for findings in report.all] == [(0, 0), (SHOWN_MAX, count)]


def test_a_shard_that_is_none_is_refused_and_a_stop_is_heard(prepared: Prepared) -> None:
    with pytest.raises(UsageError, match="no shard 2"):
        prepared.verified(chosen=[2])
    with pytest.raises(Interrupted):
        prepared.verified(stopping=lambda: True)


_COUNTED = (
    "balances",
    "entries",
    "id_ranges",
    "taken_ids",
    "late_ids",
    "mentions",
    "disputes",
    "sources",
    "dead",
)


def test_a_flipped_bit_in_any_cell_is_found(prepared: Prepared, tmp_path: Path) -> None:
    """In the rows of each table that follows from the journal, and in the journal itself."""
    copied = prepared.copy(tmp_path / "home")
    path = shard_path(copied.home, 0)
    whole = path.read_bytes()
    by_table = [(table, found) for table in _COUNTED if (found := cells(path, [table]))]
    assert len(by_table) == len(_COUNTED)

    @settings(max_examples=50, deadline=None)
    @given(st.sampled_from(by_table), st.data())
    def flip(table: tuple[str, list[range]], data: st.DataObject) -> None:
        name, ranges = table
        place = data.draw(st.sampled_from(data.draw(st.sampled_from(ranges))))
        bit = data.draw(st.integers(0, 7))
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
        assert copied.findings(asks_log=False, chosen=[0]), f"bit {bit} of byte {place} in {name}"

    flip()
