"""TLS of the reception service: a context from two files, and why they will not do."""

import ssl
from pathlib import Path

from hftpipe.errors import UsageError
from hftpipe.reception.access.private_file import read_private

_ENCRYPTED = "the key is encrypted"


def server_context(cert: Path, key: Path) -> ssl.SSLContext:
    """TLS 1.2 or newer with the certificate chain and the private key of two PEM files.

    Raises UsageError when one is missing, unreadable, no PEM, encrypted or open to others, or when they do not
    belong together. No part of the key is in any message.
    """
    _require_readable(cert)
    # Looked at before OpenSSL reads it: a key that others could copy is no secret any more.
    read_private(key, "the private key")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    try:
        context.load_cert_chain(cert, key, password=_refuse_password)
    except ssl.SSLError as error:
        raise UsageError(_reason(cert, key, error)) from None
    except OSError as error:
        raise UsageError(f"{cert} and {key} cannot be used for TLS: {error.strerror}") from None
    return context


def _reason(cert: Path, key: Path, error: ssl.SSLError) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"the private key {key} does not belong to the certificate {cert}: give the pair that was made together"
    return (
        f"{cert} and {key} are not a certificate and its key in PEM ({error.reason or 'unreadable'}): "
        "--tls-cert takes the certificate with its chain behind it, --tls-key the key"
    )


def _refuse_password() -> str:
    # Without this OpenSSL would ask at the terminal, and a service would hang.
    raise UsageError(f"{_ENCRYPTED}: give --tls-key one without a passphrase, in a file with mode 0600")


def _require_readable(cert: Path) -> None:
    try:
        with cert.open("rb"):
            pass
    except OSError as error:
        raise UsageError(f"the certificate {cert} cannot be read: {error.strerror}") from error
