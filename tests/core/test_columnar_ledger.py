"""The fast ledger decides as the plain one does: outcome by outcome, balance by balance."""

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from hftpipe.core.columnar_ledger import ColumnarLedger
from hftpipe.core.commit import Checkpoint, Totals
from hftpipe.core.entry import Entry, EntryId, RawEntry, decode, encode, origin
from hftpipe.core.journal import GENESIS
from hftpipe.core.ledger import Ledger
from hftpipe.core.posting import batches_of, follow_chain, post
from hftpipe.core.transaction import AMOUNT_MAX, Batch
from hftpipe.ports import Topology
from hftpipe.store.memory import MemoryStore

TOPOLOGY = Topology("p", 1, 1, 1)


def traffic(random: Random, rows: int) -> list[tuple[str, int, int, int]]:
    """Kind, account, id, amount: few or many accounts, with and without disputes, duplicates and huge amounts."""
    accounts = random.choice([1, 3, 40])
    kinds = random.choice(["DW", "DDDW", "DWPRC", "DDDDDDWWWP"])
    ids = random.choice([rows * 100, rows, max(rows // 3, 1)])
    ascending = random.random() < 0.5
    largest = random.choice([10, 1_000, AMOUNT_MAX])
    made: list[tuple[str, int, int, int]] = []
    for number in range(rows):
        kind = random.choice(kinds)
        tx = number if ascending and kind in "DW" else random.randrange(ids)
        made.append((kind, random.randrange(accounts), tx, random.randint(1, largest) if kind in "DW" else 0))
    return made


def entries(random: Random, rows: list[tuple[str, int, int, int]]) -> list[Entry]:
    """The rows as entries of random sizes, a few of them of a source without ids."""
    made: list[Entry] = []
    start = 0
    while start < len(rows):
        stop = min(len(rows), start + random.randint(1, 30))
        kinds, accounts, txs, amounts = zip(*rows[start:stop], strict=True)
        has_ids = random.random() < 0.9 or not set(kinds) <= set("DW")
        batch = Batch.of(
            "".join(kinds), accounts, txs if has_ids else None, amounts, range(start + 1, stop + 1)
        )
        raw = RawEntry(EntryId(1, len(made)), encode("s", start, batch, 0))
        entry = decode(raw, 0, 1)
        assert isinstance(entry, Entry)
        made.append(entry)
        start = stop
    return made


def applied(ledger_type: type[Ledger], made: list[Entry], sizes: list[int]) -> MemoryStore:
    """The store after the entries were committed, so many at a time; the ledger lives on between commits."""
    store = MemoryStore(TOPOLOGY, 0)
    epoch = store.take("test", store.ownership()) or 0
    checkpoint = Checkpoint(origin(1), "", 0, GENESIS, -1, 0, Totals())
    ledger = ledger_type(checkpoint.highest_tx)
    start = 0
    for size in sizes:
        group = made[start : start + size]
        start += size
        if group:
            positions = store.positions({"s"})
            steps = follow_chain(group, positions)
            needs = ledger.needs(batches_of(steps))
            ledger.learn(needs, store.facts(needs))
            commit = post(ledger, store.checkpoint(), steps, positions)
            store.commit(epoch, commit)
    return store


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 200))
def test_the_columnar_ledger_equals_the_plain_one(seed: int, rows: int) -> None:
    """The same journal, hashes and tables for any mix of kinds, any entries and any commits."""
    random = Random(seed)
    made = entries(random, traffic(random, rows))
    sizes = [random.randint(1, 8) for _ in made]
    assert applied(ColumnarLedger, made, sizes).snapshot() == applied(Ledger, made, sizes).snapshot()
