"""Transactions over HTTP, before the real desk: what is answered, to whom, and when it is not."""

import asyncio
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from hftpipe.config import IngestLimits
from hftpipe.core.entry import encode
from hftpipe.core.transaction import Batch
from hftpipe.errors import UsageError
from hftpipe.ports import Outgoing
from tests.shell.http_hall import (
    LIMITS_OF_HTTP,
    NDJSON,
    HttpHall,
    deposit,
    guarded,
    request,
    run,
    until,
)


@pytest.fixture
def hall(tmp_path: Path) -> HttpHall:
    return HttpHall(tmp_path)


def test_one_transaction_is_durable_and_a_repeat_is_told(hall: HttpHall) -> None:
    async def scenario() -> None:
        async with hall.serving(), hall.client() as client:
            first = await client.send(deposit(1, account=2))
            assert (first.status, first.json) == (200, {"status": "durable", "entry": "2/1-0"})
            again = await client.send(deposit(1, account=2))
            assert again.json == {"status": "duplicate", "entry": "2/1-0", "outcome": None}
            await asyncio.to_thread(hall.work)
            applied = await client.send(deposit(1, account=2))
            assert applied.json == {"status": "duplicate", "entry": "2/1-0", "outcome": "applied"}
            other = await client.send(deposit(1, account=2, amount="5"))
            assert (other.status, other.json) == (409, {"status": "conflict", "entry": "2/1-0"})
            assert hall.appended() == 1

    run(scenario)


def test_one_transaction_that_breaks_a_rule_is_told_which(hall: HttpHall) -> None:
    async def scenario() -> None:
        async with hall.serving(), hall.client() as client:
            broken = await client.send(deposit(1, amount="1.00001"))
            assert broken.status == 422
            assert broken.json == {"status": "invalid", "field": "amount", "reason": "too_precise"}
            repeated = await client.send(deposit(1)[:-1] + b',"tx":2}')
            assert repeated.json == {"status": "invalid", "field": "tx", "reason": "bad_json"}
            assert hall.appended() == 0

    run(scenario)


@pytest.mark.parametrize(
    "body", [b"", b" ", b"1", b"null", b'"text"', b"{", b'{"a":}', b"[", b"[1,]", b"{}{}", b"\xef\xbb\xbf{}"]
)
def test_what_is_no_json_as_a_whole_is_refused_as_a_whole(hall: HttpHall, body: bytes) -> None:
    async def scenario() -> None:
        async with hall.serving(), hall.client() as client:
            refused = await client.send(body)
            assert (refused.status, refused.json["error"]) == (400, "bad_json")
            assert (await client.send(deposit(1))).status == 200

    run(scenario)


BATCH = [
    deposit(1, account=4),
    deposit(2, account=5, amount="0"),
    deposit(3, account=4),
    b'{"type":"deposit"}',
    deposit(1, account=4),
    deposit(1, account=4, amount="11"),
    b"[]",
]
RESULTS = [
    {"index": 0, "status": "durable", "entry": "0/1-0"},
    {"index": 1, "status": "invalid", "field": "amount", "reason": "amount_not_positive"},
    {"index": 2, "status": "durable", "entry": "0/1-0"},
    {"index": 3, "status": "invalid", "field": "account", "reason": "missing_field"},
    {"index": 4, "status": "duplicate", "entry": "0/1-0", "outcome": None},
    {"index": 5, "status": "conflict", "entry": "0/1-0"},
    {"index": 6, "status": "invalid", "field": "", "reason": "bad_json"},
]


def test_each_element_of_an_array_has_its_result(hall: HttpHall) -> None:
    async def scenario() -> None:
        async with hall.serving(), hall.client() as client:
            told = await client.send(b" [" + b" ,\r\n".join(BATCH) + b"]")
            assert told.json["results"] == RESULTS
            assert told.json["counts"] == {"durable": 2, "duplicate": 1, "conflict": 1, "invalid": 3}

    run(scenario)


def test_each_line_has_its_result_and_blank_ones_have_none(hall: HttpHall) -> None:
    async def scenario() -> None:
        async with hall.serving(), hall.client() as client:
            told = await client.send(b"\n \r\n" + b"\n".join(BATCH), NDJSON)
            results = [{**result, "index": result["index"] - 2} for result in told.json["results"]]
            assert results == RESULTS

    run(scenario)


@pytest.mark.parametrize("count", [2, 1_000])
def test_a_batch_that_is_sent_again_is_all_duplicates(hall: HttpHall, count: int) -> None:
    async def scenario() -> None:
        async with hall.serving(), hall.client() as client:
            rows = [deposit(tx, account=tx % 7) for tx in range(count)]
            first = await client.send(b"[" + b",".join(rows) + b"]")
            assert first.json["counts"]["durable"] == count
            assert [result["index"] for result in first.json["results"]] == list(range(count))
            again = await client.send(b"\n".join(rows), NDJSON)
            assert again.json["counts"]["duplicate"] == count
            addresses = [[result["entry"] for result in answer.json["results"]] for answer in (first, again)]
            assert addresses[0] == addresses[1]
            assert hall.appended() == count

    run(scenario)


@pytest.mark.parametrize(
    ("body", "content_type"), [(b"[]", b"application/json"), (b"", NDJSON), (b"\n\n", NDJSON)]
)
def test_nothing_sent_is_nothing_taken(hall: HttpHall, body: bytes, content_type: bytes) -> None:
    async def scenario() -> None:
        async with hall.serving(), hall.client() as client:
            told = await client.send(body, content_type)
            assert (told.status, told.json["results"]) == (200, [])

    run(scenario)


def test_whoever_waits_for_the_commit_is_told_outcome_and_balance(hall: HttpHall) -> None:
    async def scenario() -> None:
        async with hall.serving(), hall.client() as client:
            withdrawal = deposit(2).replace(b"deposit", b"withdrawal")
            asked = asyncio.ensure_future(client.send(b"[%b,%b]" % (deposit(1), withdrawal), wait="applied"))
            await until(lambda: hall.appended() == 2)
            hall.work()
            balance = {"available": "0.0000", "held": "0.0000", "total": "0.0000", "locked": False}
            rows = [{"status": "durable", "entry": "1/1-0", "outcome": "applied", "balance": balance}] * 2
            assert (await asked).json["results"] == [
                {"index": index, **row} for index, row in enumerate(rows)
            ]
            more = asyncio.ensure_future(
                client.send(deposit(3).replace(b"deposit", b"withdrawal"), wait="applied")
            )
            await until(lambda: hall.appended() == 3)
            hall.work()
            assert (await more).json["outcome"] == "insufficient_funds"

    run(scenario)


def test_a_commit_that_does_not_come_is_told_as_unknown(hall: HttpHall) -> None:
    async def scenario() -> None:
        async with hall.serving(replace(LIMITS_OF_HTTP, applied_ms=20)), hall.client() as client:
            told = await client.send(deposit(1), wait="applied")
            assert told.json == {"status": "durable", "entry": "1/1-0", "outcome": None, "balance": None}

    run(scenario)


@pytest.mark.parametrize(("amount", "status", "word"), [("10.00", 200, "duplicate"), ("9", 409, "conflict")])
def test_a_repeat_that_a_race_let_through_is_told_as_one(
    hall: HttpHall, amount: str, status: int, word: str
) -> None:
    """Somebody else appends the same id at the same time: only the ledger can tell."""

    async def scenario() -> None:
        async with hall.serving(), hall.client() as client:
            elsewhere = Batch.of("D", [1], [1], [100_000], [1])
            hall.log.append(Outgoing(1, encode("elsewhere", 0, elsewhere, 0)))
            asked = asyncio.ensure_future(client.send(deposit(1, amount=amount), wait="applied"))
            await until(lambda: hall.appended() == 2)
            hall.work()
            told = await asked
            assert (told.status, told.json["status"], told.json["entry"]) == (status, word, "1/1-0")
            if status == 200:
                assert told.json["outcome"] == "applied"
            else:
                assert told.json.keys() == {"status", "entry"}

    run(scenario)


def test_an_account_and_a_transaction_can_be_looked_up(hall: HttpHall) -> None:
    async def scenario() -> None:
        async with hall.serving(), hall.client() as client:
            assert (await client.ask("GET", "/v1/accounts/1")).status == 404
            assert (await client.ask("GET", "/v1/transactions/1")).status == 404
            dispute = b'{"type":"dispute","account":1,"tx":1}'
            await client.send(b"[%b,%b]" % (deposit(1), dispute))
            hall.work()
            account = await client.ask("GET", "/v1/accounts/1")
            assert account.json == {
                "account": 1,
                "available": "0.0000",
                "held": "10.0000",
                "total": "10.0000",
                "locked": False,
                "entry": "1/1-0",
            }
            told = (await client.ask("GET", "/v1/transactions/1")).json
            assert (told["tx"], told["kind"], told["amount"], told["outcome"]) == (
                1,
                "deposit",
                "10.0000",
                "applied",
            )
            ((kind, amount, row),) = [(each["kind"], each["amount"], each["row"]) for each in told["history"]]
            assert (kind, amount, row) == ("dispute", None, 2)
            assert told["has_more"] is False

    run(scenario)


def test_of_a_long_history_the_first_rows_are_told(hall: HttpHall) -> None:
    async def scenario() -> None:
        async with hall.serving(replace(LIMITS_OF_HTTP, history_rows_max=3)), hall.client() as client:
            disputes = [b'{"type":"dispute","account":1,"tx":1}'] * 3
            for sent, count, has_more in (([deposit(1), *disputes[:2]], 2, False), (disputes[:1], 2, True)):
                await client.send(b"[" + b",".join(sent) + b"]")
                hall.work()
                told = (await client.ask("GET", "/v1/transactions/1")).json
                assert (told["kind"], len(told["history"]), told["has_more"]) == ("deposit", count, has_more)

    run(scenario)


def test_a_taken_address_is_told_with_what_to_do(hall: HttpHall) -> None:
    async def scenario() -> None:
        async with hall.serving() as desk:
            other = hall.another(desk)
            with pytest.raises(UsageError, match="--http HOST:PORT"):
                await other.start("127.0.0.1", hall.port, None)
            await other.stop(1)

    run(scenario)


@pytest.mark.parametrize(
    "identifier",
    [
        "-1",
        "+1",
        "01",
        "1.0",
        "1e2",
        "0x1",
        "1_0",
        "%31",
        "",
        "a",
        "9223372036854775808",
        "%EF%BC%91",
        "1/2",
        "1;x",
    ],
)
def test_an_id_that_is_none_is_not_found(hall: HttpHall, identifier: str) -> None:
    async def scenario() -> None:
        async with hall.serving(), hall.client() as client:
            for folder in ("accounts", "transactions"):
                assert (await client.ask("GET", f"/v1/{folder}/{identifier}")).status == 404

    run(scenario)


def test_a_full_shard_is_told_with_the_time_to_come_again(hall: HttpHall) -> None:
    async def scenario() -> None:
        ingest = IngestLimits(backlog_entries_max=1, backlog_share_max=1)
        async with hall.serving(ingest=ingest), hall.client() as client:
            assert (await client.send(deposit(1, account=4))).status == 200
            full = await client.send(deposit(2, account=4))
            assert (full.status, full.json["error"], full.headers["retry-after"]) == (
                429,
                "backlog_full",
                "1",
            )
            assert (await client.send(deposit(3, account=5))).status == 200

    run(scenario)


def test_a_log_that_is_away_is_told_and_what_is_in_doubt_too(hall: HttpHall) -> None:
    async def scenario() -> None:
        limits = replace(LIMITS_OF_HTTP, stall_ms=50, reply_ms=200)
        async with hall.serving(limits) as desk, hall.client() as first, hall.client() as second:
            hall.writer.away = True
            doubtful = asyncio.ensure_future(first.send(deposit(1)))
            await until(desk.problem)
            refused = await second.send(deposit(2))
            assert (refused.status, refused.json["error"], refused.json["in_doubt"]) == (
                503,
                "log_away",
                False,
            )
            assert refused.headers["retry-after"] == "1"
            assert (await second.ask("GET", "/readyz")).status == 503
            assert (await second.ask("GET", "/healthz")).status == 200
            assert (await doubtful).json["in_doubt"] is True
            hall.writer.away = False
            await until(lambda: not desk.problem())
            assert (await second.ask("GET", "/readyz")).json == {"status": "ready"}
            assert (await first.send(deposit(1))).status == 200
            assert hall.appended() == 1

    run(scenario)


def test_a_client_that_leaves_does_not_take_its_rows_back(hall: HttpHall) -> None:
    async def scenario() -> None:
        async with hall.serving() as desk:
            hall.writer.open.clear()
            async with hall.client() as client:
                client.writer.write(
                    request("POST", "/v1/transactions", deposit(1), content_type="application/json")
                )
                await until(hall.writer.waiting.is_set)
            hall.writer.open.set()
            await until(lambda: hall.appended() == 1)
            await until(lambda: desk.budget.take(LIMITS_OF_HTTP.pending_bytes_max))

    run(scenario)


# --- doors ------------------------------------------------------------------------------------------------------


def test_a_token_opens_what_it_is_good_for(hall: HttpHall, tmp_path: Path) -> None:
    gate, tokens = guarded(tmp_path)

    async def scenario() -> None:
        async with hall.serving(gate=gate), hall.client() as client:
            as_json = {"content_type": "application/json"}
            for path in ("/healthz", "/readyz", "/openapi.json", "/docs"):
                assert (await client.ask("GET", path)).status == 200
            for path in ("/v1/accounts/1", "/metrics", "/v1/transactions/1"):
                assert (await client.ask("GET", path, authorization=tokens["submit"])).status == 403
                assert (await client.ask("GET", path, authorization=tokens["read"])).status in {200, 404}
            refused = await client.ask(
                "POST", "/v1/transactions", deposit(1), authorization=tokens["read"], **as_json
            )
            assert refused.status == 403
            taken = await client.ask(
                "POST", "/v1/transactions", deposit(1), authorization=tokens["submit"], **as_json
            )
            assert taken.status == 200

    run(scenario)


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_no_wrong_and_odd_tokens_are_told_the_same(hall: HttpHall, tmp_path: Path, method: str) -> None:
    gate, tokens = guarded(tmp_path)
    odd = [
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        "Basic YTpi",
        tokens["read"] + "x",
        "Bearer \xe9\xff",
        "Bearer a b",
    ]
    odd += ["Bearer " + "x" * 1_000, tokens["read"].replace("Bearer ", "Bearer:")]
    path = "/v1/transactions" if method == "POST" else "/v1/accounts/1"

    async def scenario() -> None:
        async with hall.serving(gate=gate), hall.client() as client:
            none = await client.ask(method, path)
            assert (none.status, none.headers["www-authenticate"]) == (401, 'Bearer realm="hftpipe"')
            for token in odd:
                refused = await client.ask(method, path, authorization=token)
                assert (refused.status, refused.body) == (401, none.body), token

    run(scenario)


def test_a_token_in_debt_is_told_when_to_come_again(hall: HttpHall, tmp_path: Path) -> None:
    gate, tokens = guarded(tmp_path, rate=2)
    headers = {"authorization": tokens["submit"], "content_type": "application/json"}

    async def scenario() -> None:
        async with hall.serving(gate=gate), hall.client() as client:
            rows = b"[" + b",".join(map(deposit, range(8))) + b"]"
            assert (await client.ask("POST", "/v1/transactions", rows, **headers)).status == 200
            refused = await client.ask("POST", "/v1/transactions", deposit(9), **headers)
            assert (refused.status, refused.json["error"]) == (429, "rate_limited")
            assert refused.headers["retry-after"] == "3"

    run(scenario)


def test_the_document_the_page_and_the_metrics_are_told(hall: HttpHall) -> None:
    async def scenario() -> None:
        async with hall.serving(), hall.client() as client:
            document = orjson.loads((await client.ask("GET", "/openapi.json")).body)
            page = (await client.ask("GET", "/docs")).body.decode()
            assert all(path in page for path in document["paths"])
            assert "http://" not in page.replace("http://127.0.0.1", "")
            assert "https://" not in page
            await client.send(deposit(1))
            metrics = (await client.ask("GET", "/metrics")).body.decode()
            assert 'hftpipe_transactions_total{status="durable",transport="http"} 1.0' in metrics
            assert 'hftpipe_connections{transport="http"} 1.0' in metrics
            head = await client.ask("HEAD", "/docs")
            assert (head.status, head.headers["content-length"]) == (200, str(len(page.encode())))

    run(scenario)
