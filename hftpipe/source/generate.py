"""Made-up transactions for trials and measurements: CSV that looks like real traffic, the same for the same seed."""

from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from math import isfinite
from random import Random
from typing import Final

from hftpipe.core.transaction import SCALE, Kind
from hftpipe.errors import UsageError

HEADER: Final = b"type,client,tx,amount\n"

KINDS_DEFAULT: Final[Mapping[Kind, float]] = {
    Kind.DEPOSIT: 60,
    Kind.WITHDRAWAL: 35,
    Kind.DISPUTE: 3,
    Kind.RESOLVE: 1.5,
    Kind.CHARGEBACK: 0.5,
}

_KIND_OF_NAME: Final = {kind.name.lower(): kind for kind in Kind}

_ROWS_PER_CHUNK: Final = 4_096
_REMEMBERED_MAX: Final = 4_096
"""Deposits that later rows may name, of each sort; a newer one takes a random older one's place."""

_DEPOSIT_MAX: Final = 1_000 * SCALE
_SHARE_TOO_LARGE: Final = 0.03
"""Share of the withdrawals that ask for much more than was deposited."""
_TIMES_TOO_LARGE: Final = 100
_SHARE_STRAY: Final = 0.02
"""Share of the disputes, resolves and chargebacks that name a transaction which is none of theirs."""
_DISPUTING_EVERY: Final = 19
"""One account in so many disputes its deposits; the others never get locked, however many rows there are.

A prime, so that the disputing accounts spread over all shards."""


def parse_kinds(text: str) -> dict[Kind, float]:
    """`deposit=60,withdrawal=35,…` as weights; what is not named does not occur.

    Raises UsageError on an unknown or repeated kind, a weight that is no positive number or 0, and all of them 0.
    """
    kinds: dict[Kind, float] = {}
    for part in text.split(","):
        name, _, weight = part.partition("=")
        kind = _KIND_OF_NAME.get(name.strip().lower())
        if kind is None:
            raise UsageError(
                f"unknown kind {name.strip()!r} in {text!r}; the kinds are {', '.join(_KIND_OF_NAME)}"
            )
        if kind in kinds:
            raise UsageError(f"{kind.name.lower()} is named twice in {text!r}; give each kind one weight")
        kinds[kind] = _parsed_weight(weight.strip(), text)
    if not any(kinds.values()):
        raise UsageError(f"all weights are 0 in {text!r}; give one kind at least a weight above 0")
    return kinds


def generate(
    rows: int,
    accounts: int,
    *,
    seed: int,
    skew: float = 0.0,
    kinds: Mapping[Kind, float] = KINDS_DEFAULT,
) -> Iterator[bytes]:
    """Chunks of a CSV file with a header and so many rows, for accounts 1..accounts.

    skew: exponent of the Zipf law by which accounts are drawn; 0 draws all alike, 1 makes the first ones hot.
    Memory does not grow with either number. Raises UsageError when one of them makes no sense.
    """
    if rows < 0 or accounts < 1:
        raise UsageError(
            f"{rows} rows for {accounts} accounts cannot be made; ask for 0 rows and 1 account at least"
        )
    if not (isfinite(skew) and skew >= 0):
        raise UsageError(f"a skew of {skew} makes no sense; give 0 for none, about 1 for a strong one")
    return _chunks(rows, _Traffic(accounts, Random(seed), skew), kinds)


def _chunks(rows: int, traffic: "_Traffic", kinds: Mapping[Kind, float]) -> Iterator[bytes]:
    yield HEADER
    makers = [traffic.maker(kind) for kind in kinds]
    weights = list(accumulate(kinds.values()))
    for done in range(0, rows, _ROWS_PER_CHUNK):
        count = min(_ROWS_PER_CHUNK, rows - done)
        chosen = traffic.random.choices(makers, cum_weights=weights, k=count)
        yield "".join([make() for make in chosen]).encode("ascii")


def _parsed_weight(weight: str, text: str) -> float:
    try:
        number = float(weight)
    except ValueError:
        number = -1.0
    if not (isfinite(number) and number >= 0):
        raise UsageError(f"{weight!r} in {text!r} is no weight; write kind=number, such as deposit=60")
    return number


class _Traffic:
    """Rows of one made-up history: what a row names was there before, and may be named so.

    A deposit of a disputing account waits in `_disputable`; disputed, it moves to `_disputed`; resolved, back again.
    """

    def __init__(self, accounts: int, random: Random, skew: float) -> None:
        self.random = random
        self._uniform = random.random
        self._accounts = accounts
        self._disputing_every = min(_DISPUTING_EVERY, accounts)
        self._skew = skew
        self._tx = 0
        self._fractions = [f".{fraction:04}\n" for fraction in range(SCALE)]
        self._deposits: list[tuple[int, int]] = []
        self._disputable: list[tuple[int, int]] = []
        self._disputed: list[tuple[int, int]] = []

    def maker(self, kind: Kind) -> Callable[[], str]:
        """The function that makes the next row of a kind."""
        return {
            Kind.DEPOSIT: self.deposit,
            Kind.WITHDRAWAL: self.withdrawal,
            Kind.DISPUTE: self.dispute,
            Kind.RESOLVE: self.resolve,
            Kind.CHARGEBACK: self.chargeback,
        }[kind]

    def deposit(self) -> str:
        self._tx = tx = self._tx + 1
        account = self._account()
        amount = 1 + int(self._uniform() * _DEPOSIT_MAX)
        deposits = self._deposits
        if len(deposits) < _REMEMBERED_MAX:
            deposits.append((account, amount))
        else:
            deposits[tx % _REMEMBERED_MAX] = (account, amount)
        if account % self._disputing_every == 0:
            self._remember(self._disputable, (account, tx))
        return f"deposit,{account},{tx},{amount // SCALE}{self._fractions[amount % SCALE]}"

    def withdrawal(self) -> str:
        """Some of what an account deposited, or much more than that."""
        self._tx = tx = self._tx + 1
        account, deposited = self._deposit_of_someone()
        share = self._uniform()
        amount = 1 + int(deposited * (share if share > _SHARE_TOO_LARGE else _TIMES_TOO_LARGE))
        return f"withdrawal,{account},{tx},{amount // SCALE}{self._fractions[amount % SCALE]}"

    def dispute(self) -> str:
        account, tx = self._taken(self._disputable)
        self._remember(self._disputed, (account, tx))
        return f"dispute,{account},{tx},\n"

    def resolve(self) -> str:
        account, tx = self._taken(self._disputed)
        self._remember(self._disputable, (account, tx))
        return f"resolve,{account},{tx},\n"

    def chargeback(self) -> str:
        account, tx = self._taken(self._disputed)
        return f"chargeback,{account},{tx},\n"

    def _deposit_of_someone(self) -> tuple[int, int]:
        deposits = self._deposits
        return deposits[int(self._uniform() * len(deposits))] if deposits else (self._account(), _DEPOSIT_MAX)

    def _account(self) -> int:
        """1..accounts, by the inverse of the continuous Zipf law's distribution: no table of weights is kept."""
        uniform, accounts, skew = self._uniform(), self._accounts, self._skew
        if skew == 0:
            return 1 + int(uniform * accounts)
        if skew == 1:
            rank = (accounts + 1) ** uniform
        else:
            rank = (1 + uniform * ((accounts + 1) ** (1 - skew) - 1)) ** (1 / (1 - skew))
        return min(int(rank), accounts)

    def _remember(self, deposits: list[tuple[int, int]], deposit: tuple[int, int]) -> None:
        if len(deposits) < _REMEMBERED_MAX:
            deposits.append(deposit)
        else:
            deposits[int(self._uniform() * _REMEMBERED_MAX)] = deposit

    def _taken(self, deposits: list[tuple[int, int]]) -> tuple[int, int]:
        """One of the deposits, which leaves the list; or a stray one."""
        if not deposits or self._uniform() < _SHARE_STRAY:
            return self._account(), 1 + int(self._uniform() * (self._tx + 1))
        place = int(self._uniform() * len(deposits))
        deposits[place], deposits[-1] = deposits[-1], deposits[place]
        return deposits.pop()
