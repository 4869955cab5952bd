"""Who may come in, for what, and how fast: tokens presented over TCP and HTTP, judged alike."""

import hmac
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from hftpipe.config import ServeLimits
from hftpipe.errors import HftpipeError, UsageError
from hftpipe.event import Event, Level
from hftpipe.reception.access.private_file import Signature, signature_of
from hftpipe.reception.access.token_file import Scope, Token, digest_of, load

__all__ = ["Gate", "Grant", "Scope", "TokenBucket", "Unauthorized"]

SECRET_BYTES_MAX: Final = 256
"""Longest secret that is looked at; ours have 47."""

_BURST_MS: Final = 1_000


class Unauthorized(HftpipeError):
    """No token, an unknown or a wrong one: which of them is told to nobody."""

    def __init__(self) -> None:
        super().__init__(
            "a valid token is needed: present one that `hftpipe token add` has made for this service"
        )


class TokenBucket:
    """Transactions per second, averaged, with one second's worth at once after a pause.

    What is taken is known only when it was taken, so it is charged afterwards and paid off by waiting: whoever waits
    out `debt_ms` before each charge takes, in any time t, at most rate * (t + 1 s) and one charge more. Counts are of
    thousandths of transactions: with whole milliseconds nothing is ever rounded. now_ms: time that never goes back.
    """

    def __init__(self, per_second: int, now_ms: int) -> None:
        self._per_second = per_second
        self._level = per_second * _BURST_MS
        self._seen_ms = now_ms

    @property
    def per_second(self) -> int:
        """The rate."""
        return self._per_second

    def debt_ms(self, now_ms: int) -> int:
        """0: may go on; else so long until it may."""
        self._refill(now_ms)
        return max(0, -(self._level // self._per_second))

    def charge(self, transactions: int, now_ms: int) -> None:
        """Counts transactions that were taken."""
        self._refill(now_ms)
        self._level -= transactions * 1_000

    def set_rate(self, per_second: int, now_ms: int) -> None:
        """Another rate from now on."""
        self._refill(now_ms)
        self._per_second = per_second
        self._refill(now_ms)

    def _refill(self, now_ms: int) -> None:
        passed_ms = now_ms - self._seen_ms
        self._seen_ms = now_ms
        self._level = min(self._level + passed_ms * self._per_second, self._per_second * _BURST_MS)


class Grant:
    """What the holder of one token may do; one a token, shared by all its connections.

    rate: transactions per second, None for as many as there are. now_ms: time that never goes back.
    """

    def __init__(
        self, name: str, scopes: frozenset[Scope], rate: int | None, now_ms: Callable[[], int]
    ) -> None:
        self.name = name
        self.scopes = scopes
        self.is_revoked = False
        self._now_ms = now_ms
        self._bucket = None if rate is None else TokenBucket(rate, now_ms())

    def __repr__(self) -> str:
        return f"Grant({self.name!r}, {' '.join(sorted(self.scopes))})"

    def allows(self, scope: Scope) -> bool:
        """Whether it is good for that."""
        return scope in self.scopes

    @property
    def rate(self) -> int | None:
        """Transactions a second; None for as many as there are."""
        return None if self._bucket is None else self._bucket.per_second

    def debt_ms(self) -> int:
        """0: may go on; else so long until the rate limit lets it."""
        return 0 if self._bucket is None else self._bucket.debt_ms(self._now_ms())

    def charge(self, transactions: int) -> None:
        """Counts transactions that were taken from its holder."""
        if self._bucket is not None:
            self._bucket.charge(transactions, self._now_ms())

    def change(self, scopes: frozenset[Scope], rate: int | None) -> None:
        """What the file says of it now; what was charged stays charged."""
        self.scopes = scopes
        if rate is None:
            self._bucket = None
        elif self._bucket is None:
            self._bucket = TokenBucket(rate, self._now_ms())
        else:
            self._bucket.set_rate(rate, self._now_ms())


class Gate:
    """Lets in whoever presents the secret of a token in the file, as the file is now.

    path: None lets everybody do everything. limits: the file is looked at again once in `token_poll_ms` at most, when
    somebody asks. One that will not do keeps the tokens from before, and is reported once; at the start it raises
    UsageError. For one thread.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        now_ms: Callable[[], int],
        report: Callable[[str], None],
        limits: ServeLimits,
    ) -> None:
        self._path = path
        self._now_ms = now_ms
        self._report = report
        self._poll_ms = limits.token_poll_ms
        self._looked_ms = now_ms()
        self._everybody = Grant("", frozenset(Scope), None, now_ms)
        self._grants: dict[tuple[str, bytes], Grant] = {}
        self._seen: Signature | None = None
        if path is not None:
            tokens, self._seen = load(path)
            self._take_over(tokens)

    @classmethod
    def open_to_all(cls) -> "Gate":
        """Where no token file is given: everybody has every scope, without a rate limit."""
        return cls(None, now_ms=lambda: 0, report=lambda _: None, limits=ServeLimits())

    @property
    def is_guarded(self) -> bool:
        """Whether a token is needed at all."""
        return self._path is not None

    def admit(self, secret: bytes | None) -> Grant:
        """What a presented secret is good for. Raises Unauthorized: the same for none, an unknown and a wrong one."""
        if self._path is None:
            return self._everybody
        self._look(self._path)
        if secret is None or len(secret) > SECRET_BYTES_MAX:
            raise Unauthorized
        presented = digest_of(secret)
        found: Grant | None = None
        for (_, digest), grant in self._grants.items():
            # All are compared, each in constant time: how long it takes says nothing of how close one came.
            if hmac.compare_digest(digest, presented):
                found = grant
        if found is None:
            raise Unauthorized
        return found

    def is_current(self, grant: Grant) -> bool:
        """False once its token was removed from the file."""
        if self._path is not None:
            self._look(self._path)
        return not grant.is_revoked

    def _look(self, path: Path) -> None:
        now_ms = self._now_ms()
        if now_ms - self._looked_ms < self._poll_ms:
            return
        self._looked_ms = now_ms
        signature = signature_of(path)
        if signature == self._seen:
            return
        self._seen = signature
        try:
            tokens, self._seen = load(path)
        except UsageError as error:
            told = f"{error}. Until that is mended, what was read of it before holds ({len(self._grants)} tokens)"
            self._report(Event("token_file_refused", told, Level.ERROR, tokens=len(self._grants)))
            return
        self._take_over(tokens)
        told = f"the token file {path} has changed and was read again: {len(tokens)} tokens"
        self._report(Event("token_file_read", told, tokens=len(tokens)))

    def _take_over(self, tokens: Iterable[Token]) -> None:
        before, self._grants = self._grants, {}
        for token in tokens:
            key = (token.name, token.digest)
            rate = token.transactions_per_second
            grant = before.pop(key, None)
            if grant is None:
                grant = Grant(token.name, token.scopes, rate, self._now_ms)
            else:
                grant.change(token.scopes, rate)
            self._grants[key] = grant
        for removed in before.values():
            removed.is_revoked = True
