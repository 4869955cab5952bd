"""Packed columns come back as they were, and nothing else is taken for one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftpipe.core.taken import NOT_DISPUTABLE, Taken, pack, taken_by, unpack, unpack_others, unpacked
from hftpipe.core.transaction import INT64_MAX, Batch, Column

numbers = (
    st.integers(0, INT64_MAX)
    | st.integers(0, 300)
    | st.sampled_from([0, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**63 - 1])
)


def column(values: list[int]) -> Column:
    return np.array(values, dtype=np.int64)


@settings(deadline=None)
@given(st.lists(numbers, min_size=1, max_size=40))
def test_what_is_packed_comes_back(values: list[int]) -> None:
    """Any integers from 0 to 2^63-1, in the fewest bytes of 1, 2, 4 and 8 that all of them fit into."""
    packed = pack(column(values))
    assert unpack(packed, len(values)).tolist() == values
    assert unpack(packed, len(values)).dtype == np.int64
    width = next(width for width in (1, 2, 4, 8) if max(values) < 256**width)
    assert packed == b"".join(value.to_bytes(width, "little") for value in values)


@pytest.mark.parametrize(
    ("largest", "width"),
    [
        (0, 1),
        (255, 1),
        (256, 2),
        (65_535, 2),
        (65_536, 4),
        (2**32 - 1, 4),
        (2**32, 8),
        (2**63 - 1, 8),
    ],
)
def test_the_width_follows_the_largest_value(largest: int, width: int) -> None:
    """Wherever it stands."""
    for values in ([largest], [0, largest], [largest, 1 if largest else 0]):
        packed = pack(column(values))
        assert len(packed) == width * len(values)
        assert unpack(packed, len(values)).tolist() == values


def test_columns_of_any_layout_are_packed() -> None:
    """A picked or reversed column is no copy in memory."""
    values = column(list(range(0, 1_000, 7)))
    assert unpack(pack(values[::-2]), len(values[::-2])).tolist() == values[::-2].tolist()


def test_an_unpacked_column_is_ones_own() -> None:
    """What was read from a file cannot be written to."""
    unpacked_column = unpack(pack(column([1, 2])), 2)
    unpacked_column[0] = 9
    assert unpacked_column.tolist() == [9, 2]


@pytest.mark.parametrize(
    ("packed", "count"),
    [
        (b"", 1),
        (b"\0" * 3, 1),
        (b"\0" * 5, 1),
        (b"\0" * 9, 1),
        (b"\0" * 16, 1),
        (b"\0" * 3, 2),
        (b"\0" * 5, 2),
        (b"\0" * 7, 8),
        (b"\0" * 9, 8),
        (b"\0" * 17, 2),
        (b"\0", -1),
        (b"", -1),
    ],
)
def test_bytes_of_another_length_are_no_column(packed: bytes, count: int) -> None:
    """They were cut, or belong to something else."""
    with pytest.raises(ValueError, match="are no column of"):
        unpack(packed, count)


@pytest.mark.parametrize("packed", [b"", b"\0\0"])
def test_no_column_is_empty(packed: bytes) -> None:
    """A count of zero was damaged: it is said as any other damage is."""
    with pytest.raises(ValueError, match="are no column of"):
        unpack(packed, 0)


@settings(deadline=None)
@given(st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=20), st.data())
def test_a_cut_column_of_any_of_the_three_is_noticed(
    rows: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    """Unless as many bytes are left as another width has."""
    txs, accounts, amounts = (column(list(values)) for values in zip(*rows, strict=True))
    others = np.unique(accounts)
    taken = Taken(7, txs, accounts, amounts, others)
    count, *columns = taken.packed()
    again = unpacked(7, count, *columns)
    assert (again.number, again.txs.tolist()) == (7, txs.tolist())
    assert (again.accounts.tolist(), again.amounts.tolist()) == (accounts.tolist(), amounts.tolist())
    assert again.others.tolist() == others.tolist()
    which = data.draw(st.sampled_from([0, 2, 3]))
    length = data.draw(st.integers(0, len(columns[which]) - 1))
    columns[which] = columns[which][:length]
    if length not in (count, 2 * count, 4 * count):
        with pytest.raises(ValueError, match="are no column of"):
            unpacked(7, count, *columns)


@settings(deadline=None)
@given(st.lists(numbers, max_size=10, unique=True))
def test_the_accounts_of_what_took_nothing_come_back(accounts: list[int]) -> None:
    """There may be none; whatever is no multiple of 8 bytes, or beyond 2^63-1, is none of them."""
    nothing = column([])
    packed = Taken(7, nothing, nothing, nothing, column(sorted(accounts))).packed()
    again = unpacked(7, *packed)
    assert (again.others.tolist(), len(again.txs)) == (sorted(accounts), 0)
    for damaged in (packed[2] + b"\0", packed[2] + b"\xff" * 8):
        with pytest.raises(ValueError, match=r"no column of accounts|beyond 2\^63-1"):
            unpack_others(damaged)


def test_only_a_deposit_that_took_effect_keeps_its_amount() -> None:
    """Withdrawals and refused deposits stand as NOT_DISPUTABLE; rows that took no id are left out."""
    batch = Batch.of("DDWDPD", [1, 2, 3, 4, 5, 6], [10, 11, 12, 10, 11, 15], [5, 6, 7, 8, 0, 9], range(1, 7))
    taken = taken_by(3, batch, np.array([0, 1, 2, 5]), np.array([1, 3]))
    assert taken is not None
    assert taken.number == 3
    assert taken.txs.tolist() == [10, 11, 12, 15]
    assert taken.accounts.tolist() == [1, 2, 3, 6]
    assert taken.amounts.tolist() == [5, NOT_DISPUTABLE, NOT_DISPUTABLE, 9]
    assert taken.others.tolist() == [4, 5]


def test_without_ids_or_by_disputes_nothing_is_taken_but_accounts_are_named() -> None:
    """Each account once, ascending."""
    nothing = np.array([], dtype=np.int64)
    for batch in (
        Batch.of("DWD", [7, 3, 7], None, [5, 1, 2], [1, 2, 3]),
        Batch.of("PRC", [7, 3, 7], [1, 1, 1], [0, 0, 0], [1, 2, 3]),
    ):
        taken = taken_by(1, batch, nothing, nothing)
        assert taken is not None
        assert (len(taken.txs), len(taken.accounts), len(taken.amounts)) == (0, 0, 0)
        assert taken.others.tolist() == [3, 7]


def test_what_decides_nothing_keeps_nothing() -> None:
    """All its rows were decided before: there is then not even an empty row."""
    nothing = np.array([], dtype=np.int64)
    assert taken_by(1, Batch.of("", [], [], [], []), nothing, nothing) is None
