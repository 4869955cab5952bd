"""Files sent to the real TCP server: what becomes of every line, over any number of connections."""

import gzip
import os
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from hftpipe.client import ClientLimits, InDoubt, Stopped
from hftpipe.client.courier import Surroundings, endpoint
from hftpipe.errors import SourceRefused, UsageError
from hftpipe.invalid_report import InvalidFile
from hftpipe.sending import Account, Sending, Way, secret_of
from tests.shell.memory_pipeline import CollectedReport, MemoryPipeline
from tests.shell.tcp_reception import Reception, Relay
from tests.shell.test_client import QUICK, cut_when_appended, wait_for

HEADER = b"type,client,tx,amount\n"
ODD = (
    HEADER
    + b"deposit,1,1,10\r\n\n \t\nwithdrawal,1,2,3\ndeposit,1,x,1\n\xff\xfe\n"
    + b"a" * 5_000
    + b"\ndeposit,2,3,1.23456\nwithdrawal,1,1,10\ndispute,1,1,\nnothing\ndeposit,2,4,5"
)


@pytest.fixture
def reception(tmp_path: Path) -> Iterator[Reception]:
    """A server that runs."""
    with Reception(tmp_path).running() as running:
        yield running


def way(address: str, *, resends: bool = False, limits: ClientLimits = QUICK) -> Way:
    return Way(endpoint(address), "", limits, resends)


def send(
    path: Path | str, address: str, *, report: CollectedReport | InvalidFile | None = None, **options: int
) -> Account:
    """Sends a file as the command does."""
    surroundings = Surroundings()
    with closing(Sending(str(path), way(address), surroundings, jsonl=False, **options)) as sending:
        sending.run(report or CollectedReport())
        return sending.account


def deposits(count: int, first: int = 1) -> bytes:
    return b"".join(b"deposit,%d,%d,1\n" % (tx % 50, tx) for tx in range(first, first + count))


def test_a_file_is_reported_as_ingest_reports_it(reception: Reception, tmp_path: Path) -> None:
    """Line numbers, fields, reasons and texts, of over-long and unreadable lines too; a conflict besides."""
    path = tmp_path / "odd.csv"
    path.write_bytes(ODD)
    sent, ingested = CollectedReport(), MemoryPipeline()
    account = send(path, reception.address, report=sent)
    ingested.ingest(path)
    conflicts = [row for row in sent.rows if row.reason.startswith("conflict with ")]
    assert [row for row in sent.rows if row not in conflicts] == ingested.report.rows
    assert [(row.line, row.field, row.content) for row in conflicts] == [(10, "tx", "withdrawal,1,1,10")]
    assert (account.durable, account.conflict, account.invalid.total(), account.read) == (4, 1, 5, 10)
    assert not account.is_all_taken
    again = send(path, reception.address)
    assert (again.durable, again.duplicate) == (1, 3)  # the dispute has no id of its own


def test_a_report_has_each_row_once(reception: Reception, tmp_path: Path) -> None:
    """However often the file, or its end, is sent."""
    path, out = tmp_path / "odd.csv", tmp_path / "invalid.csv"
    path.write_bytes(ODD)
    for from_line in (1, 6, 1):
        report = InvalidFile(out)
        send(path, reception.address, report=report, from_line=from_line)
        report.close()
    lines = [int(row.split(b",")[1]) for row in out.read_bytes().splitlines()[1:]]
    assert lines == [6, 7, 8, 9, 10, 12]


def test_compressed_and_json_files(reception: Reception, tmp_path: Path) -> None:
    """By their names, as everywhere; a first line that is no object does not hide the format."""
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf" + HEADER + deposits(10)))
    assert send(tmp_path / "a.csv.gz", reception.address).durable == 10
    rows = b"\n[]\n" + b"".join(
        b'{"type":"deposit","client":1,"tx":%d,"amount":1}\n' % tx for tx in range(100, 105)
    )
    (tmp_path / "b.jsonl").write_bytes(rows)
    report = CollectedReport()
    account = send(tmp_path / "b.jsonl", reception.address, report=report)
    assert (account.durable, account.read) == (5, 6)
    assert [(row.line, row.reason, row.content) for row in report.rows] == [(2, "bad_json", "[]")]


def test_a_file_goes_through_lost_connections(reception: Reception, tmp_path: Path) -> None:
    """Each line is answered once, with its own number, and is in the log once."""
    path = tmp_path / "long.csv"
    bad = set(range(100, 60_000, 997))
    lines = [b"nothing\n" if number in bad else deposits(1, number) for number in range(2, 60_000)]
    path.write_bytes(HEADER + b"".join(lines))
    over, report = threading.Event(), CollectedReport()
    with closing(Relay(reception.port)) as relay:

        def cut() -> None:
            while not over.wait(0.03):
                relay.cut()

        cutter = threading.Thread(target=cut)
        cutter.start()
        account = send(path, relay.address, report=report)
        over.set()
        cutter.join()
        assert relay.connections > 1
    assert account.durable + account.duplicate == len(lines) - len(bad)
    assert [row.line for row in report.rows] == sorted(bad)
    assert reception.hall.appended() == len(lines) - len(bad)


@pytest.mark.parametrize("resends", [False, True])
def test_a_file_without_ids_stops_where_it_is_in_doubt(
    reception: Reception, tmp_path: Path, resends: bool
) -> None:
    """It says which line was not acknowledged, and what there is to do; told to, it sends all of it again."""
    path = tmp_path / "anonymous.csv"
    path.write_bytes(b"type,client,amount\n" + b"deposit,1,1\n" * 5_000)
    with (
        closing(Relay(reception.port)) as relay,
        closing(
            Sending(str(path), way(relay.address, resends=resends), Surroundings(), jsonl=False)
        ) as sending,
    ):
        relay.mute = True
        losing = threading.Thread(target=cut_when_appended, args=(reception, relay, 5_000))
        losing.start()
        if resends:
            sending.run(CollectedReport())
            assert sending.account.durable == 5_000
        else:
            with pytest.raises(
                InDoubt, match=r"Line 2 and those .*--from-line; or send all .* --resend"
            ) as raised:
                sending.run(CollectedReport())
            assert raised.value.line == 2
        losing.join()
    assert reception.hall.appended() == (10_000 if resends else 5_000)


def test_a_silent_server_is_no_lost_connection_to_who_may_not_send_again(
    reception: Reception, tmp_path: Path
) -> None:
    """A full backlog is silent, too: only the deadline ends the wait, and what was sent is in doubt then."""
    path = tmp_path / "anonymous.csv"
    path.write_bytes(b"type,client,amount\n" + b"deposit,1,1\n" * 50)
    limits = replace(QUICK, reply_ms=20, give_up_ms=300)
    with (
        closing(Relay(reception.port)) as relay,
        closing(
            Sending(str(path), way(relay.address, limits=limits), Surroundings(), jsonl=False)
        ) as sending,
    ):
        relay.mute = True
        with pytest.raises(InDoubt, match="it is silent"):
            sending.run(CollectedReport())
        assert relay.connections == 1


@pytest.mark.parametrize("header", [HEADER, b"type,client,number,amount\n"])
def test_who_is_stopped_is_told_how_to_go_on(reception: Reception, tmp_path: Path, header: bytes) -> None:
    """Everything before the line is acknowledged; from there it goes on, and nothing is there twice, id or none."""
    path = tmp_path / "long.csv"
    path.write_bytes(header + deposits(200_000))
    surroundings = Surroundings()
    limits = replace(QUICK, window_bytes_max=1 << 16)

    with closing(
        Sending(str(path), way(reception.address, limits=limits), surroundings, jsonl=False)
    ) as sending:
        first = sending.account

        def stop() -> None:
            wait_for(lambda: first.read > 0)
            surroundings.stop.set()

        stopping = threading.Thread(target=stop)
        stopping.start()
        with pytest.raises(Stopped, match=r"Line \d+ and those .* --from-line \d+") as raised:
            sending.run(CollectedReport())
        stopping.join()
    assert raised.value.line == first.last + 1
    rest = send(path, reception.address, from_line=raised.value.line)
    assert first.read + rest.read == 200_000
    assert reception.hall.appended() == 200_000


def test_only_what_was_asked_for_is_sent(reception: Reception, tmp_path: Path) -> None:
    """From a line on, whatever block it is in; behind the end there is nothing."""
    path = tmp_path / "some.csv"
    path.write_bytes(HEADER + deposits(100))
    assert send(path, reception.address, from_line=98).durable == 4
    assert send(path, reception.address, from_line=102).read == 0
    with pytest.raises(UsageError, match="ends with line 101"):
        send(path, reception.address, from_line=103)
    path.write_bytes(HEADER)
    assert send(path, reception.address).read == 0


@pytest.mark.parametrize("name", ["gone.csv", ".", "pipe", "empty.csv", "strange.csv"])
def test_what_is_no_file_of_transactions_is_refused(tmp_path: Path, name: str) -> None:
    """Before anybody is connected to."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty.csv").touch()
    (tmp_path / "strange.csv").write_text("a,b,c\n")
    with pytest.raises(SourceRefused):
        Sending(str(tmp_path / name), way("127.0.0.1:1"), Surroundings(), jsonl=False)


def test_a_secret_comes_from_a_file_of_ones_own(tmp_path: Path) -> None:
    """One that others can read is none any more; no message shows it."""
    path = tmp_path / "secret"
    path.write_text("hft_secret\n")
    path.chmod(0o600)
    assert secret_of(path, "other") == "hft_secret"
    assert secret_of(None, "other") == "other"
    assert "hft_secret" not in repr(Way(endpoint("a:1"), "hft_secret", QUICK, resends=False))
    path.chmod(0o644)
    with pytest.raises(UsageError, match="chmod 600") as raised:
        secret_of(path, "")
    assert "hft_secret" not in str(raised.value)
    path.chmod(0o600)
    for text in ("", "\n", "s\xe9cret", "x" * 300, "two\nlines"):
        path.write_text(text)
        with pytest.raises(UsageError):
            secret_of(path, "")
    with pytest.raises(UsageError, match="cannot be read"):
        secret_of(tmp_path / "gone", "")
