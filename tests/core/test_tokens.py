"""Tokens: their file, who is let in, and how fast."""

import os
import resource
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftpipe.config import ServeLimits
from hftpipe.errors import UsageError
from hftpipe.reception.access.token_file import (
    PREFIX,
    Scope,
    Token,
    change,
    digest_of,
    issue,
    load,
    parse,
    render,
)
from hftpipe.reception.access.tokens import SECRET_BYTES_MAX, Gate, Grant, TokenBucket, Unauthorized

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
POLL_MS = ServeLimits().token_poll_ms
ALICE, BOB = "hft_alice", "hft_bob"

VALID = f"""
[alice]
hash = "sha256:{digest_of(ALICE.encode()).hex()}"
scopes = ["submit", "read"]
transactions_per_second = 50000
created = 2026-01-31T12:00:00Z
"""

NAMES = st.from_regex(r"[a-z0-9_.-]{1,64}", fullmatch=True)
TOKENS = st.lists(
    st.builds(
        Token,
        NAMES,
        st.binary(min_size=32, max_size=32),
        st.frozensets(st.sampled_from(Scope), min_size=1),
        st.none() | st.integers(1, 10**9),
        st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=-3.5))])),
    ),
    max_size=4,
    unique_by=(lambda token: token.name, lambda token: token.digest),
)


def token(name: str, secret: str, *scopes: Scope, rate: int | None = None) -> Token:
    """With these scopes, or all."""
    return Token(name, digest_of(secret.encode()), frozenset(scopes or Scope), rate, NOON)


class Door:
    """A token file, and a gate before it; time moves when told."""

    def __init__(self, folder: Path, *tokens: Token) -> None:
        self.path = folder / "tokens.toml"
        self.now_ms = 1_000
        self.lines: list[str] = []
        self.write(*tokens)
        self.gate = Gate(
            self.path, now_ms=lambda: self.now_ms, report=self.lines.append, limits=ServeLimits()
        )

    def write(self, *tokens: Token) -> None:
        self.path.unlink(missing_ok=True)
        change(self.path, lambda _: list(tokens))

    def spoil(self, content: bytes) -> None:
        self.path.write_bytes(content)

    def later(self, milliseconds: int = POLL_MS) -> "Door":
        self.now_ms += milliseconds
        return self

    def admits(self, secret: str) -> bool:
        try:
            self.gate.admit(secret.encode())
        except Unauthorized:
            return False
        return True


# --- the file -----------------------------------------------------------------------------------------------------


@given(TOKENS)
def test_what_is_written_is_read_again(tokens: list[Token]) -> None:
    assert parse(render(tokens), "file") == tuple(tokens)


@given(st.integers(0, len(VALID)), st.integers(0, 20), st.text(max_size=20))
def test_any_text_is_read_or_refused(start: int, length: int, other: str) -> None:
    """Nothing but UsageError, whatever stands there; it says where."""
    with suppress(UsageError):
        parse(VALID[:start] + other + VALID[start + length :], "file")


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("[alice]", "[alice", "file is not TOML as `hftpipe token` writes it"),
        ("[alice]", "alice = 1", "file: 'alice' stands outside of a table"),
        ("[alice]", "[Alice]", "file: the table 'Alice' cannot name a token: a-z, 0-9, _ . - only, 64 at most"),
        ("[alice]", f"[{'a' * 65}]", "cannot name a token"),
        ("[alice]", '[""]', "file: the table '' cannot name a token"),
        ("[alice]", "[a.b]", "file: [a] has the key 'b'; known are hash"),
        ("hash =", "hashes =", "file: [alice] has the key 'hashes'; known are hash, scopes, transactions_per_second"),
        ("sha256:", "md5:", 'file: [alice] needs hash = "sha256:" and 64 hexadecimal digits'),
        ("sha256:", "sha256:0", "needs hash"),
        ('["submit", "read"]', '"submit"', "file: [alice] needs scopes, a list of one or more of submit, read, admin"),
        ('["submit", "read"]', "[]", "needs scopes"),
        ('["submit", "read"]', '["write"]', "file: [alice] scopes has 'write'; known are submit, read, admin"),
        ('["submit", "read"]', "[1]", "scopes has '1'"),
        ("50000", "0", "file: [alice] transactions_per_second must be a whole number from 1 to 1000000000"),
        ("50000", "true", "transactions_per_second must be"),
        ("50000", "1.5", "transactions_per_second must be"),
        ("50000", "9" * 5_000, "file is not TOML"),
        ("2026-01-31T12:00:00Z", '"today"', "file: [alice] needs created, a time as 2026-01-31T12:00:00Z"),
        ("2026-01-31T12:00:00Z", "2026-01-31", "needs created"),
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00", "needs created"),
        ("50000", "[" * 20_000, "file is not TOML"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_the_file_is_said_by_table_and_key(before: str, after: str, said: str) -> None:
    """With what would be right; and never with a hash."""
    text = VALID.replace(before, after)
    assert text != VALID
    with pytest.raises(UsageError) as caught:
        parse(text, "file")
    assert said in str(caught.value)
    assert digest_of(ALICE.encode()).hex() not in str(caught.value)


def test_a_name_stands_once() -> None:
    with pytest.raises(UsageError, match=r"not TOML.*alice"):
        parse(VALID + VALID, "file")


def test_one_secret_has_one_token() -> None:
    """Else nobody could tell which of them was presented."""
    with pytest.raises(UsageError, match=r"\[alice\] and \[bob\] have the same hash"):
        parse(VALID + VALID.replace("alice", "bob"), "file")


def test_more_tokens_than_can_be_compared_are_refused() -> None:
    tokens = [
        Token(f"t{number}", number.to_bytes(32), frozenset(Scope), None, NOON) for number in range(1_001)
    ]
    with pytest.raises(UsageError, match="has 1001 tokens; 1000 is the most"):
        parse(render(tokens), "file")


def test_a_secret_is_long_random_and_recognisable() -> None:
    """256 bits; only its hash is kept, and that is shown nowhere either."""
    made, secret = issue("alice", [Scope.READ], None, NOON)
    assert secret != issue("alice", [Scope.READ], None, NOON)[1]
    assert secret.startswith(PREFIX)
    assert len(secret) == len(PREFIX) + 43
    assert made.digest == digest_of(secret.encode())
    assert secret not in render([made])
    assert made.digest.hex() not in repr(made)
    assert repr(made.digest) not in repr(made)


def test_the_file_is_written_closed_to_others_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    """Also where it was not before; a link to it stays a link."""
    target, path = tmp_path / "tokens.toml", tmp_path / "link"
    path.symlink_to(target)
    change(path, lambda _: [token("alice", ALICE)])
    change(path, lambda before: [*before, token("bob", BOB)])
    assert [known.name for known in load(path)[0]] == ["alice", "bob"]
    assert target.stat().st_mode & 0o777 == 0o600
    assert sorted(each.name for each in tmp_path.iterdir()) == ["link", "tokens.toml"]
    assert path.is_symlink()


def test_a_change_that_is_refused_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    change(path, lambda _: [token("alice", ALICE)])
    before = path.read_bytes()
    with pytest.raises(UsageError, match="same hash"):
        change(path, lambda tokens: [*tokens, token("bob", ALICE)])
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["tokens.toml"]


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    """And no draft."""
    path = tmp_path / "tokens.toml"
    change(path, lambda _: [token("alice", ALICE)])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            change(path, lambda tokens: [*tokens, token("bob", BOB)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [known.name for known in load(path)[0]] == ["alice"]
    assert [each.name for each in tmp_path.iterdir()] == ["tokens.toml"]


def test_two_changes_at_a_time_are_refused(tmp_path: Path) -> None:
    """One would lose what the other has added."""
    path = tmp_path / "tokens.toml"

    def meanwhile(tokens: tuple[Token, ...]) -> list[Token]:
        change(path, lambda _: [token("bob", BOB)])
        return [*tokens, token("alice", ALICE)]

    with pytest.raises(UsageError, match=f"another program has locked {tmp_path}"):
        change(path, meanwhile)
    assert not path.exists()


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o620, 0o602, 0o666])
def test_a_file_that_others_can_read_or_write_is_refused(tmp_path: Path, mode: int) -> None:
    """With the command that closes it."""
    path = tmp_path / "tokens.toml"
    path.write_text(VALID)
    path.chmod(mode)
    with pytest.raises(UsageError, match=f"close it with: chmod 600 '{path}'"):
        load(path)


def test_what_is_no_file_of_tokens_is_refused(tmp_path: Path) -> None:
    """Missing, a folder, a pipe that would never answer, bytes that are no text, and far too many."""
    path = tmp_path / "tokens.toml"
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        load(path)
    with pytest.raises(UsageError, match="is no regular file"):
        load(tmp_path)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    with pytest.raises(UsageError, match="is no regular file"):
        load(pipe)
    with pytest.raises(UsageError, match=r"the folder .* cannot be used: No such file"):
        change(tmp_path / "missing" / "tokens.toml", lambda _: [])
    path.touch(mode=0o600)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="is not UTF-8 text"):
        load(path)
    path.write_bytes(bytes((1 << 20) + 1))
    with pytest.raises(UsageError, match="is longer than 1048576 bytes"):
        load(path)


# --- who is let in ------------------------------------------------------------------------------------------------


def test_a_secret_lets_in_with_the_scopes_of_its_token(tmp_path: Path) -> None:
    """All connections share one grant."""
    door = Door(tmp_path, token("alice", ALICE, Scope.SUBMIT), token("bob", BOB))
    grant = door.gate.admit(ALICE.encode())
    assert grant is door.gate.admit(ALICE.encode())
    assert grant is not door.gate.admit(BOB.encode())
    assert grant.name == "alice"
    assert [scope for scope in Scope if grant.allows(scope)] == [Scope.SUBMIT]
    assert door.gate.is_current(grant)


@pytest.mark.parametrize(
    "secret",
    [None, b"", b"hft_", ALICE.encode()[:-1], ALICE.encode() + b"\n", b"\xff\0", "hft_älice".encode(), b"x" * 10**7],
)  # fmt: skip
def test_none_an_unknown_and_a_wrong_one_are_refused_alike(tmp_path: Path, secret: bytes | None) -> None:
    """Whatever bytes they are made of."""
    with pytest.raises(Unauthorized) as caught:
        Door(tmp_path, token("alice", ALICE)).gate.admit(secret)
    assert str(caught.value) == str(Unauthorized())


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Gate:
    """A gate that nobody has a token for."""
    return Door(tmp_path_factory.mktemp("closed")).gate


def test_an_overlong_secret_is_refused_unread(tmp_path: Path) -> None:
    """Even the right one: nobody makes the service hash megabytes."""
    longest = "x" * SECRET_BYTES_MAX
    door = Door(tmp_path, token("alice", longest), token("bob", longest + "x"))
    assert door.admits(longest)
    assert not door.admits(longest + "x")


@given(secret=st.binary(max_size=2 * SECRET_BYTES_MAX) | st.none())
def test_no_bytes_do_anything_but_be_refused(closed: Gate, secret: bytes | None) -> None:
    with pytest.raises(Unauthorized):
        closed.admit(secret)


def test_a_grant_shows_no_secret(tmp_path: Path) -> None:
    grant = Door(tmp_path, token("alice", ALICE, Scope.READ)).gate.admit(ALICE.encode())
    assert repr(grant) == "Grant('alice', read)"


def test_without_a_token_file_everybody_may_do_everything() -> None:
    gate = Gate.open_to_all()
    grant = gate.admit(None)
    grant.charge(10**9)
    assert all(map(grant.allows, Scope))
    assert grant.debt_ms() == 0
    assert gate.is_current(grant)


# --- changes of the file ------------------------------------------------------------------------------------------


def test_a_new_token_is_let_in_after_the_next_look(tmp_path: Path) -> None:
    """Not before: the file is not looked at with each request."""
    door = Door(tmp_path, token("alice", ALICE))
    door.write(token("alice", ALICE), token("bob", BOB))
    assert not door.later(POLL_MS - 1).admits(BOB)
    assert door.later(1).admits(BOB)
    door.write(token("bob", BOB))
    assert door.later(POLL_MS - 1).admits(ALICE)
    assert not door.later(1).admits(ALICE)
    assert door.lines == [
        f"the token file {door.path} has changed and was read again: {count} tokens" for count in (2, 1)
    ]


def test_a_removed_token_ends_its_grant(tmp_path: Path) -> None:
    """The grants of the others stay the same."""
    door = Door(tmp_path, token("alice", ALICE), token("bob", BOB))
    alice, bob = door.gate.admit(ALICE.encode()), door.gate.admit(BOB.encode())
    door.write(token("bob", BOB))
    assert door.gate.is_current(alice)
    door.later()
    assert not door.gate.is_current(alice)
    assert not door.admits(ALICE)
    assert door.gate.admit(BOB.encode()) is bob
    assert door.gate.is_current(bob)


def test_another_secret_under_the_same_name_ends_the_first_grant(tmp_path: Path) -> None:
    door = Door(tmp_path, token("alice", ALICE))
    alice = door.gate.admit(ALICE.encode())
    door.write(token("alice", BOB))
    door.later()
    assert not door.gate.is_current(alice)
    assert door.admits(BOB)


def test_other_scopes_and_rates_hold_for_grants_that_are_out(tmp_path: Path) -> None:
    """What was charged before stays charged."""
    door = Door(tmp_path, token("alice", ALICE, Scope.SUBMIT, rate=10))
    grant = door.gate.admit(ALICE.encode())
    grant.charge(40)
    assert grant.debt_ms() == 3_000
    door.write(token("alice", ALICE, Scope.READ, rate=20))
    assert door.later().gate.is_current(grant)
    assert not grant.allows(Scope.SUBMIT)
    assert grant.allows(Scope.READ)
    assert grant.debt_ms() == 1_000
    door.write(token("alice", ALICE, Scope.READ))
    door.later().gate.is_current(grant)
    assert grant.debt_ms() == 0


@pytest.mark.parametrize("spoilt", [b"[alice", b"\xff", b"alice = 1"])
def test_a_broken_file_keeps_the_tokens_from_before_and_is_told_once(tmp_path: Path, spoilt: bytes) -> None:
    """Until it is mended."""
    door = Door(tmp_path, token("alice", ALICE))
    grant = door.gate.admit(ALICE.encode())
    door.spoil(spoilt)
    for _ in range(5):
        assert door.later().admits(ALICE)
    (line,) = door.lines
    assert str(door.path) in line
    assert line.endswith("Until that is mended, what was read of it before holds (1 tokens)")
    door.write()
    assert not door.later().gate.is_current(grant)
    assert door.lines[1:] == [f"the token file {door.path} has changed and was read again: 0 tokens"]


def test_a_file_that_is_gone_or_open_to_others_keeps_the_tokens_too(tmp_path: Path) -> None:
    door = Door(tmp_path, token("alice", ALICE))
    door.path.chmod(0o644)
    assert door.later().admits(ALICE)
    door.path.unlink()
    assert door.later().later().admits(ALICE)
    assert ["chmod 600" in line for line in door.lines] == [True, False]
    assert "No such file" in door.lines[1]


def test_a_file_that_has_not_changed_is_not_read_again(tmp_path: Path) -> None:
    door = Door(tmp_path, token("alice", ALICE))
    for _ in range(3):
        assert door.later(10 * POLL_MS).admits(ALICE)
    assert not door.lines


def test_a_gate_begins_with_a_file_that_will_do_only(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        Gate(tmp_path / "tokens.toml", now_ms=lambda: 0, report=print, limits=ServeLimits())


# --- how fast -----------------------------------------------------------------------------------------------------


def test_without_a_rate_nobody_waits() -> None:
    grant = Grant("alice", frozenset(Scope), None, lambda: 0)
    grant.charge(10**12)
    assert grant.debt_ms() == 0


def test_one_seconds_worth_may_come_at_once() -> None:
    """What is beyond is paid off by waiting; a pause earns no more than that one second."""
    bucket = TokenBucket(100, 0)
    bucket.charge(100, 0)
    assert bucket.debt_ms(0) == 0
    bucket.charge(1, 0)
    assert bucket.debt_ms(0) == 10
    assert bucket.debt_ms(4) == 6
    assert bucket.debt_ms(10) == 0
    bucket.charge(150, 60_000)
    assert bucket.debt_ms(60_000) == 500


@given(
    st.integers(1, 10**6),
    st.integers(0, 10**9),
    st.lists(st.tuples(st.integers(0, 3_000), st.integers(1, 10_000)), max_size=60),
)
def test_whoever_waits_out_the_debt_never_passes_the_rate(
    rate: int, start_ms: int, steps: list[tuple[int, int]]
) -> None:
    """In any time: the rate times that time, one second's worth, and the last charge."""
    bucket, now_ms, taken = TokenBucket(rate, start_ms), start_ms, []
    for pause_ms, count in steps:
        now_ms += pause_ms
        now_ms += bucket.debt_ms(now_ms)
        assert bucket.debt_ms(now_ms) == 0
        bucket.charge(count, now_ms)
        taken.append((now_ms, count))
    for first, (begin_ms, _) in enumerate(taken):
        before_last = 0
        for end_ms, count in taken[first:]:
            assert 1_000 * before_last <= rate * (end_ms - begin_ms + 1_000)
            before_last += count


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_the_debt_is_no_longer_than_it_must_be(rate: int, count: int) -> None:
    """A millisecond less would not do."""
    bucket = TokenBucket(rate, 0)
    bucket.charge(rate + count, 0)
    wait_ms = bucket.debt_ms(0)
    assert (wait_ms - 1) * rate < 1_000 * count <= wait_ms * rate


@given(st.lists(st.integers(0, 10_000), max_size=20), st.integers(1, 1_000))
def test_looking_often_changes_nothing(looks_ms: list[int], rate: int) -> None:
    """Nothing is rounded away."""
    often, once = TokenBucket(rate, 0), TokenBucket(rate, 0)
    often.charge(50_000, 0)
    once.charge(50_000, 0)
    for look_ms in sorted(looks_ms):
        often.debt_ms(look_ms)
    end_ms = max(looks_ms, default=0)
    assert often.debt_ms(end_ms) == once.debt_ms(end_ms)
