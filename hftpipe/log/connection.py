"""Where the log's server is, and how a client of it is made: a connection that repeats and hides nothing.

A client made here does not retry, does not check its health and does not reconnect. redis-py would do all
three by itself: a timed-out XADD sent again is then in the log twice, and a server that restarted without its
tail goes unseen. A client whose connection broke stays broken; `Endpoint.connect` makes the next one, and its
owner knows.
"""

import re
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import SplitResult, parse_qs, urlsplit

import redis
from redis import exceptions
from redis.backoff import NoBackoff
from redis.connection import (
    AbstractConnection,
    Connection,
    ConnectionPool,
    SSLConnection,
    UnixDomainSocketConnection,
    parse_url,
)
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from hftpipe import embedded
from hftpipe.config import ConnectionLimits, ServerLimits
from hftpipe.errors import HftpipeError, LogUnavailable, ServerRefused, UsageError

REDIS_FLOOR: Final = (7, 0)
VALKEY_FLOOR: Final = (7, 2)

REQUIRED_SETTINGS: Final[Mapping[str, str]] = {
    "appendonly": "yes",
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
    "maxmemory-policy": "noeviction",
}
"""Without any one of them the server may lose what it has acknowledged."""


class Endpoint(Protocol):
    """A place where the log's server is or can be started."""

    def connect(self, name: str, *, wait_ms: int = 0) -> "redis.Redis":
        """Make a client that is connected and greeted, for one thread.

        `name` is shown by CLIENT LIST. `wait_ms` is the longest time that a command of this client blocks in
        the server. Replies are bytes, in the shapes of RESP2; errors are those of redis-py, see `translated`.

        Raises LogUnavailable if the server cannot be reached for now, ServerRefused if it does not let us in,
        and UsageError if there is no such place.
        """
        ...


@dataclass(frozen=True, slots=True)
class HomeEndpoint:
    """The private server of a home folder; with `start`, `connect` starts it if it is not running."""

    home: Path
    start: bool = True
    limits: ConnectionLimits = field(default_factory=ConnectionLimits)
    server_limits: ServerLimits = field(default_factory=ServerLimits)

    def __str__(self) -> str:
        return f"the server of {self.home}"

    def connect(self, name: str, *, wait_ms: int = 0) -> "redis.Redis":
        # Inside, because the server may be stopped for want of clients as long as we have no connection.
        with embedded.starting(self.home, limits=self.server_limits, start=self.start) as path:
            options = {"path": str(path), "connection_class": UnixDomainSocketConnection}
            return _greeted(_client(options, name, wait_ms, self.limits), self)


@dataclass(frozen=True, slots=True)
class StandingEndpoint(HomeEndpoint):
    """The private server of a home as it stands: neither started nor waited for."""

    def connect(self, name: str, *, wait_ms: int = 0) -> "redis.Redis":
        options = {
            "path": str(embedded.socket_path(self.home)),
            "connection_class": UnixDomainSocketConnection,
        }
        return _greeted(_client(options, name, wait_ms, self.limits), self)


@dataclass(frozen=True, slots=True)
class UrlEndpoint:
    """A server that others run: redis://, rediss:// (TLS) or unix://. The password is never shown."""

    url: str = field(repr=False)
    limits: ConnectionLimits = field(default_factory=ConnectionLimits)

    def __post_init__(self) -> None:
        _options_of(self.url)

    def __str__(self) -> str:
        return f"the server at {redacted(self.url)}"

    def connect(self, name: str, *, wait_ms: int = 0) -> "redis.Redis":
        return _greeted(_client(_options_of(self.url), name, wait_ms, self.limits), self)


# --- Clients ------------------------------------------------------------------------------------------------


class _OnlyOnce:
    """Greets the server at the first connection and refuses every other."""

    def __init__(self) -> None:
        self._has_connected = False

    def __call__(self, connection: AbstractConnection) -> None:
        if self._has_connected:
            raise exceptions.ConnectionError("the connection was lost")
        connection.on_connect()  # type: ignore[no-untyped-call]  # redis-py leaves it so
        self._has_connected = True


def _client(options: Mapping[str, Any], name: str, wait_ms: int, limits: ConnectionLimits) -> "redis.Redis":
    pinned: dict[str, Any] = {
        "protocol": 2,
        "decode_responses": False,
        "client_name": name,
        # No CLIENT SETINFO: Redis 7.0 has none, not even to permit in a user's rules.
        "driver_info": None,
        "retry": Retry(NoBackoff(), 0),
        "retry_on_error": [],
        "health_check_interval": 0,
        "redis_connect_func": _OnlyOnce(),
        "socket_connect_timeout": limits.connect_ms / 1_000,
        "socket_timeout": (limits.reply_ms + wait_ms) / 1_000,
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
        # One for commands and pipelines alike: what one of them wrote, the next one sees.
        # (`single_connection_client` would give each pipeline a second connection.)
        "max_connections": 1,
    }
    return redis.Redis.from_pool(ConnectionPool(**{**options, **pinned}))


def _greeted(client: "redis.Redis", endpoint: Endpoint) -> "redis.Redis":
    try:
        client.ping()
    except exceptions.RedisError as error:
        client.close()
        raise translate(error, str(endpoint)) from error
    except BaseException:
        client.close()
        raise
    return client


# --- Addresses ----------------------------------------------------------------------------------------------

_URL_ADVICE: Final = (
    "write redis://[user:password@]host[:port][/database], rediss://… for TLS, "
    "or unix://[user:password@]/path; "
    "percent-encode what is special in a password (`/` is %2F, `@` is %40, `#` is %23, `?` is %3F)"
)

_URL_OPTIONS: Final = frozenset(
    {
        "db",
        "username",
        "password",
        "ssl_ca_certs",
        "ssl_ca_path",
        "ssl_certfile",
        "ssl_keyfile",
        "ssl_password",
    }
)
"""Others could switch on what must stay off (retries, another protocol) or TLS's checks off."""

_URL_FILES: Final = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")

_CONNECTIONS: Final[Mapping[str, Callable[..., AbstractConnection]]] = {
    "redis": Connection,
    "rediss": SSLConnection,
    "unix": UnixDomainSocketConnection,
}


def _options_of(url: str) -> dict[str, Any]:
    """What a URL says, in redis-py's words; UsageError, with no word of the URL, if it cannot be used."""
    try:
        parts = urlsplit(url)
        problem = _problem_of(parts)
        options: dict[str, Any] = {} if problem else dict(parse_url(url))  # type: ignore[no-untyped-call]
    except ValueError:
        # Its text would repeat what it could not read, which may be half of a password.
        problem, options = "it cannot be read", {}
    if problem:
        raise UsageError(f"the Redis URL cannot be used: {problem}; {_URL_ADVICE}")
    return {**options, "connection_class": _CONNECTIONS[parts.scheme]}


def _problem_of(parts: SplitResult) -> str | None:
    is_unix = parts.scheme == "unix"
    database = parts.path.removeprefix("/")
    options = parse_qs(parts.query, keep_blank_values=True)
    checks = (
        (parts.scheme in _CONNECTIONS, "it does not begin with redis://, rediss:// or unix://"),
        (not parts.fragment, "there is a `#` in it"),
        (not is_unix or not parts.hostname, "the path must be absolute, as in unix:///run/redis.sock"),
        (not is_unix or database, "it names no socket"),
        (is_unix or parts.hostname, "it names no host"),
        (is_unix or parts.port != 0, "its port is 0"),
        (
            is_unix or re.fullmatch("[0-9]*", database),
            "after the host only the number of a database may follow",
        ),
        (_URL_OPTIONS.issuperset(options), f"of options it may only have {', '.join(sorted(_URL_OPTIONS))}"),
        *(
            (
                all(Path(path).exists() for path in options.get(name, ())),
                f"the file of its {name} is not there",
            )
            for name in _URL_FILES
        ),
    )
    return next((problem for is_right, problem in checks if not is_right), None)


def redacted(url: str) -> str:
    """A usable URL without its password and options, for people."""
    parts = urlsplit(url)
    user = (
        f"{parts.username or ''}:***@" if parts.password else f"{parts.username}@" if parts.username else ""
    )
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{user}{host}{port}{parts.path}"


# --- Errors -------------------------------------------------------------------------------------------------

_PASSING_CODES: Final = frozenset(
    {
        "OOM",
        "MISCONF",
        "READONLY",
        "LOADING",
        "BUSY",
        "CLUSTERDOWN",
        "TRYAGAIN",
        "MASTERDOWN",
        "NOREPLICAS",
        "UNBLOCKED",
    }
)
_REFUSING_CODES: Final = frozenset({"NOAUTH", "WRONGPASS", "NOPERM", "DENIED"})

_ADVICE: Final[Mapping[str, str]] = {
    "OOM": "it is full; workers make room by trimming what they applied, or raise maxmemory",
    "MISCONF": "it cannot write to its disk; see its log",
    "READONLY": "it is a replica; the address must be that of the primary",
    "MOVED": "it is part of a cluster, which needs a client of another kind; use a server of its own",
    "ASK": "it is part of a cluster, which needs a client of another kind; use a server of its own",
}


@contextmanager
def translated(place: object = "the log's server") -> Iterator[None]:
    """Turn redis-py's errors within the body into ours, once, naming the place."""
    try:
        yield
    except exceptions.RedisError as error:
        raise translate(error, str(place)) from error


def translate(error: exceptions.RedisError, place: str = "the log's server") -> HftpipeError:
    """Our error for one of redis-py's.

    LogUnavailable where waiting may help, and whether the command took effect is unknown; ServerRefused where
    the server does not let us in or do it; a plain HftpipeError for what should not happen.
    """
    code = _code_of(error)
    text = str(error).rstrip(".")
    told = f"{place}: {code + ' ' if code and not text.startswith(code) else ''}{text}"
    if code in _ADVICE:
        told = f"{told}; {_ADVICE[code]}"
    if isinstance(error, exceptions.MaxConnectionsError):
        return HftpipeError(f"{told}; one client was used by two threads at once")
    if _is_refusal(error, code):
        return ServerRefused(
            f"{told}; check address, user, password, certificates and the user's rules (redis.conf)"
        )
    if isinstance(error, exceptions.ConnectionError | exceptions.TimeoutError) or code in _PASSING_CODES:
        return LogUnavailable(told)
    return HftpipeError(told)


def _code_of(error: exceptions.RedisError) -> str:
    """The first word of the server's reply if it is a code: redis-py cuts some off and leaves others."""
    if error.status_code:
        return error.status_code
    word = str(error).partition(" ")[0]
    return word if isinstance(error, exceptions.ResponseError) and word.isascii() and word.isupper() else ""


def _is_refusal(error: exceptions.RedisError, code: str) -> bool:
    kinds = (exceptions.AuthenticationError, exceptions.AuthorizationError, exceptions.NoPermissionError)
    if isinstance(error, kinds) or code in _REFUSING_CODES or "DB index is out of range" in str(error):
        return True
    # A certificate does not become valid by waiting. redis-py keeps the reason only as the context of its own
    # error.
    return isinstance(error.__context__, ssl.SSLCertVerificationError | PermissionError)


# --- What the server must be --------------------------------------------------------------------------------


def check_server(client: "redis.Redis", *, trust: bool) -> None:
    """Refuse a server that may lose what it has acknowledged.

    Raises ServerRefused naming the version or every wrong setting, with what mends it. With `trust` the
    operator answers for the settings: only the version is checked, and that only where INFO is permitted.
    """
    too_old = version_problem(_server_section(client, trust=trust))
    if too_old is not None:
        raise ServerRefused(too_old)
    if trust:
        return
    wrong = settings_problems(_settings(client))
    if wrong:
        lines = "\n".join(f"  {line}" for line in wrong)
        raise ServerRefused(
            f"the server may lose acknowledged transactions:\n{lines}\n"
            "set this in its configuration too, or take over redis.conf. If the server cannot tell the truth "
            "about its settings, and you know that they are right: --trust-server"
        )


def _server_section(client: "redis.Redis", *, trust: bool) -> Mapping[str, object]:
    try:
        with translated():
            section: Mapping[str, object] = client.info("server")
    except ServerRefused as error:
        if trust:
            return {}
        raise ServerRefused(f"{error}; permit INFO (+info), or use --trust-server to do without") from error
    return section


def _settings(client: "redis.Redis") -> Mapping[str, str]:
    try:
        reply = client.config_get(*REQUIRED_SETTINGS)
    except exceptions.ResponseError as error:
        needed = ", ".join(f"{name} is {value}" for name, value in REQUIRED_SETTINGS.items())
        raise ServerRefused(
            f"the server does not tell its settings ({error}); permit CONFIG GET (+config|get), "
            f"or make sure that {needed} and use --trust-server"
        ) from error
    except exceptions.RedisError as error:
        raise translate(error) from error
    return {_text(name): _text(value) for name, value in reply.items()}


def _text(word: object) -> str:
    return word.decode(errors="replace") if isinstance(word, bytes) else str(word)


def settings_problems(settings: Mapping[str, str]) -> list[str]:
    """One line for each setting that is wrong or unknown, with the command that mends it."""
    return [
        f"{name} is {settings.get(name, 'unknown')}, must be {value}: CONFIG SET {name} {value}"
        for name, value in REQUIRED_SETTINGS.items()
        if settings.get(name) != value
    ]


def version_problem(section: Mapping[str, object]) -> str | None:
    """Why a server with this INFO section is too old, or None (also if it tells no version)."""
    # Valkey also tells a `redis_version`, that of the Redis it came from.
    if "valkey_version" in section:
        name, told, floor = "Valkey", str(section["valkey_version"]), VALKEY_FLOOR
    elif "redis_version" in section:
        name, told, floor = "Redis", str(section["redis_version"]), REDIS_FLOOR
    else:
        return None
    if _version(told) >= floor:
        return None
    at_least = f"{name} {'.'.join(map(str, floor))}"
    return (
        f"the server is {name} {told}, which cannot number the log's entries; it must be {at_least} or newer"
    )


def _version(told: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isascii() and part.isdigit() else 0 for part in told.split("."))
