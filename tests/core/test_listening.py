"""Addresses of the service, and who could reach them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftpipe.errors import UsageError
from hftpipe.reception.listening import Address, Listening, parse_address, require_safe

FILE = Path("tokens.toml")


def known(**names: list[str]) -> Callable[[str], list[str]]:
    """A directory of names."""

    def resolve(name: str) -> list[str]:
        if name not in names:
            raise OSError("Name or service not known")
        return names[name]

    return resolve


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:7070", Address("127.0.0.1", 7070)),
        (" localhost:0 ", Address("localhost", 0)),
        ("[::1]:65535", Address("::1", 65535)),
        ("[fe80::1%eth0]:1", Address("fe80::1%eth0", 1)),
        ("books.example.org:443", Address("books.example.org", 443)),
        ("off", None),
        ("OFF", None),
    ],
)
def test_an_address_is_host_and_port(text: str, address: Address | None) -> None:
    """Or `off`."""
    assert parse_address("--tcp", text) == address


@pytest.mark.parametrize(
    "text",
    [
        "", ":7070", "7070", "localhost", "::1:7070", "[::1]", "[::1]7070", "[localhost]:1", "[]:1", "[::1:1", "a b:1",
        "http://a:1", "a@b:1", "ä:1", "x" * 254 + ":1", "a\0:1", "a:",
        "a:x", "a:-1", "a:65536", "a:1.5", "a:٣", "a:000001",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused_by_name(text: str) -> None:
    """With the option, and an example or the range."""
    with pytest.raises(UsageError, match=r"--http .* (as in 127\.0\.0\.1:7070|from 0 to 65535)"):
        parse_address("--http", text)


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    """And an address is written as it is read."""
    try:
        address = parse_address("--tcp", text)
    except UsageError:
        return
    assert address is None or parse_address("--tcp", str(address)) == address


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1", "localhost", "/run/books.sock", "unix:books"],
)
def test_this_machines_own_programs_may_always_come_in(host: str) -> None:
    resolve = known(localhost=["127.0.0.1", "::1"])
    require_safe(host, has_tokens=False, has_tls=False, behind_proxy=False, resolve=resolve)


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "::", "10.0.0.1", "192.168.1.5", "fe80::1%eth0", "::ffff:10.0.0.1", "books", "both", "none"],  # noqa: S104
)  # fmt: skip
def test_others_need_tokens_and_tls(host: str) -> None:
    """Or a proxy that does the TLS. A name that means another machine's address as well is another machine's."""
    resolve = known(books=["10.1.2.3"], both=["127.0.0.1", "10.1.2.3"], none=[])

    def check(tokens: bool, tls: bool, proxy: bool) -> str:
        try:
            require_safe(host, has_tokens=tokens, has_tls=tls, behind_proxy=proxy, resolve=resolve)
        except UsageError as error:
            return str(error)
        return ""

    for tls, proxy in ((True, False), (False, True), (True, True)):
        assert not check(True, tls, proxy)
        assert "--token-file" in check(False, tls, proxy)
        assert "--tls-cert" not in check(False, tls, proxy)
    assert "--token-file" not in check(True, False, False)
    assert "--tls-cert FILE --tls-key FILE (or --behind-proxy" in check(True, False, False)
    assert check(False, False, False).startswith(
        f"{host} can be reached from other machines: add --token-file"
    )


def test_a_name_that_nobody_knows_is_refused() -> None:
    with pytest.raises(
        UsageError, match="nowhere is no address and no known name: Name or service not known"
    ):
        require_safe("nowhere", has_tokens=True, has_tls=True, behind_proxy=False, resolve=known())


@pytest.mark.parametrize(
    ("listening", "said"),
    [
        (Listening(tcp=None, http=None), "--tcp and --http are both off"),
        (Listening(http=Address("127.0.0.1", 7070)), "--tcp and --http are both 127.0.0.1:7070"),
        (Listening(tls_cert=FILE), "--tls-cert was given without --tls-key"),
        (Listening(tls_key=FILE), "--tls-key was given without --tls-cert"),
        (Listening(tcp=Address("0.0.0.0", 1)), "0.0.0.0 can be reached"),  # noqa: S104
        (
            Listening(http=Address("::", 1), token_file=FILE),
            ":: can be reached from other machines: add --tls-cert",
        ),
    ],
)
def test_options_that_contradict_each_other_are_refused(listening: Listening, said: str) -> None:
    """Before anything is opened."""
    with pytest.raises(UsageError) as caught:
        listening.require_consistent()
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "listening",
    [
        Listening(),
        Listening(tcp=None, http=Address("::1", 0)),
        Listening(tcp=Address("127.0.0.1", 0), http=Address("127.0.0.1", 0)),
        Listening(tcp=Address("0.0.0.0", 1), token_file=FILE, behind_proxy=True),  # noqa: S104
        Listening(http=None, tcp=Address("::", 1), token_file=FILE, tls_cert=FILE, tls_key=FILE),
    ],
)
def test_what_is_safe_may_be_and_reaches_another_process_by_variables(listening: Listening) -> None:
    listening.require_consistent()
    variables = listening.environment()
    assert parse_address("--tcp", variables["HFTPIPE_TCP"]) == listening.tcp
    assert parse_address("--http", variables["HFTPIPE_HTTP"]) == listening.http
    for name, path in (
        ("TOKEN_FILE", listening.token_file),
        ("TLS_CERT", listening.tls_cert),
        ("TLS_KEY", listening.tls_key),
    ):
        assert variables[f"HFTPIPE_{name}"] == str(path or "")
    assert variables["HFTPIPE_BEHIND_PROXY"] == "1" * listening.behind_proxy
    assert (listening.tls_files is None) == (listening.tls_cert is None)
