"""Options that several commands share. Each is also an HFTPIPE_… variable and a key of hftpipe.toml."""

import os
import re
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hftpipe.config import SHARDS_MAX

if TYPE_CHECKING:
    from hftpipe.moments import Moment
    from hftpipe.retention.setting import Retention
    from hftpipe.wiring.pipeline import Place

Command = TypeVar("Command", bound=Callable[..., object])


def option(*declarations: str, **attributes: Any) -> Callable[[Command], Command]:
    """A click option that `HFTPIPE_<NAME>` sets too."""
    name = next(text for text in declarations if text.startswith("--")).removeprefix("--")
    variable = f"HFTPIPE_{name.upper().replace('-', '_')}"
    return click.option(*declarations, **{"envvar": variable, "show_envvar": True, **attributes})


RENAMED = {"retain-entries": "retain"}
"""Options that had another name: one that is set by that must not be passed over."""

_SHARD_RANGE = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")


class ShardList(click.ParamType[list[int], str]):
    """`0-3`, `0,2`, `1`: numbers of shards."""

    name = "shards"

    def convert(
        self, value: str | list[int], param: click.Parameter | None, ctx: click.Context | None
    ) -> list[int]:
        # A list comes from hftpipe.toml, and is checked as text is.
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        shards: list[int] = []
        for part in text.split(","):
            found = _SHARD_RANGE.fullmatch(part.strip())
            if found is None:
                self.fail(f"{value!r} is not like 0-3 or 0,2", param, ctx)
            first, last = int(found[1]), int(found[2] or found[1])
            if not first <= last < SHARDS_MAX:
                self.fail(f"{value!r} must rise, and stay below {SHARDS_MAX}", param, ctx)
            shards += range(first, last + 1)
        return shards


class MomentType(click.ParamType["Moment", str]):
    """`3/1-1042`, `1-1042`, an ISO 8601 time, or Unix seconds or milliseconds: see `hftpipe.moments`."""

    name = "moment"

    def __init__(self, *, is_address: bool = False) -> None:
        """is_address: no time will do."""
        self._is_address = is_address

    def convert(
        self, value: "str | Moment", param: click.Parameter | None, ctx: click.Context | None
    ) -> "Moment":
        from hftpipe.moments import parse_address, parse_moment

        try:
            return (parse_address if self._is_address else parse_moment)(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class RetentionType(click.ParamType["Retention", str]):
    """`1000`, `24h`, `500MB`, several with commas, or `all`: see `hftpipe.retention.setting`."""

    name = "retention"

    def convert(
        self, value: "str | int | Retention", param: click.Parameter | None, ctx: click.Context | None
    ) -> "Retention":
        from hftpipe.retention.setting import parse_retention

        try:
            return parse_retention(str(value))  # a number comes from hftpipe.toml
        except ValueError as error:
            self.fail(str(error), param, ctx)


def chosen_shards_options(command: str) -> Callable[[Callable[..., object]], Callable[..., object]]:
    """--shard and --shards of a command of that name, handed on as `chosen`: ascending, empty for all."""

    def decorate(function: Callable[..., object]) -> Callable[..., object]:
        @option(
            "--shard",
            "single",
            type=click.IntRange(0, SHARDS_MAX - 1),
            multiple=True,
            help="A shard; may be repeated.",
        )
        @option(
            "--shards",
            "several",
            type=ShardList(),
            envvar=f"HFTPIPE_{command.upper()}_SHARDS",  # HFTPIPE_SHARDS is the number of shards of a pipeline
            help="Shards as 0-3 or 0,2.",
        )
        @wraps(function)
        def with_chosen(*, single: tuple[int, ...], several: list[int] | None, **rest: object) -> object:
            return function(chosen=sorted({*single, *(several or ())}), **rest)

        return with_chosen

    return decorate


def home_option(function: Command) -> Command:
    """--home alone, for commands that need no server of others."""
    return option(
        "--home",
        type=click.Path(file_okay=False, path_type=Path),
        help="Folder of the pipeline: its stores, and its private server's data.",
    )(function)


def place_options(function: Callable[..., object]) -> Callable[..., object]:
    """--home, --redis-url, --prefix, --trust-server, handed on as one `place`."""

    @lazy_place_options
    @wraps(function)
    def with_place(*, home: Path, open_place: "Callable[[], Place]", **rest: object) -> object:  # noqa: ARG001
        return function(place=open_place(), **rest)

    return with_place


def lazy_place_options(function: Callable[..., object]) -> Callable[..., object]:
    """The same, handed on as `home` and as `open_place`: for commands that seldom need more than the home.

    What a place is made of takes longer to import than such a command takes.
    """

    @home_option
    @option(
        "--redis-url", default="", help="Use this server (redis://, rediss://, unix://), not a private one."
    )
    @option("--prefix", default="hft", show_default=True, help="First part of every key of the pipeline.")
    @option("--trust-server", is_flag=True, help="Do not check the server's settings for durability.")
    @wraps(function)
    def with_home(
        *, home: Path | None, redis_url: str, prefix: str, trust_server: bool, **rest: object
    ) -> object:
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", prefix):
            raise click.BadParameter("letters, digits, _ . - only, 64 at most", param_hint="--prefix")
        folder = home.absolute() if home is not None else default_home()

        def open_place() -> "Place":
            from hftpipe.wiring.pipeline import Place

            return Place(folder, redis_url, prefix, trust_server=trust_server, is_default=home is None)

        return function(home=folder, open_place=open_place, **rest)

    return with_home


def default_home() -> Path:
    """Where a user's data belongs on this system."""
    from platformdirs import user_data_path

    return user_data_path("hftpipe", appauthor=False)


def shards_option(function: Command) -> Command:
    """--shards, for commands that may begin a pipeline."""
    return option(
        "--shards",
        type=click.IntRange(1, SHARDS_MAX),
        help="How many shards a new pipeline gets (4 by default); an old one keeps its number.",
    )(function)


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def workers_option(function: Command) -> Command:
    """--workers."""
    return option(
        "--workers",
        type=click.IntRange(1, 1024),
        default=min(cores(), 1024),
        show_default="one a core",
        help="Worker processes; the shards are dealt out to them.",
    )(function)


def format_option(default: str) -> Callable[[Command], Command]:
    """--format, with the command's own default."""
    return option(
        "--format",
        "format_",
        type=click.Choice(["table", "csv", "json"]),
        default=default,
        show_default=True,
        help="How results are written.",
    )


def rounding_option(function: Command) -> Command:
    """--rounding."""
    return option(
        "--rounding",
        type=click.Choice(["reject", "half-even"]),
        default="reject",
        show_default=True,
        help="What happens to an amount with more than four decimals.",
    )(function)


def invalid_options(function: Command) -> Command:
    """--invalid and --strict."""
    function = option(
        "--strict",
        is_flag=True,
        help="Exit with 3 when a row is invalid; all others are processed all the same.",
    )(function)
    return option(
        "--invalid",
        type=click.Path(dir_okay=False, path_type=Path),
        help="CSV file that takes every invalid row with line and reason.",
    )(function)


def worker_limit_options(function: Callable[..., object]) -> Callable[..., object]:
    """--lease-ms and --retain, handed on as `limits`."""
    from hftpipe.config import WorkerLimits

    defaults = WorkerLimits()

    @option(
        "--lease-ms",
        type=click.IntRange(min=100),
        default=defaults.lease_ms,
        show_default=True,
        help="A worker that has stood still so long may be replaced; a large commit takes up to a second.",
    )
    @option(
        "--retain",
        type=RetentionType(),
        default=str(defaults.retain),
        show_default=True,
        help="What stays of the applied entries in each shard's log: 1000, 24h, 500MB, several with commas, or all.",
    )
    @wraps(function)
    def with_limits(*, lease_ms: int, retain: "Retention", **rest: object) -> object:
        _refuse_renamed()
        beat_ms = min(defaults.beat_ms, lease_ms // 4)
        wait_ms = min(defaults.read_wait_ms, beat_ms)
        limits = WorkerLimits(
            lease_ms=lease_ms,
            retain=retain,
            beat_ms=beat_ms,
            read_wait_ms=wait_ms,
            gather_ms=min(defaults.gather_ms, beat_ms),
            commit_interval_ms=min(defaults.commit_interval_ms, beat_ms),
        )
        return function(limits=limits, **rest)

    return with_limits


def _refuse_renamed() -> None:
    """Raises UsageError for a variable that had another name: what it was to keep would be trimmed."""
    from hftpipe.errors import UsageError

    for old, new in RENAMED.items():
        variable, renamed = (f"HFTPIPE_{name.upper().replace('-', '_')}" for name in (old, new))
        if value := os.environ.get(variable):
            raise UsageError(f"{variable} is now {renamed} (--{new}): it takes {value}, too")


def serve_options(function: Callable[..., object]) -> Callable[..., object]:
    """--tcp, --http, --token-file, --tls-cert, --tls-key, --behind-proxy, handed on as one `listening`."""
    path = click.Path(dir_okay=False, path_type=Path)

    @option(
        "--tcp",
        default="127.0.0.1:7070",
        show_default=True,
        metavar="HOST:PORT|off",
        help="Where transactions are taken over TCP; port 0 is any free one.",
    )
    @option(
        "--http",
        default="127.0.0.1:8080",
        show_default=True,
        metavar="HOST:PORT|off",
        help="Where transactions are taken, and questions answered, over HTTP.",
    )
    @option(
        "--token-file",
        type=path,
        help="Let in only who has a token of this file: see `hftpipe token --help`.",
    )
    @option("--tls-cert", type=path, help="PEM file with the certificate and its chain: TLS on both ports.")
    @option("--tls-key", type=path, help="PEM file with its private key, closed to others.")
    @option(
        "--behind-proxy", is_flag=True, help="What comes from elsewhere comes through a proxy that does TLS."
    )
    @wraps(function)
    def with_listening(
        *,
        tcp: str,
        http: str,
        token_file: Path | None,
        tls_cert: Path | None,
        tls_key: Path | None,
        behind_proxy: bool,
        **rest: object,
    ) -> object:
        from hftpipe.reception.listening import Listening, parse_address

        listening = Listening(
            tcp=parse_address("--tcp", tcp),
            http=parse_address("--http", http),
            token_file=token_file,
            tls_cert=tls_cert,
            tls_key=tls_key,
            behind_proxy=behind_proxy,
        )
        return function(listening=listening, **rest)

    return with_listening
