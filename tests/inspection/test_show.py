"""`hftpipe show` without a server: what it writes, and how it ends."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner, Result

from hftpipe.cli.main import main
from hftpipe.store.sqlite import shard_path
from tests.inspection.prepared import Books


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A pipeline of two shards, beside its owner, with a dispute, a refusal and a dead letter."""
    with closing(Books(tmp_path / "home", shards=2)) as books:
        books.add([("D", 2, 1, 50_000), ("W", 2, 2, 70_000)], [("P", 2, 1, 0)])
        books.commit(books.foreign())
        yield books.home


def show(home: Path, *words: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, ["show", *words, "--home", str(home)])
    assert result.exit_code == code, result.output
    return result


def test_an_account_is_shown_for_people_and_for_programs(home: Path, tmp_path: Path) -> None:
    """One object with everything as JSON, its last transactions as CSV, and a picture when asked for."""
    picture = tmp_path / "2.svg"
    text = show(home, "account", "2", "--svg", str(picture)).stdout
    assert text.startswith("account 2, in shard 0, as of entry 0/1-2")
    assert "held       5.0000" in text
    assert "total over all 3 transactions" in text
    assert "last 3 transactions" in text
    assert picture.read_text().startswith("<svg ")
    told = orjson.loads(show(home, "account", "2", "--format", "json").stdout)
    assert (told["available"], told["held"], told["total"]) == ("0.0000", "5.0000", "5.0000")
    assert [step["available"] for step in told["last"]] == ["5.0000", "5.0000", "0.0000"]
    assert [dispute["state"] for dispute in told["disputes"]] == ["disputed"]
    assert len(told["history"]["points"]) == 3
    lines = show(home, "account", "2", "--format", "csv", "--last", "1").stdout.splitlines()
    assert lines[0] == "time,entry,source,row,kind,account,tx,amount,outcome,available,held,locked"
    assert lines[1].endswith(",0/1-1,/data/monday.csv,4,dispute,2,1,-,applied,0.0000,5.0000,false")
    early = orjson.loads(show(home, "account", "2", "--at", "0/1-0", "--format", "json").stdout)
    assert (early["held"], early["entry"], early["disputes"]) == ("0.0000", "0/1-0", [])


def test_a_transaction_is_shown(home: Path) -> None:
    """With the reason in words."""
    assert "  why      withdrawal: 7.0000 wanted, 5.0000 available" in show(home, "tx", "2").stdout
    told = orjson.loads(show(home, "tx", "1", "--format", "json").stdout)
    assert [each["outcome"] for each in told["transactions"]] == ["applied", "applied"]
    assert len(show(home, "tx", "1", "--format", "csv").stdout.splitlines()) == 3


def test_an_entry_is_shown(home: Path) -> None:
    """Its rows, or why it was set aside."""
    assert "insufficient_funds" in show(home, "entry", "0/1-0").stdout
    told = orjson.loads(show(home, "entry", "0/1-2", "--format", "json").stdout)
    assert (told["state"], told["fields"], told["transactions"]) == ("dead", {"hello": "w\\xffrld"}, [])
    assert len(show(home, "entry", "0/1-0", "--format", "csv").stdout.splitlines()) == 3


def test_a_damaged_shard_hides_nothing_of_the_others(home: Path) -> None:
    """What was found is shown; that there may be more is said, and the command fails."""
    shard_path(home, 1).write_bytes(b"nonsense" * 1_000)
    found = show(home, "tx", "1", "--format", "json", code=1)
    assert [each["outcome"] for each in orjson.loads(found.stdout)["transactions"]] == ["applied", "applied"]
    assert "shard 1 was not looked at: " in found.stderr
    assert "shard-0001.db is damaged" in found.stderr
    assert "shard-0001.db is damaged" in show(home, "tx", "99", code=1).output
    assert "account 4 is not known" in show(home, "account", "4", code=1).output
    assert "entry 0/1-9 is not in the journal" in show(home, "entry", "0/1-9", code=1).output


def test_a_strangers_text_does_not_reach_the_terminal(tmp_path: Path) -> None:
    """The name of a source, and what a dead letter holds."""
    with closing(Books(tmp_path / "home")) as books:
        books.commit(books.entry([("D", 2, 1, 5)], source="/in/\x1b]0;x\x07.csv"), books.foreign())
        for words in (("tx", "1"), ("account", "2"), ("entry", "0/1-0"), ("entry", "0/1-1")):
            assert "\x1b" not in show(books.home, *words).stdout, words
        assert r"/in/\x1b]0;x\x07.csv, line 2" in show(books.home, "tx", "1").stdout


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["account", "4"], 1, "account 4 is not known"),
        (["account", "3"], 1, "its shard 1 has applied nothing yet"),
        (["tx", "99"], 1, "tx 99 is in no journal, and the log could not be asked"),
        (["entry", "0/1-9"], 1, "entry 0/1-9 is not in the journal: its journal ends with 0/1-2"),
        (["entry", "1-0"], 2, "Say which: 3/1-0"),
        (["entry", "x"], 2, "no address of an entry"),
        (["account", "-1"], 2, "No such option"),
        (["account", "9223372036854775808"], 2, "is no number from 0"),
        (["account", "٣"], 2, "is no number from 0"),
        (["tx", "1", "--whole"], 2, "belong to `hftpipe show account`"),
        (["account", "2", "--at", "1/1-0"], 2, "is an entry of another"),
    ],
)
def test_what_cannot_be_shown_is_said(home: Path, words: list[str], code: int, says: str) -> None:
    """In a line, with 1 for what is not there, and 2 for what cannot be asked so."""
    assert says in show(home, *words, code=code).output


@pytest.mark.parametrize("words", [("account", "2"), ("tx", "1"), ("entry", "0/1-0")])
def test_an_empty_home_is_said(tmp_path: Path, words: tuple[str, ...]) -> None:
    """Whether its folder is there or not; and nothing is made."""
    for home in (tmp_path, tmp_path / "nowhere"):
        assert "holds nothing that was applied yet" in show(home, *words, code=2).output
    assert list(tmp_path.iterdir()) == []
