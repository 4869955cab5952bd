"""`hftpipe redis`."""

from pathlib import Path

import click

from hftpipe.cli.options import default_home, home_option, option


@click.command(short_help="The private server of a home, in the foreground.")
@home_option
@option("--port", type=click.IntRange(0, 65535), default=0, help="Listen on 127.0.0.1 as well.")
def redis(home: Path | None, port: int) -> None:
    """Run the private server of a home until Ctrl-C; every other command with the same --home finds it.

    It listens on a unix socket in the home, and on TCP only when a port is given.

    \b
    Examples:
      hftpipe redis --home ./books
      hftpipe redis --home ./books --port 6379
    """
    from hftpipe.cli.output import say
    from hftpipe.embedded import run_in_foreground
    from hftpipe.event import Event

    run_in_foreground(
        home.absolute() if home is not None else default_home(),
        port=port,
        announce=lambda told: say(Event("server_listening", told)),
    )
