"""`hftpipe token`."""

from pathlib import Path

import click

from hftpipe.cli.options import format_option, option


@click.command(short_help="Tokens of those who may use `hftpipe serve`.")
@click.argument("action", type=click.Choice(["add", "list", "remove"]))
@click.argument("name", required=False)
@option(
    "--token-file",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="TOML file of the tokens; made by the first `add`.",
)
@option(
    "--scope",
    "scopes",
    type=click.Choice(["submit", "read", "admin"]),
    multiple=True,
    help="What a new token is for; may be repeated.",
)
@option("--rate", type=click.IntRange(1, 10**9), help="Transactions per second that a new one may submit.")
@format_option("table")
def token(
    action: str, name: str | None, token_file: Path, scopes: tuple[str, ...], rate: int | None, format_: str
) -> None:
    """Add, list and remove tokens. `add` prints the secret, once: the file holds its hash only.

    A running `hftpipe serve` takes changes over within a second. To replace a secret, add a second token for the
    same user, and remove the first when the second is in use.

    \b
    Examples:
      hftpipe token add alice --token-file tokens.toml --scope submit --scope read
      hftpipe token list --token-file tokens.toml
      hftpipe token remove alice --token-file tokens.toml
    """
    from hftpipe.errors import UsageError

    if action == "list":
        if name is not None:
            raise UsageError(f"`hftpipe token list` lists all tokens: leave {name!r} away")
        _list(token_file, format_)
    elif name is None:
        raise UsageError(f"`hftpipe token {action}` needs the NAME of a token")
    elif action == "add":
        _add(token_file, name, scopes, rate)
    else:
        _remove(token_file, name)


def _add(path: Path, name: str, scopes: tuple[str, ...], rate: int | None) -> None:
    from datetime import UTC, datetime

    from hftpipe.cli.output import say
    from hftpipe.errors import UsageError
    from hftpipe.reception.access.token_file import SCOPES, Token, change, issue, require_name

    require_name(name)
    if not scopes:
        raise UsageError("`hftpipe token add` needs what the token is for: --scope submit, read or admin")
    made, secret = issue(name, [SCOPES[scope] for scope in scopes], rate, datetime.now(UTC))

    def with_it(tokens: tuple[Token, ...]) -> list[Token]:
        if any(token.name == name for token in tokens):
            raise UsageError(
                f"{path} has a token {name} already: give this one another name, or remove that one"
            )
        return [*tokens, made]

    change(path, with_it)
    click.echo(secret)
    say(f"token {name} was added to {path}; its secret is shown this once only")


def _remove(path: Path, name: str) -> None:
    from hftpipe.cli.output import say
    from hftpipe.errors import UsageError
    from hftpipe.reception.access.token_file import Token, change

    def without_it(tokens: tuple[Token, ...]) -> list[Token]:
        kept = [token for token in tokens if token.name != name]
        if len(kept) == len(tokens):
            raise UsageError(f"{path} has no token {name[:80]!r}: see `hftpipe token list`")
        return kept

    if not path.exists():
        raise UsageError(f"there is no token file {path}")
    change(path, without_it)
    say(f"token {name} was removed from {path}")


def _list(path: Path, format_: str) -> None:
    from hftpipe.cli.output import write
    from hftpipe.reception.access.token_file import load

    tokens, _ = load(path)
    rows = [
        (token.name, " ".join(sorted(token.scopes)), token.transactions_per_second, token.created.isoformat())
        for token in tokens
    ]
    write(("name", "scopes", "transactions_per_second", "created"), rows, format_)
