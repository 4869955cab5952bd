"""The client against the real TCP server: receipts, lost connections, servers that stop, lie or are not there."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hftpipe.client import (
    Client,
    ClientError,
    ClientLimits,
    InDoubt,
    Kind,
    NotOurServer,
    Receipt,
    Rejected,
    ServerAway,
    Status,
    Transaction,
    tls_context,
)
from hftpipe.errors import UsageError
from hftpipe.reception.access.tls import server_context
from hftpipe.reception.access.token_file import Scope, change, issue
from hftpipe.reception.access.tokens import Gate
from tests.shell.reception_hall import WAIT_S
from tests.shell.tcp_reception import SERVE_LIMITS, Reception, Relay, address_of, certificate

QUICK = ClientLimits(
    connect_ms=2_000, reply_ms=400, reach_ms=2_000, retry_first_ms=1, retry_max_ms=20, poll_ms=10
)
IMPATIENT = replace(QUICK, reply_ms=50, reach_ms=120, give_up_ms=120)


@pytest.fixture
def reception(tmp_path: Path) -> Iterator[Reception]:
    """A server that runs."""
    with Reception(tmp_path).running() as running:
        yield running


@pytest.fixture
def relay(reception: Reception) -> Iterator[Relay]:
    """A way to it that can be cut."""
    with closing(Relay(reception.port)) as relay:
        yield relay


def deposit(tx: int, amount: str = "1") -> Transaction:
    return Transaction(Kind.DEPOSIT, 1, tx, amount)


def deposits(count: int, first: int = 0) -> list[Transaction]:
    return [deposit(tx) for tx in range(first, first + count)]


def wait_for(condition: Callable[[], bool]) -> None:
    """Returns when the condition holds; fails when it does not in time."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)


def statuses(receipts: list[Receipt]) -> set[Status]:
    return {receipt.status for receipt in receipts}


# --- receipts -----------------------------------------------------------------------------------------------------


def test_each_transaction_gets_a_receipt(reception: Reception) -> None:
    """With the address of its entry, or the rule that it breaks."""
    with Client(reception.address, limits=QUICK) as client:
        first = client.send(deposit(1))
        assert (first.status, first.line) == (Status.DURABLE, 1)
        assert first.entry.endswith("/1-0")
        assert client.send(deposit(1)) == Receipt(1, Status.DUPLICATE, first.entry)
        assert client.send(deposit(1, "2")) == Receipt(1, Status.CONFLICT, first.entry)
        assert client.send(deposit(2, "0")) == Receipt(1, Status.INVALID, "", "amount", "amount_not_positive")
        assert client.send(Transaction(Kind.DISPUTE, 1, 1)).status is Status.DURABLE
    assert reception.hall.appended() == 2


def test_many_are_pipelined_in_order_within_a_window(reception: Reception) -> None:
    """The iterable is never drawn further ahead of the receipts than the window."""
    limits = replace(QUICK, window_transactions_max=100)
    drawn = 0

    def source() -> Iterator[Transaction]:
        nonlocal drawn
        for transaction in deposits(3_000):
            drawn += 1
            yield transaction

    with Client(reception.address, limits=limits) as client:
        for number, receipt in enumerate(client.send_many(source()), 1):
            assert (receipt.line, receipt.status) == (number, Status.DURABLE)
            assert drawn - number < 100
    assert number == drawn == reception.hall.appended() == 3_000


def test_a_transaction_leaves_before_the_next_is_drawn(reception: Reception) -> None:
    """Where the source waits, what it has given is not held back."""

    def source() -> Iterator[Transaction]:
        for tx in range(3):
            yield deposit(tx)
            wait_for(lambda: reception.hall.appended() == tx + 1)  # noqa: B023 - called at once

    with Client(reception.address, limits=QUICK) as client:
        assert len(list(client.send_many(source()))) == 3


def test_many_that_are_given_up_do_not_disturb_the_next(reception: Reception) -> None:
    """Their replies belong to nobody; only one iteration goes on at a time."""
    with Client(reception.address, limits=QUICK) as client:
        receipts = client.send_many(deposits(500))
        assert next(receipts).line == 1
        with pytest.raises(UsageError, match="send_many"):
            client.send(deposit(1_000))
        receipts.close()
        assert client.send(deposit(1_000)) == Receipt(1, Status.DURABLE, client.send(deposit(1_000)).entry)
        assert not list(client.send_many([]))
    with pytest.raises(UsageError, match="closed"):
        client.send(deposit(1))


# --- lost connections ---------------------------------------------------------------------------------------------


def test_what_was_not_acknowledged_is_sent_again(reception: Reception, relay: Relay) -> None:
    """What had arrived is told as a duplicate: each is in the log once, in order."""
    said: list[str] = []
    with Client(relay.address, limits=QUICK, report=said.append) as client:
        client.send(deposit(0))
        relay.mute = True
        cutter = threading.Thread(target=cut_when_appended, args=(reception, relay, 101))
        cutter.start()
        receipts = list(client.send_many(deposits(100, 1)))
        cutter.join()
        assert [receipt.line for receipt in receipts] == list(range(1, 101))
        assert statuses(receipts) == {Status.DUPLICATE}
        assert client.send(deposit(200)).status is Status.DURABLE
    assert reception.hall.appended() == 102
    assert len(said) == 2
    assert "trying again from line 1" in said[0]
    assert "is there again; going on with line 1" in said[1]


def cut_when_appended(reception: Reception, relay: Relay, count: int) -> None:
    """Loses the connections once so many transactions are in the log, whose receipts were lost."""
    wait_for(lambda: reception.hall.appended() >= count)
    relay.mute = False
    relay.cut()


def test_connections_that_are_lost_all_the_time(reception: Reception, relay: Relay) -> None:
    """Every transaction gets one receipt, and is in the log once."""
    over = threading.Event()

    def cutting() -> None:
        while not over.wait(0.02):
            relay.cut()

    cutter = threading.Thread(target=cutting)
    with Client(relay.address, limits=replace(QUICK, window_transactions_max=200)) as client:
        cutter.start()
        lines = [receipt.line for receipt in client.send_many(deposits(6_000))]
        over.set()
        cutter.join()
    assert lines == list(range(1, 6_001))
    assert reception.hall.appended() == 6_000
    assert relay.connections > 1


def test_who_does_not_want_resends_is_told_what_is_in_doubt(reception: Reception, relay: Relay) -> None:
    """The first line that was sent and not acknowledged; a connection that was lost in between harms nobody."""
    with Client(relay.address, limits=QUICK, resends=False) as client:
        client.send(deposit(0))
        relay.cut()
        client.send(deposit(1))
        relay.mute = True
        cutter = threading.Thread(target=cut_when_appended, args=(reception, relay, 5))
        cutter.start()
        with pytest.raises(InDoubt, match="Line 1 and those behind") as raised:
            list(client.send_many(deposits(3, 2)))
        cutter.join()
        assert raised.value.line == 1
        assert client.send(deposit(2)).status is Status.DUPLICATE


def test_a_connection_that_was_idle_too_long_is_made_anew(tmp_path: Path) -> None:
    """The server closes it; nothing was under way, so nothing is in doubt."""
    with (
        Reception(tmp_path).running(limits=replace(SERVE_LIMITS, idle_ms=40)) as reception,
        Client(reception.address, limits=QUICK, resends=False) as client,
    ):
        client.send(deposit(0))
        wait_for(lambda: b'hftpipe_connections{transport="tcp"} 0.0' in reception.hall.metrics.render()[0])
        assert client.send(deposit(1)).status is Status.DURABLE


def test_a_server_that_is_started_again_is_waited_for(tmp_path: Path) -> None:
    """Under the same address, with the ids of before."""
    reception = Reception(tmp_path)
    received: list[Receipt] = []
    said: list[str] = []
    with reception.running():
        client = Client(reception.address, limits=QUICK, report=said.append)
        client.send(deposit(1))
    reception.hall.work()
    waiting = threading.Thread(target=lambda: received.extend(client.send_many(deposits(3))))
    waiting.start()
    wait_for(lambda: bool(said))
    with reception.running(), client:
        waiting.join()
    assert [receipt.status for receipt in received] == [Status.DURABLE, Status.DUPLICATE, Status.DURABLE]
    assert "refused; trying again from line 1" in said[0]


def test_a_log_that_is_away_is_waited_for(reception: Reception) -> None:
    """The server says busy; its lines come again until it takes them."""
    reception.hall.writer.away = True
    back = threading.Timer(0.5, lambda: setattr(reception.hall.writer, "away", False))
    said: list[str] = []
    with Client(reception.address, limits=QUICK, report=said.append) as client:
        back.start()
        assert client.send(deposit(1)).status in {Status.DURABLE, Status.DUPLICATE}
        back.join()
    assert reception.hall.appended() == 1
    assert said


# --- giving up ----------------------------------------------------------------------------------------------------


def test_a_server_that_is_not_there_is_named() -> None:
    """Soon: nobody has ever reached it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = address_of(free)
    with (
        Client(address, limits=IMPATIENT) as client,
        pytest.raises(ServerAway, match=r"refused.*hftpipe serve") as raised,
    ):
        client.send(deposit(1))
    assert (raised.value.line, raised.value.exit_code) == (1, 1)


def test_a_server_that_acknowledges_nothing_any_more_is_given_up(reception: Reception, relay: Relay) -> None:
    """The error names the first line that is not acknowledged; all before are."""
    limits = replace(IMPATIENT, give_up_ms=300, window_transactions_max=1)
    with Client(relay.address, limits=limits) as client:
        receipts = client.send_many(muted_after(10, relay))
        received = [next(receipts) for _ in range(10)]
        with pytest.raises(ServerAway, match="Line 11 and those behind it are not acknowledged") as raised:
            received += receipts
    assert raised.value.line == 11
    assert len(received) == 10
    assert reception.hall.appended() >= 10


def muted_after(count: int, relay: Relay) -> Iterator[Transaction]:
    """Deposits for ever, whose receipts come for the first ones only."""
    tx = 0
    while True:
        relay.mute = tx >= count
        yield deposit(tx)
        tx += 1


@contextmanager
def listening(answer: bytes) -> Iterator[str]:
    """Something else, that answers like this to whoever says anything, and goes on listening."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    accepted, _ = listener.accept()
                except OSError:
                    return
                with accepted:
                    accepted.recv(1_000)
                    accepted.sendall(answer)
                    while answer and accepted.recv(1_000):
                        pass

        thread = threading.Thread(target=accept)
        thread.start()
        yield address_of(listener)
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"-ERR unknown command\r\n"])
def test_a_server_of_another_kind_is_named(answer: bytes) -> None:
    """It never sees a transaction."""
    with (
        listening(answer) as address,
        Client(address, limits=QUICK) as client,
        pytest.raises(NotOurServer, match=rf"{address}: it answered '.*which is no reply") as raised,
    ):
        client.send(deposit(1))
    assert raised.value.exit_code == 2


def test_a_server_that_hangs_up_is_given_up() -> None:
    """As one that cannot be reached."""
    with (
        listening(b"") as address,
        Client(address, limits=IMPATIENT) as client,
        pytest.raises(ServerAway, match="was not reached"),
    ):
        client.send(deposit(1))


def test_a_server_that_says_nothing_is_given_up() -> None:
    """Its system accepts the connection, and nobody ever answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = address_of(listener)
        with Client(address, limits=IMPATIENT) as client, pytest.raises(ServerAway, match="said nothing"):
            client.send(deposit(1))


# --- tokens and TLS -----------------------------------------------------------------------------------------------


def test_a_token_lets_in(tmp_path: Path) -> None:
    """A wrong one, or none, is refused at once; no message holds it."""
    token, secret = issue("alice", [Scope.SUBMIT], None, datetime.now(UTC))
    change(tmp_path / "tokens.toml", lambda _: [token])
    gate = Gate(tmp_path / "tokens.toml", now_ms=lambda: 0, report=lambda _: None, limits=SERVE_LIMITS)
    with Reception(tmp_path).running(gate=gate) as reception:
        with Client(reception.address, token=secret, limits=QUICK) as client:
            assert client.send(deposit(1)).status is Status.DURABLE
            assert secret not in repr(client)
        for wrong in (f"{secret}x", ""):
            with Client(reception.address, token=wrong, limits=QUICK) as client:
                with pytest.raises(Rejected, match="refuses") as raised:
                    client.send(deposit(2))
                assert raised.value.exit_code == 2
                assert secret not in str(raised.value)
    for none in ("tökén", "a\nb", "x" * 257):
        with pytest.raises(UsageError, match="no secret") as refused:
            Client(token=none)
        assert none not in str(refused.value)


def test_tls(tmp_path: Path) -> None:
    """With the authority that signed it; anybody else is not talked to. Lost and found again as without."""
    cert, key = certificate(tmp_path)
    with Reception(tmp_path).running(tls=server_context(cert, key)) as reception:
        with (
            closing(Relay(reception.port)) as relay,
            Client(relay.address, tls=tls_context(cert), limits=QUICK) as client,
        ):
            assert statuses(list(client.send_many(deposits(2_000)))) == {Status.DURABLE}
            relay.cut()
            assert client.send(deposit(1)).status is Status.DUPLICATE
        stranger = Client(reception.address, tls=tls_context(), limits=QUICK)
        with stranger, pytest.raises(Rejected, match="certificate"):
            stranger.send(deposit(1))
        with Client(reception.address, limits=IMPATIENT) as client, pytest.raises(ClientError):
            client.send(deposit(1))


def test_tls_where_the_server_has_none(reception: Reception, tmp_path: Path) -> None:
    """The message says what it may be."""
    cert, _ = certificate(tmp_path)
    with (
        Client(reception.address, tls=tls_context(cert), limits=IMPATIENT) as client,
        pytest.raises(ServerAway, match="perhaps it speaks plain TCP"),
    ):
        client.send(deposit(1))


def test_an_authority_that_is_none_is_refused(tmp_path: Path) -> None:
    """Before anything is opened."""
    (tmp_path / "ca.pem").write_text("nothing")
    for path in (tmp_path / "ca.pem", tmp_path / "gone.pem"):
        with pytest.raises(UsageError, match="cannot be used as an authority's certificate"):
            tls_context(path)
