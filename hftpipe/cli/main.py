"""`hftpipe`: the group of commands, its settings file, and how errors end the program."""

import os
import sys
import tomllib
from pathlib import Path
from typing import Any

import click

from hftpipe import __version__
from hftpipe.cli.balances import balances
from hftpipe.cli.generate import generate
from hftpipe.cli.ingest import ingest
from hftpipe.cli.redis import redis
from hftpipe.cli.run import run
from hftpipe.cli.status import status
from hftpipe.cli.up import up
from hftpipe.cli.worker import worker
from hftpipe.errors import HftpipeError, UsageError

SETTINGS_FILE = "hftpipe.toml"


class _Commands(click.Group):
    """Ends with a line for people, never with a traceback, when the program itself says what is wrong."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except HftpipeError as error:
            click.echo(f"hftpipe: {error}", err=True)
            ctx.exit(error.exit_code)
        except BrokenPipeError:
            # The reader of stdout has gone; nothing more can be said to it, not even at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(1)


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
      hftpipe up                           server and workers, until Ctrl-C
    """
    os.umask(0o077)
    path = config if config is not None else Path(SETTINGS_FILE)
    if config is not None or path.is_file():
        ctx.default_map = _settings(path)


COMMANDS = (run, ingest, worker, up, balances, status, generate, redis)
for command in COMMANDS:
    main.add_command(command)


def _settings(path: Path) -> dict[str, dict[str, Any]]:
    """Keys at the top are for every command that has such an option, tables `[run]` for one command."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path} cannot be read as settings: {error}") from error
    tables = {name: value for name, value in content.items() if isinstance(value, dict)}
    common = {name: value for name, value in content.items() if name not in tables}
    known = {command.name or "": _options(command) for command in COMMANDS}
    everywhere = set().union(*known.values())
    for table, keys in (("", common), *tables.items()):
        if table and table not in known:
            raise UsageError(f"{path} has a table [{table}]; there is no such command")
        for key in keys:
            if key not in (known[table] if table else everywhere):
                raise UsageError(
                    f"{path} sets {key}{f' in [{table}]' if table else ''}; there is no such option"
                )
    return {
        name: {
            options[key]: value for key, value in {**common, **tables.get(name, {})}.items() if key in options
        }
        for name, options in known.items()
    }


def _options(command: click.Command) -> dict[str, str]:
    """Option as written (`redis-url`) → parameter (`redis_url`)."""
    return {
        max(parameter.opts, key=len).removeprefix("--"): parameter.name or ""
        for parameter in command.params
        if isinstance(parameter, click.Option)
    }
