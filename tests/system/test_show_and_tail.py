"""`hftpipe show` and `hftpipe tail` beside a running system."""

import signal
import subprocess
import sys
from pathlib import Path

import orjson
from click.testing import CliRunner

from hftpipe.cli.main import main
from hftpipe.core.entry import EntryId
from hftpipe.inspection.backlog import backlog_of, waiting_entry, waiting_namings
from hftpipe.inspection.entry import EntryState
from hftpipe.inspection.home import home_at
from hftpipe.inspection.transaction import namings_of
from hftpipe.wiring.pipeline import Place
from tests.system.support import System, wait_for


def csv(folder: Path, name: str, *rows: str) -> Path:
    path = folder / name
    path.write_text("\n".join(["type,client,tx,amount", *rows, ""]))
    return path


def test_what_waits_in_the_log_is_found_while_the_server_runs(system: System) -> None:
    """A transaction and an entry that no worker has come to are said to wait; what is nowhere is not found."""
    system.prepare()
    system.ingest(csv(system.folder, "monday.csv", "deposit,4,1,5.0"))

    def show(*words: str, code: int = 0) -> str:
        result = CliRunner().invoke(main, ["show", *words, "--home", str(system.home)])
        assert result.exit_code == code, result.output
        return result.output

    told = orjson.loads(show("tx", "1", "--format", "json"))
    (row,) = told["transactions"]
    assert (row["outcome"], row["account"], row["entry"], row["row"]) == ("waiting", 4, "0/1-0", 2)
    assert row["source"].endswith("monday.csv")
    entry = show("entry", "0/1-0")
    assert entry.startswith("entry 0/1-0: in the log, not applied yet")
    assert "in none of the 1 entries that wait" in show("tx", "2", code=1)
    assert "there is no entry 0/1-1" in show("entry", "0/1-1", code=1)
    assert "there is no shard 9" in show("entry", "9/1-1", code=1)
    # What a worker comes to between the look at the journals and the look at the log is told as it is.
    looked = namings_of(home_at(system.home), 1)
    with backlog_of(Place(system.home), "", print) as backlog:
        system.drain()
        (naming,) = waiting_namings(backlog, system.home, looked, 1).namings
        story = waiting_entry(backlog, system.home, 0, EntryId(1, 0))
    assert (naming.movement.outcome, story.state) == ("applied", EntryState.APPLIED)


def test_tail_follows_a_home_from_before_it_is_there_until_it_is_told_to_stop(system: System) -> None:
    """One line a transaction as it is committed; SIGINT ends it in order."""
    with (
        (system.folder / "out").open("wb") as out,
        subprocess.Popen(
            [sys.executable, "-m", "hftpipe", "tail", "--format", "json", "--home", str(system.home)],
            stdout=out,
        ) as tail,
    ):
        try:
            path = csv(system.folder, "monday.csv", "deposit,4,1,5.0", "withdrawal,5,2,1.0")
            system.run("run", path, "--home", system.home)

            def rows() -> list[dict[str, object]]:
                return [orjson.loads(line) for line in (system.folder / "out").read_bytes().splitlines()]

            wait_for(lambda: len(rows()) == 2, "two lines of the tail")
            assert sorted((row["tx"], row["outcome"]) for row in rows()) == [
                (1, "applied"),
                (2, "insufficient_funds"),
            ]
            tail.send_signal(signal.SIGINT)
            assert tail.wait(20) == 0
        finally:
            tail.kill()


def test_tail_ends_when_nobody_reads_it_any_more(system: System) -> None:
    """Though there is nothing to write."""
    with subprocess.Popen(
        [sys.executable, "-m", "hftpipe", "tail", "--home", str(system.home)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as tail:
        try:
            assert tail.stdout is not None
            assert tail.stderr is not None
            tail.stdout.readline()
            tail.stdout.close()
            assert tail.wait(20) == 0
            assert tail.stderr.read() == b""
        finally:
            tail.kill()
