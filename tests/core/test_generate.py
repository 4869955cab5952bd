"""Made-up traffic: the same for the same seed, valid, and with a life of its own."""

from collections import Counter
from itertools import pairwise

import pytest

from hftpipe.core.transaction import Kind
from hftpipe.errors import UsageError
from hftpipe.source.generate import HEADER, KINDS_DEFAULT, generate, parse_kinds
from hftpipe.validation import CsvValidator, Validated


def validated(
    rows: int, accounts: int, skew: float = 0.0, kinds: dict[Kind, float] | None = None
) -> Validated:
    chunks = list(generate(rows, accounts, seed=7, skew=skew, kinds=kinds or KINDS_DEFAULT))
    assert chunks[0] == HEADER
    return CsvValidator.from_header(HEADER).validate(b"".join(chunks[1:]), 2)


def test_the_same_seed_makes_the_same_file_and_another_seed_another() -> None:
    files = [b"".join(generate(5_000, 100, seed=seed, skew=1.0)) for seed in (1, 1, 2)]
    assert files[0] == files[1] != files[2]


def test_a_shorter_file_begins_the_longer_one_where_whole_chunks_allow() -> None:
    short, long = (b"".join(generate(rows, 100, seed=1)) for rows in (4_096, 8_192))
    assert long.startswith(short)


@pytest.mark.parametrize("skew", [0.0, 0.5, 1.0, 1.5])
@pytest.mark.parametrize("accounts", [1, 2, 1_000])
def test_every_row_is_valid_and_names_an_account_asked_for(accounts: int, skew: float) -> None:
    result = validated(6_000, accounts, skew)
    assert (result.rows, result.invalid) == (6_000, [])
    assert set(result.batch.accounts) <= set(range(1, accounts + 1))


def test_transaction_ids_of_deposits_and_withdrawals_rise_from_one() -> None:
    batch = validated(6_000, 100).batch
    assert batch.txs is not None
    taken = [tx for kind, tx in zip(batch.kinds, batch.txs, strict=True) if kind in "DW"]
    assert taken == list(range(1, len(taken) + 1))


def test_kinds_come_by_their_weights() -> None:
    counts = Counter(validated(50_000, 1_000).batch.kinds)
    assert {kind: round(100 * counts[kind] / 50_000) for kind in "DWP"} == {"D": 60, "W": 35, "P": 3}
    assert set(counts) == set("DWPRC")
    assert set(validated(1_000, 10, kinds={Kind.DEPOSIT: 1}).batch.kinds) == {"D"}


def test_most_disputes_name_an_earlier_deposit_of_their_account_and_most_resolves_a_disputed_one() -> None:
    batch = validated(50_000, 1_000).batch
    deposits: set[tuple[int, int]] = set()
    disputed: set[tuple[int, int]] = set()
    plausible: Counter[tuple[str, bool]] = Counter()
    for kind, account, tx in zip(
        batch.kinds, batch.accounts, [] if batch.txs is None else batch.txs, strict=True
    ):
        named = (account, tx)
        if kind == "D":
            deposits.add(named)
        elif kind == "P":
            plausible[kind, named in deposits] += 1
            disputed.add(named)
        elif kind in "RC":
            plausible[kind, named in disputed] += 1
    for kind in "PRC":
        assert plausible[kind, True] > 20 * plausible[kind, False] > 0


def test_skew_makes_the_first_accounts_hot() -> None:
    shares = []
    for skew in (0.0, 0.5, 1.0, 1.5):
        counts = Counter(validated(20_000, 1_000, skew, {Kind.DEPOSIT: 1}).batch.accounts)
        shares.append(counts[1] / 20_000)
    assert all(2 * less < more for less, more in pairwise(shares))


@pytest.mark.parametrize(
    "arguments",
    [(-1, 1, 0.0), (1, 0, 0.0), (1, 1, -1.0), (1, 1, float("nan")), (1, 1, float("inf"))],
)
def test_impossible_numbers_are_refused_before_anything_is_made(arguments: tuple[int, int, float]) -> None:
    rows, accounts, skew = arguments
    with pytest.raises(UsageError):
        generate(rows, accounts, seed=1, skew=skew)


def test_weights_are_read_from_text() -> None:
    assert parse_kinds("deposit=60, Withdrawal=35,dispute=1.5") == {
        Kind.DEPOSIT: 60.0,
        Kind.WITHDRAWAL: 35.0,
        Kind.DISPUTE: 1.5,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "unknown kind ''"),
        ("transfer=1", "unknown kind 'transfer'.*deposit, withdrawal"),
        ("deposit", "is no weight"),
        ("deposit=x", "is no weight"),
        ("deposit=-1", "is no weight"),
        ("deposit=nan", "is no weight"),
        ("deposit=inf", "is no weight"),
        ("deposit=1,deposit=2", "named twice"),
        ("deposit=0,dispute=0", "all weights are 0"),
    ],
)
def test_a_text_that_gives_no_weights_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_kinds(text)
