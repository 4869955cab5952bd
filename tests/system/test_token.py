"""`hftpipe token`, and the options of the service as they are refused on the command line."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from hftpipe.cli.commands import commands
from hftpipe.cli.main import main
from hftpipe.reception.access.token_file import SCOPES, digest_of, load
from tests.certificates import KEY, OTHER_KEY, written


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder, and no settings from outside."""
    for name in list(os.environ):
        if name.startswith("HFTPIPE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    umask = os.umask(0o077)
    yield tmp_path
    os.umask(umask)


def hftpipe(*words: str, **variables: str) -> Result:
    """A command, run to its end."""
    return CliRunner().invoke(main, words, env=variables)


def done(*words: str) -> str:
    """What a command of the token file writes to stdout."""
    result = hftpipe("token", *words, "--token-file", "tokens.toml")
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*words: str, **variables: str) -> str:
    """What a command says that changes nothing and ends with 2."""
    result = hftpipe(*words, **variables)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    return result.stderr


def test_a_token_is_added_shown_once_and_kept_as_a_hash() -> None:
    """The secret alone is on stdout, for a program that takes it."""
    secret = done("add", "alice", "--scope", "submit", "--scope", "read", "--rate", "500").removesuffix("\n")
    (token,), _ = load(Path("tokens.toml"))
    assert token.digest == digest_of(secret.encode())
    assert (token.name, token.transactions_per_second) == ("alice", 500)
    assert sorted(token.scopes) == ["read", "submit"]
    assert secret not in Path("tokens.toml").read_text()
    assert Path("tokens.toml").stat().st_mode & 0o777 == 0o600


def test_tokens_are_listed_without_hashes() -> None:
    """In the order in which they were added."""
    done("add", "zoe", "--scope", "admin")
    done("add", "alice", "--scope", "submit", "--scope", "read", "--rate", "500")
    rows = json.loads(done("list", "--format", "json"))
    assert [row.pop("created")[:2] for row in rows] == ["20", "20"]
    assert rows == [
        {"name": "zoe", "scopes": "admin", "transactions_per_second": None},
        {"name": "alice", "scopes": "read submit", "transactions_per_second": 500},
    ]
    (token, _), _ = load(Path("tokens.toml"))
    assert token.digest.hex() not in done("list")


def test_a_token_is_removed_and_a_name_may_be_used_again() -> None:
    """The others stay."""
    for name in ("alice", "bob", "a.b"):
        done("add", name, "--scope", "read")
    done("remove", "bob")
    done("remove", "a.b")
    assert [token.name for token in load(Path("tokens.toml"))[0]] == ["alice"]
    done("add", "bob", "--scope", "read")
    assert [token.name for token in load(Path("tokens.toml"))[0]] == ["alice", "bob"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["add", "alice", "--scope", "read"], "has a token alice already: give this one another name"),
        (["add", "Bob", "--scope", "read"], "'Bob' cannot name a token"),
        (["add", "bob"], "needs what the token is for: --scope submit, read or admin"),
        (["add", "--scope", "read"], "`hftpipe token add` needs the NAME of a token"),
        (["add", "bob", "--scope", "write"], "'write' is not one of 'submit', 'read', 'admin'"),
        (["add", "bob", "--scope", "read", "--rate", "0"], "0 is not in the range"),
        (["remove", "bob"], "has no token 'bob': see `hftpipe token list`"),
        (["remove"], "`hftpipe token remove` needs the NAME of a token"),
        (["list", "alice"], "lists all tokens: leave 'alice' away"),
        (["show"], "'show' is not one of 'add', 'list', 'remove'"),
    ],
)
def test_what_cannot_be_done_is_refused(words: list[str], said: str) -> None:
    """With nothing changed."""
    done("add", "alice", "--scope", "read")
    before = Path("tokens.toml").read_bytes()
    assert said in refused("token", *words, "--token-file", "tokens.toml")
    assert Path("tokens.toml").read_bytes() == before


def test_a_token_file_must_be_named_and_be_there() -> None:
    """By an option or its variable; `add` alone makes one."""
    assert "Missing option '--token-file'" in refused("token", "list")
    assert "cannot be read: No such file" in refused("token", "list", "--token-file", "tokens.toml")
    said = refused("token", "remove", "alice", "--token-file", "tokens.toml")
    assert said == "hftpipe: there is no token file tokens.toml\n"
    done("add", "alice", "--scope", "read")
    assert hftpipe("token", "list", **{"HFTPIPE_TOKEN_FILE": "tokens.toml"}).exit_code == 0


def test_every_scope_can_be_given() -> None:
    """The command knows the scopes of the file, and no other."""
    (command,) = (known for known in commands() if known.name == "token")
    (scope,) = (parameter for parameter in command.params if parameter.name == "scopes")
    assert isinstance(scope.type, click.Choice)
    assert list(scope.type.choices) == list(SCOPES)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tcp", "7070"], "--tcp '7070' is not HOST:PORT, as in 127.0.0.1:7070"),
        (["--serve", "--http", "localhost:99999"], "--http 'localhost:99999' has no port from 0 to 65535"),
        (["--serve", "--tcp", "off", "--http", "off"], "both off: nothing would be offered"),
        (["--serve", "--tcp", "0.0.0.0:1"], "0.0.0.0 can be reached from other machines: add --token-file"),
        (["--serve", "--tls-cert", "certificate.pem"], "--tls-cert was given without --tls-key"),
        (["--serve", "--token-file", "tokens.toml"], "the token file tokens.toml cannot be read"),
        (["--serve", "--tls-cert", "certificate.pem", "--tls-key", "key.pem"], "does not belong to the certificate"),
        (["--http", "off"], "--http is an option of the service: add --serve"),
        (["--behind-proxy"], "--behind-proxy is an option of the service: add --serve"),
    ],
)  # fmt: skip
def test_up_refuses_a_service_that_could_not_begin(folder: Path, words: list[str], said: str) -> None:
    """Before anything is started: not by a process that keeps failing."""
    written(folder, key=OTHER_KEY)
    assert said in refused("up", "--home", "books", *words)
    assert not Path("books").exists()


def test_no_secret_is_in_what_is_refused(folder: Path) -> None:
    """A key in place of a token file, and of a certificate."""
    written(folder)
    secret = KEY.splitlines()[1].decode()
    for words in (["--token-file", "key.pem"], ["--tls-cert", "key.pem", "--tls-key", "key.pem"]):
        assert secret not in refused("up", "--home", "books", "--serve", *words)
