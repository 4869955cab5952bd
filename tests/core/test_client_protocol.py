"""The client's side of the protocol, against the server's own: both are pure, so any cut and any loss can be tried."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftpipe.client import BatchReceipt, InDoubt, Kind, NotOurServer, Receipt, Rejected, Status, Transaction
from hftpipe.client.courier import endpoint
from hftpipe.client.delivery import Delivery, Hello
from hftpipe.client.outbox import Outbox
from hftpipe.client.passage import sifted, skipped
from hftpipe.client.replies import Closing, NotAReply, ReplyReader, Welcome, reply_of
from hftpipe.config import LINE_BYTES_MAX
from hftpipe.core.transaction import Batch
from hftpipe.errors import UsageError
from hftpipe.reception.receipts import LogAway, Receipts
from hftpipe.reception.receipts import Status as Told
from hftpipe.reception.tcp.events import Block, BlockBounds, Failure, Opening
from hftpipe.reception.tcp.lines import LineConnection
from hftpipe.validation import CsvValidator, JsonlValidator, Rounding
from tests.core.model import Model

HEADER = b"type,client,tx,amount"


@dataclass
class Server:
    """The server's real protocol over a log that is a list; connections come and go."""

    lines_max: int = 3
    log: list[tuple[int | None, int]] = field(default_factory=list)
    is_away: bool = False
    connection: LineConnection = field(init=False)

    def __post_init__(self) -> None:
        self.connect()

    def connect(self) -> None:
        self.connection = LineConnection(
            rounding=Rounding.REJECT, bounds=BlockBounds(1 << 16, self.lines_max)
        )

    def feed(self, octets: bytes) -> bytes:
        """Everything that the server says to some bytes."""
        self.connection.receive(octets)
        return b"".join(self._replies())

    def _replies(self) -> Iterator[bytes]:
        while (event := self.connection.next_event()) is not None:
            match event:
                case Opening():
                    yield self.connection.admit("p", 4)
                case Block() if self.is_away and event.validated.rows:
                    yield self.connection.busy(event, LogAway("away"))
                    return
                case Block():
                    batch = event.validated.batch
                    yield self.connection.answer(event, self.append(batch) if len(batch) else None)
                case Failure():
                    yield event.reply
                    return

    def append(self, batch: Batch) -> Receipts:
        known = {tx: at for at, (tx, _) in enumerate(self.log) if tx is not None}
        statuses, places = [], []
        for at in range(len(batch)):
            tx = None if batch.txs is None else int(batch.txs[at])
            is_known = tx in known
            place = known[tx] if tx is not None and is_known else len(self.log)
            if not is_known:
                self.log.append((tx, int(batch.amounts[at])))
                known |= {tx: place} if tx is not None else {}
            same = self.log[place][1] == int(batch.amounts[at])
            statuses.append(Told.DURABLE if not is_known else Told.DUPLICATE if same else Told.CONFLICT)
            places.append(place)
        zeros = np.zeros(len(batch), dtype=np.int64)
        return Receipts(1, np.array(statuses, dtype=np.uint8), zeros, np.array(places), zeros)


def move(delivery: Delivery, server: Server, count: int = 1 << 20) -> bytes:
    """Sends up to so many bytes; what the server says to them."""
    outgoing = bytes(delivery.outgoing()[:count])
    delivery.sent(len(outgoing))
    return server.feed(outgoing)


def run(delivery: Delivery, server: Server) -> list[Receipt | BatchReceipt]:
    """To the end, over one connection more."""
    receipts: list[Receipt | BatchReceipt] = []
    delivery.connect()
    server.connect()
    while not delivery.is_done or not delivery.is_welcome:
        receipts += delivery.receive(move(delivery, server))
        assert delivery.closing is None, delivery.closing
    return receipts


def deposit(tx: int, amount: int = 1) -> bytes:
    return b"deposit,1,%d,%d\n" % (tx, amount)


def sent(
    *lines: bytes, replies: str = "line", header: bytes | None = HEADER, first_line: int = 2
) -> Delivery:
    """A delivery that has the lines."""
    hello = Hello("line" if replies == "line" else "batch")
    delivery = Delivery(hello, header=header, first_line=first_line)
    for line in lines:
        delivery.add(line, line.count(b"\n"))
    return delivery


# --- one connection ---------------------------------------------------------------------------------------------


def test_each_line_gets_its_receipt() -> None:
    """Durable, duplicate, conflict, invalid: with the numbers of the file."""
    delivery = sent(deposit(1), deposit(2), b"\n", deposit(1), deposit(2, 5), b"deposit,1,x,1\n")
    assert run(delivery, Server()) == [
        Receipt(2, Status.DURABLE, "0/1-0"),
        Receipt(3, Status.DURABLE, "0/1-1"),
        Receipt(5, Status.DUPLICATE, "0/1-0"),
        Receipt(6, Status.CONFLICT, "0/1-1"),
        Receipt(7, Status.INVALID, "", "tx", "bad_tx"),
    ]


def test_a_batch_of_lines_gets_one_receipt() -> None:
    """With the text of what was not taken, which the sender does not know otherwise."""
    lines = deposit(1) + deposit(1, 2) + b"\n" + b"nothing\r\n" + deposit(1)
    (receipt,) = run(sent(lines, replies="batch"), Server(lines_max=9))
    assert isinstance(receipt, BatchReceipt)
    assert (receipt.first, receipt.last, receipt.lines) == (2, 6, 4)
    assert (receipt.durable, receipt.duplicate, receipt.conflict, receipt.invalid) == (1, 1, 1, 1)
    assert [(row.line, row.status, row.text) for row in receipt.rows] == [
        (3, Status.CONFLICT, b"deposit,1,1,2"),
        (5, Status.INVALID, b"nothing\r"),
        (6, Status.DUPLICATE, b""),
    ]


def test_nothing_is_sent_before_the_hello_is_answered() -> None:
    """Whatever listens there, it never sees a transaction unless it speaks this protocol."""
    delivery = sent(deposit(1))
    delivery.connect()
    hello = bytes(delivery.outgoing())
    assert hello == b'{"hello":1,"replies":"line"}\n'
    delivery.sent(len(hello))
    assert not delivery.outgoing()
    assert not list(delivery.receive(b'{"hello":1,"pipeline":"p","shards":4}\n'))
    assert bytes(delivery.outgoing()) == HEADER + b"\n" + deposit(1)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"-ERR unknown command\r\n",
        b"\x15\x03\x03\x00\x02\x02\x32",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b'{"hello":2}\n',
        b'{"hello":1,"pipeline":"p"}\n',
        b"[1]\n",
        b'{"line":1,"status":"durable","entry":"0/1-0"}\n',
        b"{" * 5_000,
    ],
)
def test_whoever_speaks_another_protocol_is_told_apart(answer: bytes) -> None:
    """At its first bytes, and shown in the message."""
    delivery = sent(deposit(1))
    delivery.connect()
    with pytest.raises(NotOurServer, match="hftpipe serve"):
        list(delivery.receive(answer))


@pytest.mark.parametrize(
    "answer",
    [
        b'{"line":3,"status":"durable","entry":"0/1-0"}\n',
        b'{"line":1,"status":"durable","entry":"0/1-0"}\n',
        b'{"line":9,"status":"durable","entry":"0/1-0"}\n',
        b'{"line":2,"status":"wonderful","entry":"0/1-0"}\n',
        b'{"line":true,"status":"durable","entry":"0/1-0"}\n',
        b'{"line":2,"status":"durable"}\n',
        b'{"lines":[2,3],"durable":2,"duplicate":0,"conflict":0,"invalid":0,"entries":[],"rows":[]}\n',
    ],
)
def test_a_server_that_leaves_out_lines_is_not_trusted(answer: bytes) -> None:
    """Nothing is silently skipped: a receipt out of turn ends it, with the first line that is not acknowledged."""
    delivery, server = sent(deposit(1), deposit(2)), Server()
    delivery.connect()
    list(delivery.receive(move(delivery, server)))
    delivery.sent(len(delivery.outgoing()))
    with pytest.raises(NotOurServer) as raised:
        list(delivery.receive(answer))
    assert raised.value.line == 2


def test_a_batch_that_leaves_out_lines_is_not_trusted() -> None:
    """Its counts must be those of the lines that are not blank."""
    delivery, server = sent(deposit(1) + b" \n" + deposit(2), replies="batch"), Server()
    delivery.connect()
    list(delivery.receive(move(delivery, server)))
    delivery.sent(len(delivery.outgoing()))
    with pytest.raises(NotOurServer):
        list(
            delivery.receive(
                b'{"lines":[2,4],"durable":1,"duplicate":0,"conflict":0,"invalid":0,"entries":[],"rows":[]}\n'
            )
        )


def test_what_the_server_refuses_for_good_is_not_tried_again() -> None:
    """Token and header: the message says which, never the token itself."""
    delivery = Delivery(Hello("line", "hft_secret"), header=None)
    delivery.connect()
    with pytest.raises(Rejected, match="the token") as raised:
        list(delivery.receive(b'{"error":"unauthorized","message":"a valid token is needed"}\n'))
    assert "hft_secret" not in str(raised.value)
    assert "hft_secret" not in repr(Hello("line", "hft_secret"))
    with pytest.raises(Rejected, match=r"the header: .* names no kind"):
        run(sent(deposit(1), header=b"a,b,c"), Server())


@pytest.mark.parametrize("code", ["stopping", "timeout", "too_many_connections"])
def test_a_passing_error_lets_it_go_on(code: str) -> None:
    """The connection is over; the lines are due again."""
    delivery = sent(deposit(1))
    delivery.connect()
    assert not list(delivery.receive(b'{"error":"%s","line":0,"message":"later"}\n' % code.encode()))
    assert delivery.closing is not None
    assert not delivery.outgoing()


def test_a_busy_server_acknowledges_what_is_before() -> None:
    """And says when to come again."""
    delivery, server = sent(*map(deposit, range(5))), Server(lines_max=2)
    delivery.connect()
    list(delivery.receive(move(delivery, server)))
    lines = bytes(delivery.outgoing())
    delivery.sent(len(lines))
    cut = len(HEADER) + 1 + 2 * len(deposit(1))
    assert len(list(delivery.receive(server.feed(lines[:cut])))) == 2
    server.is_away = True
    assert not list(delivery.receive(server.feed(lines[cut:])))
    assert delivery.closing == Closing("busy", 4, "log_away", 1_000)
    delivery.disconnect("busy")
    assert delivery.first_due == 4


# --- several connections ------------------------------------------------------------------------------------------


def test_another_pipeline_under_the_same_address_is_refused() -> None:
    """It does not know the ids that were sent before."""
    delivery = sent(deposit(1))
    delivery.connect()
    list(delivery.receive(b'{"hello":1,"pipeline":"p","shards":4}\n'))
    delivery.disconnect("lost")
    delivery.connect()
    with pytest.raises(NotOurServer, match="pipeline 'q'"):
        list(delivery.receive(b'{"hello":1,"pipeline":"q","shards":4}\n'))


def test_what_has_no_id_is_not_sent_again_unasked() -> None:
    """The error names the first line that may be there or not; what never left is in no doubt."""
    delivery = Delivery(Hello("batch"), header=b"type,client,amount", first_line=2, resends=False)
    delivery.add(b"deposit,1,1\n" * 5, 5)
    server = Server(lines_max=2)
    delivery.connect()
    list(delivery.receive(move(delivery, server)))
    delivery.disconnect("lost")
    delivery.connect()
    server.connect()
    list(delivery.receive(move(delivery, server)))
    replies = move(delivery, server)
    list(delivery.receive(replies[: replies.index(b"\n") + 1]))
    with pytest.raises(InDoubt, match="Line 4 and those behind it") as raised:
        delivery.disconnect("lost")
    assert raised.value.line == 4
    assert len(server.log) == 5


def lines_of(kind: str) -> st.SearchStrategy[list[bytes]]:
    """Lines of a source: good ones whose ids repeat, bad ones, blank ones."""
    csv = [deposit(tx, amount) for tx in range(6) for amount in (1, 2)]
    json = [b'{"type":"deposit","client":1,"tx":%d,"amount":%d}\n' % (tx, 1 + tx % 2) for tx in range(8)]
    odd = [b"\n", b" \t\r\n", b"what,is,this\n", b"{}\n", b"\xff\n", b'{"hello":1}\n', b"a" * 4_096 + b"\n"]
    return st.lists(st.sampled_from((csv if kind == "csv" else json) + odd), max_size=24)


def expected(lines: list[bytes], kind: str) -> tuple[list[int], list[int]]:
    """Lines that are invalid, and lines that are valid, in a whole file."""
    rules = JsonlValidator() if kind == "json" else CsvValidator.from_header(HEADER)
    if not lines:
        return [], []
    validated = rules.validate(b"".join(lines), 1 if kind == "json" else 2)
    return [row.line for row in validated.invalid], validated.batch.rows.tolist()


@settings(max_examples=120, deadline=None)
@given(
    st.data(), st.sampled_from(["csv", "json"]), st.sampled_from(["line", "batch"]), st.integers(0, 1 << 30)
)
def test_whatever_is_cut_or_lost_every_line_is_answered_once(
    data: st.DataObject, kind: str, replies: str, seed: int
) -> None:
    """In order; each id is in the log once; a lost acknowledgement becomes a duplicate, never a second row."""
    lines, random, server = data.draw(lines_of(kind)), Random(seed), Server()
    first_line = 1 if kind == "json" else 2
    delivery = sent(replies=replies, header=None if kind == "json" else HEADER, first_line=first_line)
    at, receipts = 0, list[Receipt | BatchReceipt]()
    delivery.connect()
    for _ in range(40):
        count = random.randint(0, 4)
        if lines[at : at + count]:
            delivery.add(b"".join(lines[at : at + count]), len(lines[at : at + count]))
            at += count
        said = move(delivery, server, random.choice([3, 40, 1 << 20]))
        server.is_away = random.random() < 0.05
        cut = random.randint(0, len(said))
        receipts += delivery.receive(said[:cut])
        if random.random() < 0.2 or server.connection.state.name == "CLOSED":
            delivery.disconnect("lost")
            delivery.connect()
            server.connect()
        else:
            receipts += delivery.receive(said[cut:])
        if delivery.closing is not None:
            delivery.disconnect("busy")
            delivery.connect()
            server.connect()
    if lines[at:]:
        delivery.add(b"".join(lines[at:]), len(lines[at:]))
    delivery.disconnect("lost")
    server.is_away = False
    receipts += run(delivery, server)
    invalid, valid = expected(lines, kind)
    counts = [receipt.lines if isinstance(receipt, BatchReceipt) else 1 for receipt in receipts]
    assert sum(counts) == len(invalid) + len(valid)
    ends = [receipt.last if isinstance(receipt, BatchReceipt) else receipt.line for receipt in receipts]
    assert ends == sorted(set(ends))
    rows = [
        row
        for receipt in receipts
        for row in (receipt.rows if isinstance(receipt, BatchReceipt) else [receipt])
    ]
    assert [row.line for row in rows if row.status is Status.INVALID] == invalid
    if replies == "batch":
        texts = [row.text + b"\n" for row in rows if row.status is Status.INVALID]
        assert texts == [lines[line - first_line] for line in invalid]
    ids = [tx for tx, _ in server.log]
    assert len(ids) == len(set(ids))


def test_only_blank_lines_are_nobodys_business() -> None:
    """No receipt comes for them, none is waited for, and they do not fill the window."""
    delivery, server = sent(b"\n" * 1_000, b" \r\n" * 1_000, replies="batch"), Server()
    assert delivery.is_done
    assert not run(delivery, server)
    while delivery.outgoing():
        assert not list(delivery.receive(move(delivery, server)))
    assert delivery.outbox.bytes_held == 0
    delivery.add(deposit(1), 1)
    (receipt,) = delivery.receive(move(delivery, server))
    assert isinstance(receipt, BatchReceipt)
    assert receipt.last == 2_002


TX_OF_ACCOUNT = 4


def came_too_early(model: Model, kind: str, account: int, tx: int, amount: int) -> bool:
    """Tells the model a row, unless it would be refused for something that a later row may bring."""
    if kind in "PC" and model.tell(kind, account, tx, amount) in {"unknown_tx", "not_disputed"}:
        model.history.pop()
        return True
    if kind not in "PC":
        model.tell(kind, account, tx, amount)
    return False


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_tail_that_is_sent_again_comes_to_the_same(data: st.DataObject) -> None:
    """What `Client` says of disputes, resolves and chargebacks, which have no id by which a repeat could be told.

    Of each account any beginning of the tail is in the log; then all of it comes again, but for deposits and
    withdrawals that were told as duplicates. Left out are those that were refused only because they came too early.
    """
    kinds = st.sampled_from("DDWPPRRC")
    rows = data.draw(
        st.lists(st.tuples(kinds, st.integers(0, 1), st.integers(0, TX_OF_ACCOUNT - 1)), max_size=14)
    )
    tail = [
        (kind, account, account * 100 + (tx if kind != "W" else 50 + at), 1 + tx)
        for at, (kind, account, tx) in enumerate(rows)
    ]
    once, again = Model(), Model()
    for account in (0, 1):
        for model in (once, again):
            model.tell("D", account, account * 100, 1)
    tail = [row for row in tail if not came_too_early(once, *row)]
    landed = [data.draw(st.integers(0, len(tail))) for _ in range(2)]
    for at, (kind, account, tx, amount) in enumerate(tail):
        if at < landed[account]:
            again.tell(kind, account, tx, amount)
    for kind, account, tx, amount in tail:
        if kind not in "DW" or tx not in again.taken():
            again.tell(kind, account, tx, amount)
    for account in (0, 1):
        assert again.balance(account) == once.balance(account)
    assert again.disputes() == once.disputes()


# --- parts ----------------------------------------------------------------------------------------------------------


def test_short_stretches_leave_together() -> None:
    """A write of its own for each would cost more than the line."""
    outbox = Outbox(1)
    for number in range(3):
        outbox.add(b"%d\n" % number, 1)
    assert bytes(outbox.outgoing()) == b"0\n1\n2\n"
    outbox.sent(3)
    assert outbox.last_sent == 2
    assert bytes(outbox.outgoing()) == b"\n"
    outbox.acknowledge(1)
    assert (outbox.lines_held, outbox.bytes_held) == (2, 4)
    outbox.rewind()
    assert bytes(outbox.outgoing()) == b"1\n2\n"


def test_replies_are_read_however_they_are_cut() -> None:
    """Byte by byte as at once."""
    said = b'{"hello":1,"pipeline":"p","shards":4}\n{"line":1,"status":"durable","entry":"3/1-7"}\n'
    together = list(ReplyReader().feed(said))
    assert together == [Welcome("p", 4), Receipt(1, Status.DURABLE, "3/1-7")]
    reader = ReplyReader()
    assert [reply for octet in said for reply in reader.feed(bytes([octet]))] == together


@given(st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
def test_no_reply_raises_anything_but_what_it_says(octets: bytes) -> None:
    """Whatever a server sends."""
    try:
        reply_of(octets)
    except NotAReply:
        return


def test_a_transaction_is_a_line_of_json() -> None:
    """Amounts exactly as they were given."""
    line = Transaction(Kind.DEPOSIT, 1, 2, "10.00").line()
    assert line == b'{"type":"deposit","account":1,"tx":2,"amount":"10.00"}\n'
    assert b'"amount":"0.0001"' in Transaction(Kind.WITHDRAWAL, 1, 2, Decimal("1E-4")).line()
    assert b'"amount":10' in Transaction(Kind.DEPOSIT, 1, 2, 10).line()
    assert Transaction(Kind.DISPUTE, 1, 2).line() == b'{"type":"dispute","account":1,"tx":2}\n'


def test_what_cannot_be_written_down_raises() -> None:
    """A float, and what no server would look at."""
    with pytest.raises(TypeError, match="float"):
        Transaction(Kind.DEPOSIT, 1, 2, 10.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="64 bits"):
        Transaction(Kind.DEPOSIT, 1 << 64, 2, "1")
    with pytest.raises(ValueError, match="characters"):
        Transaction(Kind.DEPOSIT, 1, 2, "9" * 5_000)


def test_over_long_lines_are_taken_out_and_keep_their_number() -> None:
    """One would end the connection; the server's limit is the same for all."""
    longest = b"x" * LINE_BYTES_MAX
    lines = b"a\n" + longest + b"\n" + longest + b"\r\n" + longest + b"y\n" + b"z" * 10_000 + b"\r\nb\n"
    piece = sifted(lines, 7)
    assert piece.octets == b"a\n" + longest + b"\n" + longest + b"\r\n\n\nb\n"
    assert piece.count == 6
    assert [(row.line, row.status, row.reason) for row in piece.overlong] == [
        (10, Status.INVALID, "line_too_long"),
        (11, Status.INVALID, "line_too_long"),
    ]


def test_lines_before_the_wanted_one_are_left_away() -> None:
    """Of each block those that are behind it."""
    assert skipped(b"a\nb\nc\n", 1, 1) == b"a\nb\nc\n"
    assert skipped(b"a\nb\nc\n", 1, 3) == b"c\n"
    assert skipped(b"a\nb\nc", 1, 4) == b""
    assert skipped(b"a\nb\n", 5, 3) == b"a\nb\n"


@pytest.mark.parametrize(
    "address", ["", "7070", "host:", ":7070", "host:0", "host:65536", "host:x", "::1:7070", "[host]:1"]
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    """Before anything is opened."""
    with pytest.raises(UsageError, match="HOST:PORT"):
        endpoint(address)


def test_addresses() -> None:
    """Names, numbers, and IPv6 in brackets."""
    assert str(endpoint("example.org:7070")) == "example.org:7070"
    assert endpoint("[::1]:7070").host == "::1"
    assert str(endpoint("[::1]:7070")) == "[::1]:7070"
