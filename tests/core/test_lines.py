"""The TCP protocol without a socket: whatever the cuts, the same replies; and nothing of a bad line is ever taken."""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftpipe.config import LINE_BYTES_MAX
from hftpipe.core.transaction import Batch
from hftpipe.reception.receipts import BacklogFull, LogAway, Receipts
from hftpipe.reception.tcp.events import TRANSITIONS, Act, Block, BlockBounds, End, Failure, Opening, State
from hftpipe.reception.tcp.lines import LineConnection
from hftpipe.reception.tcp.replies import Code
from hftpipe.validation import Rounding
from tests.core.bad_input import ACCEPTED, SKIPPED, Case, csv_cases, json_cases, json_line

CSV_HEADER = b"type,client,tx,amount,note\n"
CSV_GOOD = b"deposit,5,6,7.5,fine\n"
JSON_GOOD = json_line() + b"\n"
HELLO = b'{"hello":1}\n'
BATCH_HELLO = b'{"hello":1,"replies":"batch"}\n'
LONGEST = LINE_BYTES_MAX - len(b"deposit,1,1,1,")

Reply = dict[str, Any]


def connection(bounds: BlockBounds | None = None) -> LineConnection:
    return LineConnection(rounding=Rounding.REJECT, bounds=bounds or BlockBounds())


def receipts_of(batch: Batch) -> Receipts:
    """Made of line numbers alone, so that they do not depend on blocks: every seventh a duplicate, and so on."""
    rows = batch.rows
    statuses = ((rows % 7 == 0) + 2 * (rows % 11 == 0) * (rows % 7 != 0)).astype(np.uint8)
    return Receipts(1, statuses, rows % 4, rows // 4, rows)


class Peer:
    """Plays the shell: admits everybody, and answers each block at once."""

    def __init__(self, bounds: BlockBounds | None = None) -> None:
        self.lines = connection(bounds)
        self.sent = b""
        self.secrets: list[bytes | None] = []
        self.batches: list[Batch] = []
        self.ends: list[Failure | End] = []

    def go_on(self) -> None:
        while event := self.lines.next_event():
            match event:
                case Opening(secret):
                    self.secrets.append(secret)
                    self.sent += self.lines.admit("pipe", 4)
                case Block():
                    batch = event.validated.batch
                    self.batches.append(batch)
                    self.sent += self.lines.answer(event, receipts_of(batch) if len(batch) else None)
                case Failure():
                    self.sent += event.reply
                    self.ends.append(event)
                case End():
                    self.ends.append(event)

    def feed(self, chunks: Iterable[bytes], *, ended: bool = True) -> "Peer":
        for chunk in chunks:
            self.lines.receive(chunk)
            self.go_on()
        if ended:
            self.lines.receive_end()
            self.go_on()
        return self

    @property
    def replies(self) -> list[Reply]:
        return [orjson.loads(line) for line in self.sent.splitlines()]

    @property
    def rows(self) -> list[object]:
        """What was taken, whatever the blocks."""
        columns = (
            zip(batch.kinds, batch.accounts, batch.amounts, batch.rows, strict=True) for batch in self.batches
        )
        return [tuple(map(str, row)) for part in columns for row in part]


def talk(*chunks: bytes, ended: bool = True) -> list[Reply]:
    return Peer().feed(chunks, ended=ended).replies


def error(replies: list[Reply]) -> tuple[str, int]:
    """The code and line of the last reply, which is an error and says something."""
    assert replies[-1].keys() == {"error", "line", "message"}
    assert replies[-1]["message"]
    return replies[-1]["error"], replies[-1]["line"]


# --- formats --------------------------------------------------------------------------------------------------


def test_a_csv_header_and_its_rows_are_answered_line_by_line() -> None:
    assert talk(CSV_HEADER + CSV_GOOD + b"\n" + b"deposit,1,1,x,\n" + CSV_GOOD) == [
        {"line": 2, "status": "durable", "entry": "2/1-0"},
        {"line": 4, "status": "invalid", "field": "amount", "reason": "bad_amount"},
        {"line": 5, "status": "durable", "entry": "1/1-1"},
    ]


def test_json_lines_need_no_header() -> None:
    assert talk(JSON_GOOD, b"{}\n") == [
        {"line": 1, "status": "durable", "entry": "1/1-0"},
        {"line": 2, "status": "invalid", "field": "kind", "reason": "missing_field"},
    ]


def test_repeats_are_told_with_the_entry_of_the_first() -> None:
    told = {reply["line"]: reply["status"] for reply in talk(JSON_GOOD * 11)}
    assert (told[6], told[7], told[11]) == ("durable", "duplicate", "conflict")


def test_a_hello_is_answered_and_its_line_not_counted() -> None:
    peer = Peer().feed([b'{"hello":1,"replies":"line","token":"s3cret"}\r\n', JSON_GOOD])
    assert peer.secrets == [b"s3cret"]
    assert peer.replies[0] == {"hello": 1, "pipeline": "pipe", "shards": 4}
    assert peer.replies[1]["line"] == 1


def test_a_hello_may_lead_csv_too() -> None:
    assert [reply.get("line") for reply in talk(HELLO, CSV_HEADER, CSV_GOOD)] == [None, 2]


def test_nothing_is_looked_at_before_its_sender_is_let_in() -> None:
    lines = connection()
    lines.receive(CSV_HEADER + CSV_GOOD)
    assert lines.next_event() == Opening(None)
    assert lines.next_event() is None
    assert error([orjson.loads(lines.fail(Code.UNAUTHORIZED, "no"))]) == ("unauthorized", 1)
    assert lines.held == 0


def test_a_batch_reply_sums_up_and_lists_what_is_not_durable() -> None:
    replies = talk(BATCH_HELLO, CSV_HEADER + CSV_GOOD * 4 + b"\nnonsense,1,1,1\n" + CSV_GOOD * 7)
    assert replies[1:] == [
        {
            "lines": [2, 14],
            "durable": 9,
            "duplicate": 1,
            "conflict": 1,
            "invalid": 1,
            "entries": ["0/1-1", "0/1-2", "0/1-3", "1/1-1", "1/1-2", "1/1-3", "2/1-0", "2/1-2", "3/1-0"],
            "rows": [
                {"line": 7, "status": "invalid", "field": "kind", "reason": "bad_kind"},
                {"line": 11, "status": "conflict", "entry": "3/1-2"},
                {"line": 14, "status": "duplicate", "entry": "2/1-3"},
            ],
        }
    ]


def test_blank_lines_alone_have_no_reply() -> None:
    assert talk(HELLO, CSV_HEADER, b"\n \t\r\n") == talk(HELLO)
    assert talk(BATCH_HELLO, CSV_HEADER, b"\n \t\r\n") == talk(BATCH_HELLO)


def test_a_batch_of_invalid_lines_has_no_entries() -> None:
    (reply,) = talk(BATCH_HELLO, b"{}\n")[1:]
    assert (reply["durable"], reply["entries"], [row["line"] for row in reply["rows"]]) == (0, [], [1])


def test_foreign_text_in_a_reply_is_escaped() -> None:
    key = '50% \\" \\u001b[2J'
    assert talk(json_line(more=f',"{key}":1') + b"\n" + JSON_GOOD)[0] == {
        "line": 1,
        "status": "invalid",
        "field": '50% " \\x1b[2J',
        "reason": "bad_json",
    }


# --- what is no hello, no object and no header ----------------------------------------------------------------


@pytest.mark.parametrize(
    "octets",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /v1/transactions HTTP/1.1\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"BREW /pot HTTP/1.0\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"*1\r\n$4\r\nPING\r\n",
        b"$4\r\n",
        b"\x00\x01\x02",
        b"\xff\xfe\x00\n",
        "type,client\n".encode("utf-16-le"),
        b"\x80\x81\n",
        b"type,client,tx\x00,amount\n",
        HELLO + b"GET / HTTP/1.1\r\n",
    ],
)
def test_another_protocol_is_told_apart(octets: bytes) -> None:
    assert error(talk(octets)) == ("protocol", 1)


def test_tls_is_told_apart_by_its_first_byte() -> None:
    assert error(talk(b"\x16", ended=False)) == ("protocol", 1)


@pytest.mark.parametrize(
    ("hello", "told"),
    [
        (b'{"hello":1,"tokken":"abc"}', "'tokken'"),
        (b'{"hello":2}', "version"),
        (b'{"hello":true}', "version"),
        (b'{"hello":"1"}', "version"),
        (b'{"hello":1,"replies":"all"}', "line, batch"),
        (b'{"hello":1,"replies":[]}', "line, batch"),
        (b'{"hello":1,"token":7}', "token"),
        (b'{"hello":1,"token":"\\ud800"}', "not a JSON object"),
        (b'{"hello":1,', "not a JSON object"),
        (b'{"hello":1}{"hello":1}', "not a JSON object"),
    ],
)
def test_a_hello_is_judged_strictly(hello: bytes, told: str) -> None:
    replies = talk(hello + b"\n")
    assert error(replies) == ("protocol", 1)
    assert told in replies[0]["message"]


def test_a_token_is_in_no_text() -> None:
    peer = Peer().feed([b'{"hello":1,"replies":"?","token":"s3cret"}\n'])
    assert b"s3cret" not in peer.sent
    assert "s3cret" not in repr(Opening(b"s3cret"))


@pytest.mark.parametrize(
    ("header", "told"),
    [
        (b"a,b,c\n", "kind column"),
        (b"type;client;tx;amount\n", "semicolons"),
        (b"type,type,client\n", "twice"),
        (b"\n", "blank"),
        (b"deposit,1,1,10.0\n", "kind column"),
    ],
)
def test_a_header_that_will_not_do_is_refused_with_a_hint(header: bytes, told: str) -> None:
    replies = talk(header, CSV_GOOD)
    assert error(replies) == ("bad_header", 1)
    assert told in replies[0]["message"]


def test_a_byte_order_mark_is_reported_and_the_rest_goes_on() -> None:
    report = {"line": 1, "status": "invalid", "field": "", "reason": "bad_encoding"}
    for first, good in ((CSV_HEADER, CSV_GOOD), (JSON_GOOD, JSON_GOOD)):
        replies = talk(b"\xef\xbb\xbf" + first, good)
        assert replies == [report, {"line": 2, "status": "durable", "entry": "2/1-0"}]


# --- ends -----------------------------------------------------------------------------------------------------


def test_an_end_between_lines_is_clean() -> None:
    for octets in (b"", HELLO, CSV_HEADER, CSV_HEADER + CSV_GOOD):
        assert Peer().feed([octets]).ends == [End()]


def test_a_line_without_its_end_is_dropped() -> None:
    peer = Peer().feed([CSV_HEADER + CSV_GOOD + b"deposit,1,1,10"])
    assert peer.replies[0] == {"line": 2, "status": "durable", "entry": "2/1-0"}
    assert error(peer.replies) == ("incomplete_line", 3)
    assert [len(batch) for batch in peer.batches] == [1]


def test_an_unfinished_hello_or_header_is_an_incomplete_line() -> None:
    assert error(talk(b'{"hello":1}')) == ("incomplete_line", 1)
    assert error(talk(HELLO + CSV_HEADER.strip())) == ("incomplete_line", 1)


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_line_of_exactly_the_limit_is_taken(end: bytes) -> None:
    line = b"deposit,1,1,1," + b"x" * LONGEST
    assert talk(CSV_HEADER + line + end + CSV_GOOD)[-1]["line"] == 3
    (over, *_) = talk(CSV_HEADER + line + b"x" + end + CSV_GOOD)
    assert (over["error"], over["line"]) == ("line_too_long", 2)


def test_the_tail_of_an_over_long_line_is_never_parsed() -> None:
    tail = b"x" * 200_000 + b"\nwithdrawal,5,7,1.0,\n"
    for octets in (CSV_HEADER + CSV_GOOD + tail, CSV_HEADER + tail, tail, b"{" + tail, HELLO + tail):
        peer = Peer().feed(octets[at : at + 10_000] for at in range(0, len(octets), 10_000))
        assert error(peer.replies)[0] == "line_too_long"
        assert "W" not in "".join(batch.kinds for batch in peer.batches)
        assert peer.lines.held == 0


def test_an_over_long_line_is_known_before_it_ends() -> None:
    peer = Peer().feed([CSV_HEADER, b"x" * LINE_BYTES_MAX, b"x"], ended=False)
    assert error(peer.replies) == ("line_too_long", 2)


def test_told_that_nothing_more_comes_it_answers_what_is_complete() -> None:
    peer = Peer()
    peer.lines.receive(CSV_HEADER + CSV_GOOD + b"depo")
    peer.lines.receive_end(Code.TIMEOUT)
    peer.lines.receive(b"sit,1,1,1,\n")
    peer.go_on()
    assert peer.replies[0]["status"] == "durable"
    assert error(peer.replies) == ("timeout", 3)


@pytest.mark.parametrize(
    ("fault", "reason"), [(LogAway("away", in_doubt=True), "log_away"), (BacklogFull("full"), "backlog_full")]
)
def test_busy_names_the_first_line_that_is_not_acknowledged(
    fault: LogAway | BacklogFull, reason: str
) -> None:
    peer = Peer().feed([CSV_HEADER], ended=False)
    peer.lines.receive(b"\nnonsense\n" + CSV_GOOD)
    block = peer.lines.next_event()
    assert isinstance(block, Block)
    assert orjson.loads(peer.lines.busy(block, fault)) == {
        "line": 3,
        "status": "busy",
        "reason": reason,
        "retry_after": 1,
    }
    assert peer.lines.state is State.CLOSED


def test_a_block_is_bounded_in_bytes_and_in_lines() -> None:
    peer = Peer(BlockBounds(bytes_max=LINE_BYTES_MAX + 2, lines_max=10)).feed([CSV_HEADER + CSV_GOOD * 95])
    assert [len(batch) for batch in peer.batches] == [10] * 9 + [5]
    assert [reply["line"] for reply in peer.replies] == list(range(2, 97))
    peer = Peer(BlockBounds(bytes_max=5_000)).feed([CSV_HEADER + CSV_GOOD * 1_000])
    assert max(len(batch) for batch in peer.batches) == 5_000 // len(CSV_GOOD)


def test_bad_lines_are_taken_in_small_blocks() -> None:
    peer = Peer().feed([CSV_HEADER + CSV_GOOD * 3_000])
    assert [len(batch) for batch in peer.batches] == [256, 2_744]
    peer = Peer().feed([CSV_HEADER + CSV_GOOD * 256 + b"x\n" * 4_096 + CSV_GOOD * 1_000])
    assert [len(batch) for batch in peer.batches] == [256, 0, 256, 744]


def test_an_unfinished_line_is_known_by_where_it_began() -> None:
    lines = connection()
    assert lines.unfinished is None
    lines.receive(b"ab")
    lines.receive(b"c")
    assert lines.unfinished == 0
    lines.receive(b"\nde\n")
    assert lines.unfinished is None
    lines.receive(b"f")
    assert lines.unfinished == 7


def test_every_state_can_be_left_and_closing_is_for_ever() -> None:
    assert {state for state, _ in TRANSITIONS} == set(State)
    assert {act for _, act in TRANSITIONS} == set(Act)
    lines = connection()
    with pytest.raises(KeyError):
        lines.admit("pipe", 4)


# --- every line of BAD_INPUT ----------------------------------------------------------------------------------


def shortened(case: Case) -> str:
    return f"{case.line[:40]!r}-{case.outcome}"


def check(first: bytes, good: bytes, case: Case) -> None:
    """The line has its outcome, and its neighbours theirs; one that is over-long ends the connection."""
    replies = talk(first + good + case.line + b"\n" + good)
    number = first.count(b"\n") + 2
    if case.outcome == "line_too_long":
        assert len(replies) == 2
        assert error(replies) == ("line_too_long", number)
        return
    told = {reply["line"]: reply for reply in replies}
    assert (told[number - 1]["status"], told[number + 1]["status"]) == ("durable", "durable")
    if case.outcome == SKIPPED:
        assert len(told) == 2
    elif case.outcome == ACCEPTED:
        assert told[number]["status"] == "durable"
    else:
        expected = {"line": number, "status": "invalid", "field": case.field, "reason": case.outcome}
        assert told[number] == expected


@pytest.mark.parametrize("case", csv_cases(), ids=shortened)
def test_a_csv_line_has_its_outcome(case: Case) -> None:
    check(CSV_HEADER, CSV_GOOD, case)


@pytest.mark.parametrize("case", json_cases(), ids=shortened)
def test_a_json_line_has_its_outcome(case: Case) -> None:
    check(b"", JSON_GOOD, case)


# --- cuts -----------------------------------------------------------------------------------------------------

_PIECES = [
    HELLO,
    CSV_HEADER,
    CSV_GOOD,
    b"deposit,1,2,3\r\n",
    b"\n",
    b" \r\n",
    b"nonsense\n",
    b'deposit,1,"2,3\n',
    JSON_GOOD,
    b"{}\n",
    b"\xef\xbb\xbf",
    b"\xff\n",
    b"x" * (LINE_BYTES_MAX - 1),
    b"xx",
    b"\r",
    b"{",
    b"*",
    b"GET / ",
]

_SHORT_STREAMS = [
    b'{"hello":1,"token":"t"}\r\n' + CSV_HEADER + b"\n" + CSV_GOOD + b"deposit,1,1,1\r\nx\ndeposit,1,1,1",
    JSON_GOOD + b"\r\n" + b"{}\n" + JSON_GOOD,
    b"\xef\xbb\xbf" + CSV_HEADER + CSV_GOOD,
    b"GET / HTTP/1.1\r\n\r\n",
    b"*1\r\n$4\r\nPING\r\n",
    CSV_HEADER + b"deposit,1,1,1," + b"x" * LONGEST + b"\r\n" + CSV_GOOD,
    CSV_HEADER + b"deposit,1,1,1," + b"x" * (LONGEST + 1) + b"\r\n" + CSV_GOOD,
]


def outcome(chunks: Iterable[bytes]) -> tuple[bytes, list[object], int]:
    peer = Peer().feed(chunks)
    return peer.sent, peer.rows, len(peer.ends)


def every_cut(octets: bytes) -> Iterator[list[bytes]]:
    """Byte by byte; and in two pieces, at every place that is near a line end or the length limit."""
    yield [octets[at : at + 1] for at in range(len(octets))]
    for at in range(len(octets)):
        if at < 300 or len(octets) - at < 60 or at % 199 == 0:
            yield [octets[:at], octets[at:]]


@pytest.mark.parametrize("octets", _SHORT_STREAMS, ids=lambda octets: repr(octets[:20]))
def test_cuts_change_nothing(octets: bytes) -> None:
    whole = outcome([octets])
    assert whole[2] == 1
    for chunks in every_cut(octets):
        assert outcome(chunks) == whole


@given(st.lists(st.sampled_from(_PIECES), max_size=12), st.data())
def test_whatever_is_sent_cuts_change_nothing(pieces: list[bytes], data: st.DataObject) -> None:
    octets = b"".join(pieces)
    places = st.lists(st.integers(0, len(octets)), max_size=6).map(sorted)
    cuts = [0, *data.draw(places), len(octets)]
    chunks = [octets[start:end] for start, end in pairwise(cuts)]
    assert outcome(chunks) == outcome([octets])


@given(st.binary(max_size=200))
def test_any_bytes_are_answered_or_end_it(octets: bytes) -> None:
    peer = Peer().feed([octets])
    assert len(peer.ends) == 1
    assert all(peer.replies)


def test_many_lines_have_the_replies_that_few_have() -> None:
    """The columnar validators take the large blocks, the plain ones the small ones."""
    mixed = [case.line for case in csv_cases() if case.outcome != "line_too_long"]
    octets = CSV_HEADER + b"\n".join([*mixed, CSV_GOOD]) + b"\n"
    assert outcome([octets]) == outcome(line + b"\n" for line in octets.split(b"\n")[:-1])
