"""Where the reception service listens, and whom it may let in there: parsed from options, and checked as a whole."""

import os
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Final

from hftpipe.errors import UsageError

OFF: Final = "off"
"""In place of an address: this transport is not offered."""

_HOST_CHARACTERS_MAX: Final = 253
_SHOWN_MAX: Final = 80

Resolve = Callable[[str], Iterable[str]]
"""The addresses of a name; raises OSError when it has none."""


@dataclass(frozen=True, slots=True)
class Address:
    """A host, by number or name, and a port; port 0 is any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


TCP_DEFAULT: Final = Address("127.0.0.1", 7070)
HTTP_DEFAULT: Final = Address("127.0.0.1", 8080)


@dataclass(frozen=True, slots=True)
class Listening:
    """What `hftpipe serve` was told about its addresses and its doors.

    tcp, http: None where that transport is off. token_file: None where everybody may do everything.
    behind_proxy: what comes from elsewhere comes through a proxy that does the TLS.
    """

    tcp: Address | None = TCP_DEFAULT
    http: Address | None = HTTP_DEFAULT
    token_file: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    behind_proxy: bool = False

    @property
    def tls_files(self) -> tuple[Path, Path] | None:
        """Certificate and key; None without TLS."""
        if self.tls_cert is None or self.tls_key is None:
            return None
        return self.tls_cert, self.tls_key

    def require_consistent(self, resolve: Resolve | None = None) -> None:
        """Raises UsageError when nothing is offered, options contradict each other, or strangers could walk in."""
        addresses = [address for address in (self.tcp, self.http) if address is not None]
        if not addresses:
            raise UsageError(
                "--tcp and --http are both off: nothing would be offered. Give one of them an address"
            )
        if self.tcp == self.http and addresses[0].port:
            raise UsageError(f"--tcp and --http are both {self.tcp}: give each a port of its own")
        if (self.tls_cert is None) != (self.tls_key is None):
            given, missing = (
                ("--tls-key", "--tls-cert") if self.tls_cert is None else ("--tls-cert", "--tls-key")
            )
            raise UsageError(f"{given} was given without {missing}: TLS needs both")
        for address in addresses:
            require_safe(
                address.host,
                has_tokens=self.token_file is not None,
                has_tls=self.tls_files is not None,
                behind_proxy=self.behind_proxy,
                resolve=resolve,
            )

    def environment(self) -> dict[str, str]:
        """The same as HFTPIPE_… variables, for a process that is to listen so."""
        return {
            "HFTPIPE_TCP": _shown(self.tcp),
            "HFTPIPE_HTTP": _shown(self.http),
            "HFTPIPE_TOKEN_FILE": _path_text(self.token_file),
            "HFTPIPE_TLS_CERT": _path_text(self.tls_cert),
            "HFTPIPE_TLS_KEY": _path_text(self.tls_key),
            "HFTPIPE_BEHIND_PROXY": "1" if self.behind_proxy else "",
        }


def parse_address(option: str, text: str) -> Address | None:
    """`127.0.0.1:7070`, `[::1]:7070`, `name:0`; None for `off`. Raises UsageError that names the option."""
    if text.strip().lower() == OFF:
        return None
    host, colon, port = text.strip().rpartition(":")
    is_bracketed = host.startswith("[") and host.endswith("]")
    name = host[1:-1] if is_bracketed else host
    if not colon or not name or is_bracketed != (":" in name) or not _is_host(name):
        raise UsageError(
            f"{option} {text[:_SHOWN_MAX]!r} is not HOST:PORT, as in 127.0.0.1:7070, 0.0.0.0:7070 (all of this "
            f"machine's addresses), [::1]:7070, or {OFF}"
        )
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and int(port) <= 65_535):
        raise UsageError(
            f"{option} {text[:_SHOWN_MAX]!r} has no port from 0 to 65535 behind its colon; 0 is any free one"
        )
    return Address(name, int(port))


def require_safe(
    host: str, *, has_tokens: bool, has_tls: bool, behind_proxy: bool, resolve: Resolve | None = None
) -> None:
    """Raises UsageError when strangers could reach an address without a token, or listen in.

    This machine's own programs may always come in: 127.0.0.0/8, ::1, names that mean nothing else, unix sockets.
    resolve: of names; the system's own by default.
    """
    if is_own(host, resolve or _resolved):
        return
    missing = []
    if not has_tokens:
        missing.append("--token-file FILE (made by `hftpipe token add`)")
    if not has_tls and not behind_proxy:
        missing.append(
            "--tls-cert FILE --tls-key FILE (or --behind-proxy, where a proxy in front does the TLS)"
        )
    if missing:
        raise UsageError(f"{host} can be reached from other machines: add {' and '.join(missing)}")


def is_own(host: str, resolve: Resolve) -> bool:
    """Whether only programs of this machine can reach it. Raises UsageError for a name without addresses."""
    if host.startswith(("/", "unix:")):
        return True
    try:
        return _is_loopback(host)
    except ValueError:
        pass  # a name
    try:
        addresses = list(resolve(host))
    except (OSError, UnicodeError) as error:
        raise UsageError(
            f"{host} is no address and no known name: {error}. Give an address by number"
        ) from error
    return bool(addresses) and all(map(_is_loopback, addresses))


def _is_loopback(number: str) -> bool:
    address = ip_address(number)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback


def _resolved(name: str) -> list[str]:
    return [str(found[4][0]) for found in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)]


def _is_host(name: str) -> bool:
    return (
        len(name) <= _HOST_CHARACTERS_MAX
        and name.isascii()
        and name.isprintable()
        and not set(name) & set(" /[]@\\'\"")
    )


def _shown(address: Address | None) -> str:
    return OFF if address is None else str(address)


def _path_text(path: Path | None) -> str:
    return "" if path is None else os.fspath(path)
