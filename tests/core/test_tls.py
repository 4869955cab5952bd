"""TLS of the service: which pairs of files will do, and what is said of the others."""

import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hftpipe.errors import UsageError
from hftpipe.reception.access.tls import server_context
from tests.certificates import CERTIFICATE, ENCRYPTED_KEY, KEY, OTHER_KEY, written


def greeted(server: ssl.SSLContext, client: ssl.SSLContext) -> str:
    """The version that both agree on, and a few bytes through it."""
    theirs, ours = socket.socketpair()
    with ThreadPoolExecutor(1) as pool, theirs, ours:
        theirs.settimeout(10)
        ours.settimeout(10)

        def answer() -> None:
            with server.wrap_socket(theirs, server_side=True) as wrapped:
                wrapped.sendall(wrapped.recv(5))

        answered = pool.submit(answer)
        with client.wrap_socket(ours, server_hostname="localhost") as wrapped:
            wrapped.sendall(b"hello")
            assert wrapped.recv(5) == b"hello"
            version = wrapped.version()
        answered.result()
    return version or ""


def test_a_certificate_and_its_key_make_a_context(tmp_path: Path) -> None:
    """A client that trusts the certificate finds the host that it means, with TLS 1.2 or newer."""
    cert, key = written(tmp_path)
    context = server_context(cert, key)
    client = ssl.create_default_context(cafile=str(cert))
    assert greeted(context, client) == "TLSv1.3"
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    assert greeted(context, client) == "TLSv1.2"
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize(
    ("cert", "key", "mode", "said"),
    [
        (CERTIFICATE, OTHER_KEY, 0o600, "key.pem does not belong to the certificate"),
        (CERTIFICATE, ENCRYPTED_KEY, 0o600, "the key is encrypted: give --tls-key one without a passphrase"),
        (CERTIFICATE, KEY, 0o640, "others can read or write the private key"),
        (CERTIFICATE, KEY, 0o604, "close it with: chmod 600 '"),
        (b"", KEY, 0o600, "are not a certificate and its key in PEM"),
        (KEY, CERTIFICATE, 0o600, "are not a certificate and its key in PEM"),
        (CERTIFICATE, b"", 0o600, "are not a certificate and its key in PEM"),
        (CERTIFICATE, CERTIFICATE, 0o600, "are not a certificate and its key in PEM"),
        (
            b"\xff\x00",
            KEY[:100],
            0o600,
            "--tls-cert takes the certificate with its chain behind it, --tls-key the key",
        ),
    ],
)
def test_a_pair_that_will_not_do_is_refused(
    tmp_path: Path, cert: bytes, key: bytes, mode: int, said: str
) -> None:
    """With the reason, and nothing of the key."""
    paths = written(tmp_path, cert, key, mode)
    with pytest.raises(UsageError) as caught:
        server_context(*paths)
    assert said in str(caught.value)
    secret = KEY.splitlines()[1].decode()
    assert secret not in str(caught.value)
    assert secret not in repr(caught.value.__cause__)


@pytest.mark.parametrize("number", [0, 1])
def test_a_missing_file_is_named(tmp_path: Path, number: int) -> None:
    paths = written(tmp_path)
    paths[number].unlink()
    with pytest.raises(UsageError, match=rf"{paths[number].name} cannot be read: No such file"):
        server_context(*paths)
