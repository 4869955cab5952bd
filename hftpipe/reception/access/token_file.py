"""The file of tokens: TOML, one table a token, with the hash of its secret and what it may do.

    [alice]
    hash = "sha256:…"
    scopes = ["submit", "read"]
    transactions_per_second = 50000
    created = 2026-01-31T12:00:00Z

The secrets themselves are nowhere: 256 random bits cannot be guessed from their hash. Two tokens for one user, the new
one added before the old one is removed, are how a secret is replaced without a gap.
"""

import fcntl
import hashlib
import os
import re
import secrets
import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Final

from hftpipe.errors import UsageError
from hftpipe.reception.access.private_file import Signature, read_private

TOKENS_MAX: Final = 1_000
"""Tokens of one file: each that is presented is compared with all of them."""

RATE_MAX: Final = 1_000_000_000
"""Largest rate limit, in transactions per second."""

PREFIX: Final = "hft_"
"""What a secret begins with, so that people and scanners know one when they see it."""

_SECRET_BYTES: Final = 32
_HASH: Final = re.compile(r"sha256:([0-9a-f]{64})", re.ASCII)
_NAME: Final = re.compile(r"[a-z0-9_.-]{1,64}", re.ASCII)
_BARE: Final = re.compile(r"[a-z0-9_-]+", re.ASCII)
_KEYS: Final = ("hash", "scopes", "transactions_per_second", "created")
_HEADING: Final = "# Made by `hftpipe token`, which keeps no comments. It holds hashes, no secrets.\n"
_SHOWN_MAX: Final = 80


class Scope(StrEnum):
    """What a token may be used for."""

    SUBMIT = "submit"
    READ = "read"
    ADMIN = "admin"


SCOPES: Final = {scope.value: scope for scope in Scope}


@dataclass(frozen=True, slots=True)
class Token:
    """One table of the file. transactions_per_second: None for as many as there are."""

    name: str
    digest: bytes = field(repr=False)
    scopes: frozenset[Scope]
    transactions_per_second: int | None
    created: datetime


def digest_of(secret: bytes) -> bytes:
    """The 32 bytes that are kept of a secret."""
    return hashlib.sha256(secret).digest()


def issue(name: str, scopes: Iterable[Scope], rate: int | None, now: datetime) -> tuple[Token, str]:
    """A new token and its secret, which is told once and kept nowhere."""
    secret = PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
    token = Token(name, digest_of(secret.encode()), frozenset(scopes), rate, now.replace(microsecond=0))
    return token, secret


def require_name(name: str) -> None:
    """Raises UsageError unless it may name a token."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name[:_SHOWN_MAX]!r} cannot name a token: a-z, 0-9, _ . - only, 64 at most")


def parse(text: str, place: str) -> tuple[Token, ...]:
    """The tokens of a file's text, in its order. Raises UsageError that names place, table and key, never a hash."""
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # not TOML, a number or a nesting beyond all bounds
        raise UsageError(f"{place} is not TOML as `hftpipe token` writes it: {error}") from None
    if len(tables) > TOKENS_MAX:
        raise UsageError(
            f"{place} has {len(tables)} tokens; {TOKENS_MAX} is the most. Remove those not in use"
        )
    tokens = tuple(_token(name, table, place) for name, table in tables.items())
    owners: dict[bytes, str] = {}
    for token in tokens:
        if (other := owners.setdefault(token.digest, token.name)) != token.name:
            raise UsageError(f"{place}: [{other}] and [{token.name}] have the same hash. Remove one of them")
    return tokens


def _token(name: str, table: object, place: str) -> Token:
    if not isinstance(table, dict):
        raise UsageError(
            f"{place}: {name[:_SHOWN_MAX]!r} stands outside of a table; each token is a table [name]"
        )
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{place}: the table {name[:_SHOWN_MAX]!r} cannot name a token: a-z, 0-9, _ . - only, 64 at most"
        )
    where = f"{place}: [{name}]"
    if unknown := sorted(table.keys() - set(_KEYS)):
        raise UsageError(
            f"{where} has the key {unknown[0][:_SHOWN_MAX]!r}; known are {', '.join(_KEYS)}. "
            'A name with a dot is written ["a.b"]'
        )
    return Token(
        name,
        _digest(table.get("hash"), where),
        _scopes(table.get("scopes"), where),
        _rate(table.get("transactions_per_second"), where),
        _created(table.get("created"), where),
    )


def _digest(value: object, where: str) -> bytes:
    found = _HASH.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise UsageError(
            f'{where} needs hash = "sha256:" and 64 hexadecimal digits, as `hftpipe token add` writes it'
        )
    return bytes.fromhex(found[1])


def _scopes(value: object, where: str) -> frozenset[Scope]:
    known = ", ".join(SCOPES)
    if not isinstance(value, list) or not value:
        raise UsageError(f"{where} needs scopes, a list of one or more of {known}")
    for scope in value:
        if not isinstance(scope, str) or scope not in SCOPES:
            raise UsageError(f"{where} scopes has {str(scope)[:_SHOWN_MAX]!r}; known are {known}")
    return frozenset(SCOPES[scope] for scope in value)


def _rate(value: object, where: str) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not 1 <= value <= RATE_MAX:
        raise UsageError(
            f"{where} transactions_per_second must be a whole number from 1 to {RATE_MAX}, or left away"
        )
    return value


def _created(value: object, where: str) -> datetime:
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise UsageError(f"{where} needs created, a time as 2026-01-31T12:00:00Z")
    return value


def render(tokens: Iterable[Token]) -> str:
    """The text of a file with these tokens; `parse` gives them back."""
    return "\n".join([_HEADING, *map(_rendered, tokens)])


def _rendered(token: Token) -> str:
    name = token.name if _BARE.fullmatch(token.name) else f'"{token.name}"'
    scopes = ", ".join(f'"{scope}"' for scope in Scope if scope in token.scopes)
    rate = token.transactions_per_second
    return (
        f'[{name}]\nhash = "sha256:{token.digest.hex()}"\nscopes = [{scopes}]\n'
        + (f"transactions_per_second = {rate}\n" if rate is not None else "")
        + f"created = {token.created.isoformat().replace('+00:00', 'Z')}\n"
    )


def load(path: Path) -> tuple[tuple[Token, ...], Signature]:
    """The tokens of a file, and what the file was. Raises UsageError when it will not do, or is open to others."""
    content, signature = read_private(path, "the token file")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise UsageError(f"the token file {path} is not UTF-8 text") from None
    return parse(text, f"the token file {path}"), signature


def change(path: Path, make: Callable[[tuple[Token, ...]], Sequence[Token]]) -> None:
    """Puts other tokens into a file, which need not be there yet: all of it durably, or nothing, and nobody between.

    make: the new tokens from those that are there. Raises UsageError as `load` does, and what `make` raises.
    """
    target = path.resolve()  # a link stays a link
    with _alone(target.parent):
        before = load(target)[0] if target.exists() else ()
        text = render(make(before))
        parse(text, f"the token file {path}")
        _replace(target, text.encode())


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """The folder's lock, which leaves no file behind."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"the folder {folder} of the token file cannot be used: {error.strerror}") from error
    try:
        _lock(folder, descriptor)
        yield
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lock(folder: Path, descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UsageError(f"another program has locked {folder}, as `hftpipe token` does: try again") from None


def _replace(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.new")
    try:
        descriptor = os.open(
            draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
