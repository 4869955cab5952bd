"""Dead letters: shown, dropped, and retried once at most, in the order of their account or not at all."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from hftpipe.cli.main import main
from hftpipe.core.entry import EntryId, Foreign, RawEntry, decode, digest_of, encode
from hftpipe.core.transaction import Batch
from hftpipe.errors import LogForeign, MendingRefused, StoreDamaged
from hftpipe.log.memory import MemoryLogMender
from hftpipe.mending.dead import Mending, dead_letter, dead_letters, drop, retry
from hftpipe.ports import Extent
from hftpipe.store.dead_letters import DeadBook
from hftpipe.store.sqlite import shard_path
from hftpipe.validation import Rounding
from tests.mending.homes import TIME_MS, Killed, MendedHome, dies_at, plain, repair


@pytest.fixture
def home(tmp_path: Path) -> MendedHome:
    return MendedHome(tmp_path)


def decisions(home: MendedHome, shard: int = 0) -> list[tuple[str, str, str]]:
    with DeadBook(shard_path(home.folder, shard)) as book:
        return [(each.action, each.entry, each.note) for each in book.decisions()]


def refused(home: MendedHome, entry: str, why: str) -> None:
    """Says why, appends nothing, and decides nothing."""
    before, decided = [home.length(shard) for shard in range(2)], decisions(home)
    with pytest.raises(MendingRefused, match=re.escape(why)):
        retry(home.mending(), 0, entry)
    assert [home.length(shard) for shard in range(2)] == before
    assert decisions(home) == decided


def test_letters_are_listed_with_all_that_is_known_of_them(home: MendedHome) -> None:
    """From the stores; bytes that are no text are legible, and long fields are left to a look at one."""
    home.add(0, {b"t": b"1700000000000", b"x": b"\xff\\"})
    home.add(1, {b"blob": b"x" * 5_000})
    home.work()
    one, two = dead_letters(home.folder)
    assert (one.address, one.reason, one.time_ms, one.decision) == ("0/1-0", "missing field b", TIME_MS, "")
    assert one.fields == {"t": "1700000000000", "x": "\\xff\\"}
    assert (two.address, two.time_ms, two.fields) == ("1/1-0", None, {})
    assert two.size_bytes > 5_000
    assert dead_letter(home.folder, 1, "1-0").fields == {"blob": "x" * 5_000}
    with pytest.raises(MendingRefused, match="there is no dead letter 1/1-7"):
        dead_letter(home.folder, 1, "1-7")


def test_a_damaged_shard_hides_no_other_ones_letters(home: MendedHome) -> None:
    """It is told, and the command fails; who does not ask for faults is given none of it."""
    home.add(1, {b"x": b"1"})
    home.work()
    shard_path(home.folder, 0).write_bytes(b"nonsense" * 1_000)
    with pytest.raises(StoreDamaged):
        dead_letters(home.folder)
    listed = CliRunner().invoke(main, ["dead", "list", "--home", str(home.folder), "--format", "json"])
    assert listed.exit_code == 1
    assert '"1/1-0"' in listed.stdout
    assert "shard 0 is left out: " in listed.stderr


def test_a_dropped_letter_leaves_the_list_and_stays_in_the_store(home: MendedHome) -> None:
    """Dropping it again changes nothing."""
    home.add(0, {b"x": b"1"})
    home.work()
    for _ in range(2):
        drop(home.mending(), 0, "1-0")
    assert not dead_letters(home.folder)
    (letter,) = dead_letters(home.folder, decided=True)
    assert (letter.decision, letter.note) == ("dropped", "given up")
    assert decisions(home) == [("dropped", "0/1-0", "given up")]
    assert not home.log.streams[0].dead
    assert home.shards()[0].tables.dead == {"1-0": "missing field b"}


@pytest.mark.parametrize("account", [2, 3], ids=["same shard", "other shard"])
def test_plain_fields_are_validated_routed_and_applied_once(home: MendedHome, account: int) -> None:
    """Somebody added an inbox entry to the wrong key."""
    home.send(4, 1)
    home.add(0, plain(account, 7))
    home.send(4, 2)
    home.work()
    address = retry(home.mending(), 0, "1-1")
    assert address == f"{account % 2}/1-{3 if account == 2 else 0}"
    assert retry(home.mending(), 0, "1-1") == address
    home.work()
    assert retry(home.mending(), 0, "1-1") == address
    assert home.available(account) == 1
    assert home.shards()[account % 2].tables.records[-1].source.startswith("dead:0/1-1:")
    assert not dead_letters(home.folder)
    assert decisions(home) == [("retried", "0/1-1", f"as {address}")]
    with pytest.raises(MendingRefused, match=f"was retried .as {address}.: there is nothing to drop"):
        drop(home.mending(), 0, "1-1")


def test_what_another_version_could_not_read_is_appended_as_it_is(home: MendedHome) -> None:
    """Under its own source, whose chain lets it take effect once."""
    set_aside(home, 0, home.send(2, 1))
    assert retry(home.mending(), 0, "1-0") == "0/1-1"
    assert retry(home.mending(), 0, "1-0") == "0/1-1"
    home.work()
    assert retry(home.mending(), 0, "1-0") == "0/1-1"
    assert home.available(2) == 1
    assert home.length(0) == 2


def set_aside(
    home: MendedHome, shard: int, entry_id: EntryId, fields: Mapping[bytes, bytes] | None = None
) -> None:
    """Records a good entry as another version would have: as one that it cannot read."""
    from hftpipe.audit.recount import recount
    from hftpipe.core.ledger import Ledger
    from tests.mending.recording import Recording

    there = home.log.streams[shard].entries[entry_id] if fields is None else fields
    with Recording(home.open_store(shard)) as books:
        foreign = Foreign(entry_id, "unknown version b'1'", there, digest_of(there))
        list(recount(books, [foreign], Ledger()))


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({b"x": b"1"}, "missing field b; nor has it the plain fields type, account, tx, amount"),
        (plain(2, 1, amount="0"), "field amount: amount_not_positive: 0"),
        (plain(2, 1, kind="steal"), "field kind: bad_kind: steal"),
        ({b"type": b"deposit"}, "field account: missing_field"),
    ],
)
def test_what_makes_no_entry_is_refused_with_the_reason(
    home: MendedHome, fields: dict[bytes, bytes], why: str
) -> None:
    """Not decodable, or invalid."""
    home.add(0, fields)
    home.work()
    refused(home, "1-0", why)


@pytest.mark.parametrize("applied", [True, False], ids=["applied", "waiting"])
def test_an_account_that_was_named_later_refuses_the_retry(home: MendedHome, applied: bool) -> None:
    """Account and address are named; another account's entries are none of its matter."""
    home.add(0, plain(2, 7))
    home.work()
    home.send(4, 1)
    home.send(2, 2)
    if applied:
        home.work()
    refused(home, "1-0", "account 2 was named by entry 0/1-2, which came later: its order would be broken")


def test_another_shards_entries_come_later_by_their_time(home: MendedHome) -> None:
    """Between two logs there is no other order: the letter is younger than its neighbour before."""
    home.send(3, 1)
    home.send(2, 1, source="other")
    home.add(0, plain(3, 7))
    home.add(0, plain(5, 8))
    home.send(5, 2)
    home.work()
    assert retry(home.mending(), 0, "1-1") == "1/1-2"
    refused(home, "1-2", "account 5 was named by entry 1/1-1")


def test_letters_of_one_account_are_retried_in_their_order(home: MendedHome) -> None:
    """The first does not stand in the way of the second; the second does in that of the first."""
    for tx in (7, 8, 9):
        home.add(0, plain(2, tx))
    home.work()
    assert retry(home.mending(), 0, "1-0") == "0/1-3"
    assert retry(home.mending(), 0, "1-1") == "0/1-4"
    home.work()
    assert retry(home.mending(), 0, "1-2") == "0/1-5"
    home.add(0, plain(4, 7))
    home.add(0, plain(4, 8))
    home.work()
    retry(home.mending(), 0, "1-7")
    refused(home, "1-6", "account 4 was named by entry 0/1-8")
    assert home.available(2) == 3


def test_an_entry_between_two_retried_letters_is_seen(home: MendedHome) -> None:
    """That an earlier letter has named the account last hides nothing."""
    home.add(0, plain(2, 7))
    home.add(0, plain(2, 8))
    home.work()
    retry(home.mending(), 0, "1-0")
    home.send(2, 1)
    home.work()
    refused(home, "1-1", "account 2 was named by entry 0/1-3")
    home.add(0, plain(4, 1))
    home.add(0, plain(4, 2))
    home.work()
    retry(home.mending(), 0, "1-4")
    home.work()
    assert retry(home.mending(), 0, "1-5") == "0/1-7"


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([1, 2, 3], "its source file was applied up to row 3 since, and it begins with row 2"),
        ([], "rows of its source file before its row 2 are missing"),
    ],
)
def test_rows_of_its_source_that_were_applied_since_refuse_it(
    home: MendedHome, rows: list[int], why: str
) -> None:
    """The chain would skip it, or leave it alone."""
    entry_id = home.send(2, 2)
    set_aside(home, 0, entry_id)
    for row in rows:
        home.send(4, row)
    home.work()
    refused(home, "1-0", why)


def test_a_source_that_waits_refuses_it_for_now(home: MendedHome) -> None:
    """What comes first is applied first."""
    set_aside(home, 0, home.send(2, 1))
    home.send(4, 2)
    refused(home, "1-0", "entry 0/1-1 of its source file waits to be applied")


def test_a_damaged_entry_that_was_given_up_is_not_retried(home: MendedHome) -> None:
    """Money may be in it, and nobody knows how much."""
    fields = encode("file", 0, Batch.of("D", [2], [1], [10_000], [1]), TIME_MS)
    home.add(0, {b"x": b"1"})
    set_aside(home, 0, EntryId(1, 0), {**fields, b"n": b"2"})
    with pytest.raises(MendingRefused, match="does not match its digest, and money may be in it"):
        retry(home.mending(), 0, "1-0")


def test_a_log_that_has_lost_its_tail_is_the_workers_matter_first(home: MendedHome) -> None:
    """An id would be given twice."""
    home.add(0, plain(2, 7))
    home.send(4, 1)
    home.work()
    stream = home.log.streams[0]
    del stream.entries[EntryId(1, 1)]
    stream.last = EntryId(1, 0)
    refused(home, "1-0", "the log ends with 0/1-0, before what was applied (0/1-1)")


def test_another_pipelines_log_gets_nothing(home: MendedHome) -> None:
    """Before anything is looked at."""
    home.add(0, plain(2, 7))
    home.work()
    home.log.topology = None
    with pytest.raises(LogForeign, match="the log belongs to no pipeline"):
        retry(home.mending(), 0, "1-0")


# --- whatever is killed, and two at once ----------------------------------------------------------------------


class Watched(MemoryLogMender):
    """`meanwhile` happens right before each append."""

    def meanwhile(self) -> None:
        """Nothing, unless it is told otherwise."""

    def append_as(self, entry_id: EntryId, fields: Mapping[bytes, bytes]) -> bool:
        self.meanwhile()
        return super().append_as(entry_id, fields)


class Mute(MemoryLogMender):
    """Whoever appends is killed before the answer is there."""

    def append_as(self, entry_id: EntryId, fields: Mapping[bytes, bytes]) -> bool:
        super().append_as(entry_id, fields)
        raise Killed


@pytest.mark.parametrize(
    ("account", "works"), [(2, False), (3, True)], ids=["same shard, waiting", "other shard, applied"]
)
@pytest.mark.parametrize("point", ["dead.checked", "answer lost", "dead.appended", "dead.decided"])
def test_a_retry_that_is_killed_at_any_step_takes_effect_once(
    home: MendedHome, point: str, account: int, works: bool
) -> None:
    """The next one finds out; and a letter that was appended is no longer to be dropped."""
    home.add(0, plain(account, 7))
    home.work()
    if point == "answer lost":
        home.open_mender = lambda shard: Mute(home.log, shard)
    with pytest.raises(Killed):
        retry(home.mending(dies_at(point)), 0, "1-0")
    home.open_mender = lambda shard: MemoryLogMender(home.log, shard)
    is_appended = point != "dead.checked"
    assert home.length(account % 2) == (account == 2) + is_appended
    if works:
        home.work()
        assert [letter.address for letter in dead_letters(home.folder)] == ["0/1-0"] * (not is_appended)
    if is_appended:
        with pytest.raises(MendingRefused, match="there is nothing to drop"):
            drop(home.mending(), 0, "1-0")
    retry(home.mending(), 0, "1-0")
    home.work()
    assert home.length(account % 2) == 1 + (account == 2)
    assert home.available(account) == 1
    assert len(decisions(home)) == 1


def test_two_retries_at_once_append_once(home: MendedHome) -> None:
    """The slower one finds its id given, looks again, and sees what the other has done."""
    home.add(0, plain(2, 7))
    home.work()
    others = iter([lambda: retry(home.mending(), 0, "1-0")])

    class Slow(Watched):
        def meanwhile(self) -> None:
            if (other := next(others, None)) is not None:
                home.open_mender = lambda shard: MemoryLogMender(home.log, shard)
                assert other() == "0/1-1"

    home.open_mender = lambda shard: Slow(home.log, shard)
    assert retry(home.mending(), 0, "1-0") == "0/1-1"
    home.work()
    assert home.available(2) == 1
    assert home.length(0) == 2


@pytest.mark.parametrize("account", [2, 4], ids=["its account", "another"])
def test_what_is_appended_between_look_and_append_is_looked_at(home: MendedHome, account: int) -> None:
    """A producer that is faster and names the account refuses the retry; any other only delays it."""
    home.add(0, plain(2, 7))
    home.work()
    rows = iter(range(1, 4))

    class Busy(Watched):
        def meanwhile(self) -> None:
            if (row := next(rows, None)) is not None:
                home.send(account, row)

    home.open_mender = lambda shard: Busy(home.log, shard)
    if account == 2:
        with pytest.raises(MendingRefused, match="account 2 was named by entry 0/1-1"):
            retry(home.mending(), 0, "1-0")
    else:
        assert retry(home.mending(), 0, "1-0") == "0/1-4"
    home.work()
    home.shards()


def test_a_decoded_letter_is_what_a_worker_reads(home: MendedHome) -> None:
    """The entry that is appended is one of ours."""
    home.add(0, plain(2, 7))
    home.work()
    retry(home.mending(), 0, "1-0")
    entry = decode(RawEntry(EntryId(1, 1), home.log.streams[0].entries[EntryId(1, 1)]), 0, 2)
    assert not isinstance(entry, Foreign)
    assert (entry.previous, entry.position, entry.batch.accounts.tolist()) == (0, 1, [2])


class Followed(MemoryLogMender):
    """Right behind the first look at the log, a producer appends to it, and a worker applies that."""

    meanwhile: Callable[[], object] | None = None

    def extent(self) -> Extent:
        found = super().extent()
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return found


def test_what_is_appended_and_applied_behind_the_look_is_no_lost_tail(home: MendedHome) -> None:
    """The log is looked at before the store: the store may be ahead of that look."""
    home.add(0, plain(2, 7))
    home.work()
    log = Followed(home.log, 0)
    log.meanwhile = lambda: (home.send(4, 1), home.work())
    home.open_mender = lambda _: log
    assert retry(home.mending(), 0, "1-0") == "0/1-2"
    home.work()
    assert home.available(2) == 1


# --- what holds, whatever was decided -------------------------------------------------------------------------


def test_a_letter_that_is_retried_while_it_is_dropped_is_not_dropped(home: MendedHome) -> None:
    """He who drops has looked before."""
    home.add(0, plain(2, 7))
    home.work()

    def meanwhile(point: str) -> None:
        if point == "dead.looked" and not decisions(home):
            retry(home.mending(), 0, "1-0")

    with pytest.raises(MendingRefused, match=r"was retried .as 0/1-1.: there is nothing to drop"):
        drop(home.mending(meanwhile), 0, "1-0")
    assert decisions(home) == [("retried", "0/1-0", "as 0/1-1")]


def test_a_dropped_letter_that_took_effect_is_told_as_retried(home: MendedHome) -> None:
    """Its retry was killed before it was written down."""
    home.add(0, plain(3, 7))
    home.work()
    drop(home.mending(), 0, "1-0")
    with pytest.raises(Killed):
        retry(home.mending(dies_at("dead.appended")), 0, "1-0")
    home.work()
    assert home.available(3) == 1
    (letter,) = dead_letters(home.folder, decided=True)
    assert letter.decision == dead_letter(home.folder, 0, "1-0").decision == "retried"
    with pytest.raises(MendingRefused, match="nothing to drop"):
        drop(home.mending(), 0, "1-0")
    assert retry(home.mending(), 0, "1-0") == "1/1-0"
    assert decisions(home)[-1] == ("retried", "0/1-0", "as 1/1-0")


def test_a_letter_that_was_retried_with_rounding_is_not_dropped_without(home: MendedHome) -> None:
    """Where it may be is asked, not what it would be."""
    home.add(0, plain(2, 7, amount="1.00005"))
    home.work()
    refused(home, "1-0", "amount")
    rounding = replace(home.mending(dies_at("dead.appended")), rounding=Rounding.HALF_EVEN)
    with pytest.raises(Killed):
        retry(rounding, 0, "1-0")
    with pytest.raises(MendingRefused, match=r"was retried .as 0/1-1.: there is nothing to drop"):
        drop(home.mending(), 0, "1-0")


@pytest.mark.parametrize("action", [retry, drop])
@pytest.mark.parametrize("is_own", [False, True], ids=["plain", "own source"])
def test_a_retried_letter_that_is_lost_is_undecided_again(
    home: MendedHome, is_own: bool, action: Callable[[Mending, int, str], object]
) -> None:
    """What was appended is neither applied nor waits."""
    if is_own:
        set_aside(home, 0, home.send(2, 1))
    else:
        home.add(0, plain(2, 7))
    home.work()
    assert retry(home.mending(), 0, "1-0") == "0/1-1"
    assert not dead_letters(home.folder)
    home.send(4, 1, source="other")
    del home.log.streams[0].entries[EntryId(1, 1)]
    repair(home)
    home.work()
    (letter,) = dead_letters(home.folder)
    assert letter.note == "retried as 0/1-1, which was lost before it was applied"
    assert dead_letter(home.folder, 0, "1-0") == letter
    action(home.mending(), 0, "1-0")
    home.work()
    assert not dead_letters(home.folder)
    assert home.available(2) == (action is retry)
    assert [each[0] for each in decisions(home)][-1] == ("retried" if action is retry else "dropped")


def test_letters_of_one_id_are_told_apart(home: MendedHome) -> None:
    """A log that was emptied gives its ids again."""
    home.add(0, {b"x": b"1"})
    home.send(2, 1)
    home.work()
    stream = home.log.streams[0]
    stream.entries.clear()
    stream.group, stream.last = None, EntryId(1, -1)
    home.add(0, {b"x": b"2"})
    repair(home)
    home.work()
    old, new = dead_letters(home.folder)
    assert (old.address, new.address) == ("0/1-0", "0/1-0")
    assert dead_letter(home.folder, 0, "1-0") == new
    assert dead_letter(home.folder, 0, "1-0", old.record) == old
    drop(home.mending(), 0, "1-0")
    assert dead_letters(home.folder) == [old]
    drop(home.mending(), 0, "1-0")
    assert not dead_letters(home.folder)
    drop(home.mending(), 0, "1-0", new.record)
    assert len(decisions(home)) == 3
