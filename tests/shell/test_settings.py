"""hftpipe.toml, variables and the command line: one table of settings, and which of them counts."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from hftpipe.cli.commands import commands
from hftpipe.cli.main import SETTINGS_FILE, main
from hftpipe.cli.options import RetentionType, ShardList
from hftpipe.ports import Topology
from hftpipe.retention.setting import Retention
from hftpipe.store.creation import create
from hftpipe.store.sqlite import shard_path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with two homes, `one` and `two`, and no settings from outside."""
    for name in list(os.environ):
        if name.startswith("HFTPIPE_"):
            monkeypatch.delenv(name)
    for number, home in enumerate(("one", "two"), 1):
        (tmp_path / home).mkdir()
        create(shard_path(tmp_path / home, 0), Topology(home, number, 1, 1), 0)
    monkeypatch.chdir(tmp_path)
    umask = os.umask(0o077)
    yield tmp_path
    os.umask(umask)


def hftpipe(*arguments: str, settings: str | None = None, **variables: str) -> Result:
    """A command, with what the settings file of the folder says and with variables."""
    if settings is not None:
        Path(SETTINGS_FILE).write_text(settings, encoding="utf-8")
    return CliRunner().invoke(main, arguments, env=variables)


def generated(*arguments: str, **rest: str) -> int:
    """How many rows `hftpipe generate` was told to make."""
    result = hftpipe("generate", *arguments, **rest)
    assert result.exit_code == 0, result.output
    return len(result.stdout.splitlines()) - 1


def test_a_key_at_the_top_stands_for_the_variable_of_that_name(folder: Path) -> None:
    """Of every command that has it."""
    settings = 'home = "one"\nformat = "json"\n'
    assert hftpipe("balances", settings=settings).stdout == "[]\n"
    (shard,) = json.loads(hftpipe("status", settings=settings).stdout)
    assert shard["shard"] == 0


def test_a_key_at_the_top_leaves_commands_alone_that_do_not_have_it(folder: Path) -> None:
    """`workers` means nothing to `balances`."""
    assert hftpipe("balances", settings='workers = 3\nhome = "one"\n').exit_code == 0


def test_a_table_sets_the_options_of_one_command(folder: Path) -> None:
    """Above the keys at the top."""
    settings = 'home = "one"\nformat = "table"\n[balances]\nformat = "json"\n'
    assert hftpipe("balances", settings=settings).stdout == "[]\n"
    assert hftpipe("status", settings=settings).stdout.startswith("shard  state")


def test_a_list_sets_an_option_that_may_be_repeated(folder: Path) -> None:
    """As on the command line."""
    assert hftpipe("balances", settings='home = "one"\n[balances]\naccount = [1, 2]\n').exit_code == 0


def test_the_command_line_counts_more_than_a_variable_and_that_more_than_the_file(folder: Path) -> None:
    """From near to far."""
    settings = "[generate]\nrows = 1\naccounts = 1\n"
    assert generated(settings=settings) == 1
    assert generated(settings=settings, HFTPIPE_ROWS="2") == 2
    assert generated("--rows", "3", settings=settings, HFTPIPE_ROWS="2") == 3


def test_an_empty_file_sets_nothing(folder: Path) -> None:
    """The defaults hold."""
    assert hftpipe("balances", "--home", "one", settings="").stdout.startswith("client,available")


def test_another_file_may_be_named(folder: Path) -> None:
    """Instead of the one in this folder, on the command line or with a variable."""
    (folder / "mine.toml").write_text("[generate]\nrows = 5\naccounts = 1\n")
    settings = "[generate]\nrows = 1\naccounts = 1\n"
    result = hftpipe("--config", "mine.toml", "generate", settings=settings)
    assert len(result.stdout.splitlines()) == 6
    assert generated(settings=settings, HFTPIPE_CONFIG="mine.toml") == 5


def test_a_file_that_was_named_must_be_there(folder: Path) -> None:
    """It would have said something."""
    assert hftpipe("--config", "missing.toml", "generate").exit_code == 2


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("homes = 'x'", "sets homes; no command has such an option"),
        ("redis_url = 'x'", "sets redis_url; no command has such an option"),
        ("retain-entries = 5", "sets retain-entries, which is now retain (--retain)"),
        ("[up]\nretain-entries = 5", "sets retain-entries, which is now retain (--retain)"),
        ("[balance]\nformat = 'csv'", "has a table [balance]; there is no such command"),
        ("[balances]\nworkers = 3", "sets workers in [balances]; there is no such option"),
        ("[run]\nredis_url = ''", "sets redis_url in [run]; there is no such option"),
        ("home = ", "cannot be read as settings"),
        ("home = 'a'\nhome = 'b'", "cannot be read as settings"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(folder: Path, settings: str, said: str) -> None:
    """A setting that is passed over in silence is worse than none; any command says so."""
    for command in ("balances", "generate", "status"):
        result = hftpipe(command, "--home", "one", settings=settings)
        assert result.exit_code == 2
        assert f"{SETTINGS_FILE} {said}" in result.stderr
        assert result.stdout == ""


def test_a_file_that_is_no_text_is_refused(folder: Path) -> None:
    """With its name."""
    (folder / SETTINGS_FILE).write_bytes(b"\xff\xfe")
    result = hftpipe("balances")
    assert result.exit_code == 2
    assert "hftpipe.toml cannot be read as settings" in result.stderr


@pytest.mark.parametrize(
    "settings",
    ['[balances]\nformat = "xml"', "[balances]\naccount = [-1]", '[balances]\naccount = ["x"]'],
)
def test_a_value_that_does_not_fit_is_wrong_usage(folder: Path, settings: str) -> None:
    """As it would be on the command line."""
    assert hftpipe("balances", "--home", "one", settings=settings).exit_code == 2


@pytest.mark.parametrize("command", [command.name or "" for command in commands()])
def test_every_option_can_be_set_in_the_table_of_its_command(folder: Path, command: str) -> None:
    """Named as on the command line, without the dashes."""
    (found,) = (known for known in commands() if known.name == command)
    options = [option for option in found.params if isinstance(option, click.Option)]
    names = [max(option.opts, key=len).removeprefix("--") for option in options]
    settings = f"[{command}]\n" + "".join(f"{name} = 1\n" for name in names)
    assert hftpipe("generate", "--help", settings=settings).exit_code == 0


# --- lists of shards ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "shards"),
    [
        ("0-3", [0, 1, 2, 3]),
        ("0,2", [0, 2]),
        (" 1 , 5-6", [1, 5, 6]),
        ("7", [7]),
        ([0, 2], [0, 2]),
        (["0-1", 3], [0, 1, 3]),
        (3, [3]),
    ],
)
def test_shards_are_listed_as_numbers_and_ranges(value: Any, shards: list[int]) -> None:
    """As text, or as a number or a list in the settings file."""
    assert ShardList().convert(value, None, None) == shards


@pytest.mark.parametrize(
    "value", ["", "a", "3-1", "-1", "0-1024", "1-", "0,,1", "٣", [-1], ["x"], [1024], []]
)
def test_what_is_no_list_of_shards_is_refused(value: Any) -> None:
    """In the settings file as on the command line."""
    with pytest.raises(click.BadParameter):
        ShardList().convert(value, None, None)


@pytest.mark.parametrize("value", [1000, "1000", Retention(entries=1_000)])
def test_what_is_retained_is_a_number_or_text(value: Any) -> None:
    """As the settings file has it, or a variable."""
    assert RetentionType().convert(value, None, None) == Retention(entries=1_000)


def test_what_cannot_be_retained_is_refused(folder: Path) -> None:
    """With an example, before anything is done."""
    refused = hftpipe("worker", "--home", "one", HFTPIPE_RETAIN="5 weeks")
    assert refused.exit_code == 2
    assert "is not like 1000 (entries)" in refused.output


def test_a_variable_that_has_another_name_now_is_refused(folder: Path) -> None:
    """By the commands that had it: what it asks for would be trimmed."""
    assert hftpipe("balances", HFTPIPE_HOME="one", HFTPIPE_RETAIN_ENTRIES="5").exit_code == 0
    result = hftpipe("worker", HFTPIPE_HOME="one", HFTPIPE_RETAIN_ENTRIES="5")
    assert result.exit_code == 2
    assert "HFTPIPE_RETAIN_ENTRIES is now HFTPIPE_RETAIN (--retain): it takes 5, too" in result.stderr
