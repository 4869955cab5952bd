"""`hftpipe`: the group of commands, its settings file, and how errors end the program."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from hftpipe import __version__
from hftpipe.cli.commands import NAMES, command, commands
from hftpipe.cli.options import RENAMED
from hftpipe.errors import HftpipeError, UsageError

SETTINGS_FILE = "hftpipe.toml"


class _Commands(click.Group):
    """Ends with a line for people, never with a traceback, when the program itself says what is wrong."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return sorted(NAMES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        return command(cmd_name) if cmd_name in NAMES else None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except HftpipeError as error:
            _say_failure(f"hftpipe: {error}", error)
            ctx.exit(error.exit_code)
        except BrokenPipeError:
            # The reader of stdout has gone; nothing more can be said to it, not even at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(1)
        except OSError as error:
            # A full disk, a folder without permission, too many open files: named by the system.
            told = f"hftpipe: {error}. Nothing is half-done: mend it and run the same command again"
            _say_failure(told, error)
            ctx.exit(1)


def _say_failure(told: str, error: Exception) -> None:
    from hftpipe.cli.output import say
    from hftpipe.event import Event, Level

    say(Event("command_failed", told, Level.ERROR, error=type(error).__name__))


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="hftpipe")
@click.option(
    "--config",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    envvar="HFTPIPE_CONFIG",
    show_envvar=True,
    help=f"Settings file; {SETTINGS_FILE} of this folder when there is one.",
)
@click.pass_context
def main(ctx: click.Context, config: Path | None) -> None:
    """Account transactions through sharded Redis Streams into SQLite: ordered per account, exactly once.

    \b
    Examples:
      hftpipe run transactions.csv         the whole job once: balances on stdout
      hftpipe ingest transactions.csv      append to the log; returns when all is durable
      hftpipe worker --shard 3             apply the log of one shard
      hftpipe up --serve                   server, workers, TCP and HTTP, until Ctrl-C
      hftpipe top                          how it runs, live
      hftpipe show account 42              what happened to it, and why
      hftpipe replay --step                walk through what was decided
      hftpipe verify                       prove every table
    """
    os.umask(0o077)
    # numpy would start a thread a core for linear algebra, of which there is none: a third of its time to start.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    path = config if config is not None else Path(SETTINGS_FILE)
    if config is not None or path.is_file():
        ctx.default_map = _settings(path)


def _settings(path: Path) -> dict[str, dict[str, Any]]:
    """Keys at the top stand for the variables HFTPIPE_…, of every command; a table `[run]` for one's options."""
    import tomllib  # most often there is no such file

    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path} cannot be read as settings: {error}") from error
    tables = {name: value for name, value in content.items() if isinstance(value, dict)}
    common = {name: value for name, value in content.items() if name not in tables}
    known = {each.name or "": each for each in commands()}
    if unknown := sorted(tables.keys() - known.keys()):
        raise UsageError(f"{path} has a table [{unknown[0]}]; there is no such command")
    for old in RENAMED.keys() & set(common).union(*tables.values()):
        raise UsageError(f"{path} sets {old}, which is now {RENAMED[old]} (--{RENAMED[old]})")
    if unknown := sorted(common.keys() - set().union(*map(_variables, known.values()))):
        raise UsageError(f"{path} sets {unknown[0]}; no command has such an option")
    for name, keys in tables.items():
        if unknown := sorted(keys.keys() - _options(known[name])):
            raise UsageError(f"{path} sets {unknown[0]} in [{name}]; there is no such option")
    return {
        name: _named(common, _variables(command)) | _named(tables.get(name, {}), _options(command))
        for name, command in known.items()
    }


def _named(values: Mapping[str, Any], parameters: Mapping[str, str]) -> dict[str, Any]:
    return {parameters[key]: value for key, value in values.items() if key in parameters}


def _options(command: click.Command) -> dict[str, str]:
    """Option as written (`redis-url`) → parameter (`redis_url`)."""
    return {_long(option): option.name or "" for option in _options_of(command)}


def _variables(command: click.Command) -> dict[str, str]:
    """Variable as a key (`redis-url` for HFTPIPE_REDIS_URL) → parameter."""
    return {
        str(option.envvar).removeprefix("HFTPIPE_").lower().replace("_", "-"): option.name or ""
        for option in _options_of(command)
    }


def _options_of(command: click.Command) -> list[click.Option]:
    return [parameter for parameter in command.params if isinstance(parameter, click.Option)]


def _long(option: click.Option) -> str:
    return next(text for text in option.opts if text.startswith("--")).removeprefix("--")
