"""The page's files and questions: who may ask, who may decide, and what the browser is told."""

import asyncio
import re
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, closing
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hftpipe.core.commit import Totals
from hftpipe.mending.dead import LETTERS_MAX
from hftpipe.ports import Outgoing
from hftpipe.reception.access.tokens import Gate
from hftpipe.reception.console import Letters
from hftpipe.reception.http.dashboard.questions import Questions
from hftpipe.reception.metrics import Metrics
from hftpipe.store.reading import summarise
from hftpipe.store.sqlite import shard_path
from hftpipe.telemetry.overview import Overview
from hftpipe.telemetry.recent import SAMPLES_MAX, SPAN_MS, Recent
from tests.shell.http_hall import OPEN, Client, HttpHall, deposit, guarded, run

RETRY = "/v1/dead/1/1-0/retry"
DROP = "/v1/dead/1/1-0/drop"
PLAIN = {b"type": b"deposit", b"account": b"5", b"tx": b"1", b"amount": b"2.50"}
"""What a client puts into an inbox; in a shard's log it is a dead letter."""


@pytest.fixture
def hall(tmp_path: Path) -> HttpHall:
    """Four shards; shard 1 has a dead letter."""
    hall = HttpHall(tmp_path)
    hall.log.append(Outgoing(1, PLAIN))
    hall.work()
    assert summarise(shard_path(tmp_path, 1)).checkpoint.totals == Totals(dead=1)
    return hall


@pytest.fixture
def doors(tmp_path: Path) -> tuple[Gate, dict[str, str]]:
    """A gate, and headers of a reader, a submitter and an administrator."""
    return guarded(tmp_path, scopes=("read", "submit", "admin"))


def served(hall: HttpHall, scenario: Callable[[Client], Awaitable[None]], gate: Gate = OPEN) -> None:
    """Runs a scenario with one client of the hall."""

    async def whole() -> None:
        async with hall.serving(gate=gate), hall.client() as client:
            await scenario(client)

    run(whole)


def decisions(home: Path) -> list[tuple[str, str, str]]:
    """Of shard 1: action, entry and who."""
    with closing(sqlite3.connect(shard_path(home, 1))) as connection:
        return connection.execute("SELECT action, entry, who FROM decisions").fetchall()


# --- files ------------------------------------------------------------------------------------------------------


def test_the_page_and_all_that_it_names_are_there_without_a_token(
    hall: HttpHall, doors: tuple[Gate, dict[str, str]]
) -> None:
    """They hold no data; each has its type, and nothing comes from elsewhere."""

    async def scenario(client: Client) -> None:
        page = await client.ask("GET", "/")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        seen, wanted = {"/"}, references(page.body.decode(), "/")
        while wanted:
            path = wanted.pop()
            seen.add(path)
            answer = await client.ask("GET", path)
            assert answer.status == 200, path
            types = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
            assert answer.headers["content-type"].startswith(types[path.rpartition(".")[2]])
            wanted |= references(answer.body.decode(), path) - seen
        assert seen == {"/"} | {f"/assets/{name}" for name in packaged() - {"index.html"}}

    served(hall, scenario, doors[0])


def references(text: str, path: str) -> set[str]:
    """Files that a file names."""
    found = set(re.findall(r'(?:href|src)="(/assets/[^"]+)"', text)) if path == "/" else set()
    return found | {f"/assets/{name}" for name in re.findall(r'from "\./([^"]+)"', text)}


def packaged() -> set[str]:
    """The files of the page in the package, as it is installed."""
    return {file.name for file in files("hftpipe.reception.http.dashboard").joinpath("static").iterdir()}


def test_the_page_runs_its_own_files_only(hall: HttpHall) -> None:
    """Its policy says so, and its files keep to it: nothing inline, and no markup made of data."""

    async def scenario(client: Client) -> None:
        policy = (await client.ask("GET", "/")).headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy
        assert "*" not in policy

    served(hall, scenario)
    folder = files("hftpipe.reception.http.dashboard").joinpath("static")
    for name in packaged():
        text = folder.joinpath(name).read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text), name
        assert not re.search(r"\sstyle=|\son[a-z]+=|<style|<script(?! type=\"module\" src)", text), name
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), name


def test_a_file_that_the_browser_has_is_not_sent_again(hall: HttpHall) -> None:
    """It is asked for all the same: another release may be there."""

    async def scenario(client: Client) -> None:
        first = await client.ask("GET", "/assets/page.js")
        assert first.headers["cache-control"] == "no-cache"
        again = await client.ask(
            "GET", "/assets/page.js", if_none_match=f'"other", W/{first.headers["etag"]}'
        )
        assert (again.status, again.body, again.headers["etag"]) == (304, b"", first.headers["etag"])
        other = await client.ask("GET", "/assets/page.js", if_none_match='"other"')
        assert (other.status, other.body) == (200, first.body)

    served(hall, scenario)


def test_what_holds_data_is_kept_by_nobody(hall: HttpHall) -> None:
    """Errors too, and what is refused before it is read to its end."""

    async def scenario(client: Client) -> None:
        for path in ("/v1/overview", "/v1/dead", "/metrics", "/nowhere", "/v1/accounts/x", "/%zz%"):
            answer = await client.ask("GET", path)
            assert answer.headers["cache-control"] == "no-store", path
            assert answer.headers["x-content-type-options"] == "nosniff", path
        client.writer.write(b"GARBAGE\r\n\r\n")
        answer = await client.answer()
        assert (answer.status, answer.headers["cache-control"]) == (400, "no-store")

    served(hall, scenario)


def test_no_other_file_is_served(hall: HttpHall) -> None:
    """The routes are fixed: nothing of a path reaches the disk."""

    async def scenario(client: Client) -> None:
        for path in (
            "/assets/",
            "/assets/index.html",
            "/assets/../__init__.py",
            "/assets/..%2fassets.py",
            "/page.js",
        ):
            assert (await client.ask("GET", path)).status == 404, path

    served(hall, scenario)


# --- questions --------------------------------------------------------------------------------------------------


def test_an_overview_tells_the_shards_and_what_came_in_here(hall: HttpHall) -> None:
    """And from the second look on, the recent ones."""

    async def scenario(client: Client) -> None:
        await client.send(deposit(1))
        await client.send(b'{"type":"deposit","account":1,"tx":2,"amount":"-1"}')
        told = (await client.ask("GET", "/v1/overview")).json
        assert [view["shard"] for view in told["shards"]] == [0, 1, 2, 3]
        assert told["shards"][1]["dead"] == 1
        assert told["transports"]["http"]["answered"] == {"durable": 1}
        assert sum(told["transports"]["http"]["invalid"].values()) == 1
        assert told["transports"]["http"]["connections"] == 1
        recent = (await client.ask("GET", "/v1/recent")).json
        assert told["time_ms"] in recent["time_ms"]

    served(hall, scenario)


def test_who_may_not_read_sees_nothing(hall: HttpHall, doors: tuple[Gate, dict[str, str]]) -> None:
    """None of it; and the page can ask what a token is good for."""
    gate, tokens = doors

    async def scenario(client: Client) -> None:
        for path in ("/v1/overview", "/v1/recent", "/v1/me", "/v1/dead"):
            assert (await client.ask("GET", path)).status == 401, path
            assert (await client.ask("GET", path, authorization=tokens["submit"])).status == 403, path
            assert (await client.ask("GET", path, authorization=tokens["read"])).status == 200, path
        me = await client.ask("GET", "/v1/me", authorization=tokens["read"])
        assert me.json == {"name": "read", "scopes": ["read"], "guarded": True}

    served(hall, scenario, gate)


def test_without_a_token_file_everybody_reads_and_nobody_decides(hall: HttpHall) -> None:
    """Whoever reaches the port could, otherwise."""

    async def scenario(client: Client) -> None:
        assert (await client.ask("GET", "/v1/me")).json["guarded"] is False
        (letter,) = (await client.ask("GET", "/v1/dead")).json["dead"]
        assert (letter["shard"], letter["entry"], letter["fields"]["amount"]) == (1, "1-0", "2.50")
        for path in (RETRY, DROP):
            answer = await client.ask("POST", path, b"{}", content_type="application/json")
            assert (answer.status, answer.json["error"]) == (403, "forbidden")
            assert "--token-file" in answer.json["message"]

    served(hall, scenario)
    assert decisions(hall.home) == []


def test_a_decision_needs_an_administrator_and_json(
    hall: HttpHall, doors: tuple[Gate, dict[str, str]]
) -> None:
    """A form of another site has neither; what is only looked at decides nothing."""
    gate, tokens = doors

    async def scenario(client: Client) -> None:
        async def drop(method: str = "POST", **headers: str) -> int:
            return (await client.ask(method, DROP, b"{}", **headers)).status

        assert await drop(content_type="application/json") == 401
        assert await drop(content_type="application/json", authorization=tokens["read"]) == 403
        for form in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
            assert await drop(content_type=form, authorization=tokens["admin"]) == 415
        assert await drop(authorization=tokens["admin"]) == 415
        assert await drop("GET", authorization=tokens["admin"]) == 405

    served(hall, scenario, gate)
    assert decisions(hall.home) == []


def test_an_administrator_retries_and_drops_and_is_written_down(
    hall: HttpHall, doors: tuple[Gate, dict[str, str]]
) -> None:
    """By the name of his token; to ask again changes nothing, and what cannot be is refused with the reason."""
    gate, tokens = doors
    asks = {"authorization": tokens["admin"], "content_type": "application/json"}
    hall.log.append(Outgoing(1, {b"nonsense": b"\xff"}))
    hall.work()

    async def scenario(client: Client) -> None:
        for _ in range(2):
            answer = await client.ask("POST", RETRY, b"{}", **asks)
            assert (answer.status, answer.json) == (200, {"entry": "1/1-2"})
            answer = await client.ask("POST", "/v1/dead/1/1-1/drop", b"{}", **asks)
            assert (answer.status, answer.json) == (200, {"dropped": "1/1-1"})
        for path, part in ((DROP, "was retried"), ("/v1/dead/1/1-9/retry", "no dead letter 1/1-9")):
            answer = await client.ask("POST", path, b"{}", **asks)
            assert (answer.status, answer.json["error"]) == (409, "refused")
            assert part in answer.json["message"]
        for path in (
            "/v1/dead/x/1-0/drop",
            "/v1/dead/1/1-/drop",
            "/v1/dead/1/1-0/burn",
            "/v1/dead/99999/1-0/drop",
        ):
            assert (await client.ask("POST", path, b"{}", **asks)).status == 404, path
        answer = await client.ask("GET", "/v1/dead", authorization=tokens["read"])
        assert answer.json == {"dead": [], "count": 0, "has_more": False, "faults": []}

    served(hall, scenario, gate)
    hall.work()
    assert summarise(shard_path(hall.home, 1)).checkpoint.totals.applied == 1
    who = "admin over HTTP"
    assert decisions(hall.home) == [("retried", "1/1-0", who), ("dropped", "1/1-1", who)]


def test_a_damaged_shard_hides_no_other_ones_letters(hall: HttpHall) -> None:
    """It is told beside them, and why."""
    shard_path(hall.home, 2).write_bytes(b"nonsense" * 1_000)

    async def scenario(client: Client) -> None:
        answer = await client.ask("GET", "/v1/dead")
        assert (answer.status, answer.json["count"], answer.json["has_more"]) == (200, 1, False)
        assert answer.json["dead"][0]["entry"] == "1-0"
        (fault,) = answer.json["faults"]
        assert fault["shard"] == 2
        assert "shard-0002.db is damaged" in fault["why"]

    served(hall, scenario)


def test_more_letters_than_are_counted_are_told(hall: HttpHall) -> None:
    """A number that is too low would be taken for the truth."""
    for _ in range(LETTERS_MAX):
        hall.log.append(Outgoing(1, PLAIN))
    hall.work()

    async def scenario(client: Client) -> None:
        told = (await client.ask("GET", "/v1/dead")).json
        assert (told["count"], told["has_more"]) == (LETTERS_MAX, True)
        assert len(told["dead"]) < LETTERS_MAX

    served(hall, scenario)


# --- looking ----------------------------------------------------------------------------------------------------


class SlowConsole:
    """A pipeline whose looks take until they are let go."""

    def __init__(self) -> None:
        self.looks = 0
        self.go = threading.Event()

    def overview(self) -> Mapping[str, object]:
        self.looks += 1
        self.go.wait(10)
        return {"look": self.looks}

    def recent(self) -> object:
        return {}

    def dead_letters(self) -> Letters:
        return Letters([], False, {})

    def retry(self, shard: int, entry: str, who: str) -> str:
        raise NotImplementedError

    def drop(self, shard: int, entry: str, who: str) -> None:
        raise NotImplementedError


def test_however_many_pages_look_one_look_serves_them_all() -> None:
    """And whoever leaves meanwhile takes it from nobody."""

    async def scenario() -> None:
        console = SlowConsole()
        questions = Questions(console, OPEN, Metrics())
        pages = [asyncio.create_task(questions._look.get()) for _ in range(50)]
        await asyncio.sleep(0)
        pages[0].cancel()
        console.go.set()
        seen = await asyncio.gather(*pages[1:])
        assert (seen, console.looks) == ([{"look": 1}] * 49, 1)
        assert await questions._look.get() == {"look": 2}

    run(scenario)


class SlowCollector(Collector):
    """Metrics that take until they are let go."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.go = threading.Event()
        self.count = 0

    def collect(self) -> Iterator[Metric]:
        self.count += 1
        self.begun.release()
        self.go.wait(10)
        yield GaugeMetricFamily("turn", "How often somebody looked.", value=self.count)

    def describe(self) -> Iterable[Metric]:
        return ()


def test_however_many_ask_for_metrics_one_look_serves_them_all(hall: HttpHall) -> None:
    """A look that takes long holds one thread, not one for each who waits: others need them."""
    collector = SlowCollector()
    hall.metrics.registry.register(collector)

    async def scenario(_: Client) -> None:
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(hall.client()) for _ in range(12)]
            asking = [asyncio.create_task(client.ask("GET", "/metrics")) for client in clients]
            await asyncio.to_thread(collector.begun.acquire, timeout=10)
            async with hall.client() as other:  # answered behind them: by now all have asked
                await other.ask("GET", "/healthz")
            collector.go.set()
            pages = [answer.body.decode() for answer in await asyncio.gather(*asking)]
            assert all("\nturn 1.0\n" in page for page in pages)
            assert "\nturn 2.0\n" in (await clients[0].ask("GET", "/metrics")).body.decode()

    served(hall, scenario)


def test_a_look_that_fails_does_not_end_the_looking() -> None:
    """Whoever asks is told; the next look may be better."""

    class Failing(SlowConsole):
        def overview(self) -> Mapping[str, object]:
            self.looks += 1
            if self.looks == 1:
                raise ValueError("nobody foresaw it")
            self.go.set()
            return {}

    async def scenario() -> None:
        console = Failing()
        questions = Questions(console, OPEN, Metrics())
        looking = asyncio.create_task(questions.keep_looking())
        await asyncio.to_thread(console.go.wait, 10)
        assert (console.looks, looking.done()) == (2, False)
        looking.cancel()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hftpipe.reception.http.dashboard.questions._LOOK_S", 0.01)
        run(scenario)


def seen_at(time_ms: int, pipeline: str = "one") -> Overview:
    """A look at an empty pipeline."""
    return Overview(time_ms, pipeline, [], time_ms, {}, {}, None, None, [], "")


def test_recent_samples_are_bounded_and_of_one_pipeline() -> None:
    """By time and by number; the same look counts once, and a clock that was set back begins anew."""
    recent = Recent()
    assert recent.samples().time_ms == ()
    for time_ms in range(0, 2 * SPAN_MS, 500):
        recent.see(seen_at(time_ms))
        recent.see(seen_at(time_ms))
    assert len(recent.samples().time_ms) == SAMPLES_MAX
    recent.see(seen_at(3 * SPAN_MS))
    assert recent.samples().time_ms == (3 * SPAN_MS,)
    recent.see(seen_at(5))
    recent.see(seen_at(6))
    assert recent.samples().transactions_in == (5, 6)
    recent.see(replace(seen_at(7), pipeline="another"))
    assert (recent.samples().pipeline, recent.samples().time_ms) == ("another", (7,))
