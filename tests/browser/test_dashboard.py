"""The page of the service in a real browser, beside real processes."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from hftpipe.core.entry import encode
from hftpipe.core.transaction import Batch
from tests.browser.chromium import Page, browsing
from tests.system.support import System, wait_for

SHOTS = os.environ.get("SCREENSHOTS", "")
"""A folder that takes screenshots, for people who want to look at them."""

PHONE, DESK = (360, 740), (1280, 900)


@dataclass(frozen=True, slots=True)
class Served:
    """A pipeline with a worker and the service. secrets: of its tokens, by name."""

    system: System
    address: str
    secrets: dict[str, str]


@contextmanager
def served(*names: str) -> Iterator[Served]:
    """Serves with a token for each name, which are scopes with a + between; without any, it is open to all."""
    with TemporaryDirectory(prefix="hft-") as folder:
        system, tokens = System(Path(folder)), Path(folder) / "tokens.toml"
        secrets: dict[str, str] = {}
        for name in names:
            scopes = [word for scope in name.split("+") for word in ("--scope", scope)]
            added = system.run("token", "add", name.replace("+", "-"), "--token-file", tokens, *scopes)
            secrets[name] = added.out.split()[-1]
        guard = ("--token-file", tokens) if names else ()
        try:
            up = system.start(
                "up", "--serve", "--tcp", "off", "--http", "127.0.0.1:0", "--workers", 1, *guard
            )
            up.says("HTTP on ")
            found = re.search(r"HTTP on (http://\S+/)", up.text)
            assert found is not None
            yield Served(system, found[1], secrets)
        finally:
            system.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    with TemporaryDirectory(prefix="hft-") as folder, browsing(Path(folder)) as page:
        yield page


@pytest.fixture(scope="module")
def public() -> Iterator[Served]:
    with served() as found:
        yield found


@pytest.fixture(scope="module")
def private() -> Iterator[Served]:
    with served("read", "read+admin") as found:
        yield found


@pytest.fixture
def page(browser: Page) -> Iterator[Page]:
    """A tab that has forgotten everything; nothing may be wrong in it at the end."""
    browser.resize(*DESK)
    browser.complaints.clear()
    yield browser
    browser.run("sessionStorage.clear()")
    browser.open("about:blank")
    assert browser.complaints == []


def shot(page: Page, name: str) -> None:
    """Of how the page stands, if somebody wants it."""
    if SHOTS:
        Path(SHOTS).mkdir(parents=True, exist_ok=True)
        page.screenshot(Path(SHOTS) / f"{name}.png")


def fits(page: Page) -> bool:
    """Nothing is wider than the screen."""
    found: bool = page.run("document.documentElement.scrollWidth <= window.innerWidth")
    return found


def says(page: Page, name: str, text: str) -> None:
    """Waits until an element, by its id, holds such a text; spaces within numbers are none."""
    page.wait(f"document.getElementById('{name}').textContent.replaceAll('\\u202f', '').includes('{text}')")


def look_up(page: Page, what: str, number: int) -> None:
    page.run(
        f"document.getElementById('lookup-what').value = '{what}';"
        f"document.getElementById('lookup-id').value = '{number}';"
        "document.getElementById('lookup').requestSubmit()"
    )


def enter(page: Page, secret: str) -> None:
    page.wait("document.activeElement.id === 'token'")
    page.type(secret)
    page.press("Enter")


def test_an_empty_pipeline_tells_what_to_do_and_its_numbers_move(page: Page, public: Served) -> None:
    """Without a token file nobody decides."""
    page.open(public.address)
    says(page, "health", "All shards run")
    says(page, "hint-commands", f"curl {public.address}v1/transactions")
    says(page, "dead-note", "Read only: the service runs without tokens")
    shot(page, "empty")
    file = public.system.folder / "some.csv"
    lines = [f"deposit,{number % 7},{number},{number}.50" for number in range(1, 2_001)]
    file.write_text("\n".join(["type,client,tx,amount", *lines, "withdrawal,3,9000,99999999", ""]))
    public.system.run("ingest", file)
    says(page, "flow-applied-total", "2000 applied")
    says(page, "flow-refused-total", "1 refused")
    says(page, "reasons", "insufficient funds, refused")
    assert page.run("document.getElementById('hint').hidden")
    page.wait("document.querySelector('#chart-rate .first').getAttribute('d').length > 0")


def test_what_came_before_is_there_when_the_page_is_opened(page: Page, public: Served) -> None:
    """The service remembers the last minutes: more than one sample is drawn at once."""
    page.open(public.address)
    page.wait("document.querySelector('#chart-backlog .line')?.getAttribute('d').includes('L')")
    says(page, "flow-applied-total", "2000 applied")


def test_accounts_and_transactions_are_looked_up(page: Page, public: Served) -> None:
    """What was applied, what was refused, and what is not there."""
    page.open(public.address)
    says(page, "health", "All shards run")
    look_up(page, "accounts", 3)
    says(page, "found", "Available")
    look_up(page, "transactions", 9_000)
    says(page, "found", "insufficient_funds")
    look_up(page, "transactions", 2**63 - 1)
    says(page, "found", f"Transaction {2**63 - 1}: no applied transaction has named this id")
    page.forgive("404")


def test_it_fits_a_phone_and_a_desk_by_day_and_by_night(page: Page, public: Served) -> None:
    """Nothing scrolls sideways but what is made for it."""
    page.open(public.address)
    says(page, "health", "All shards run")
    look_up(page, "accounts", 3)
    says(page, "found", "Available")
    for name, size, dark in (
        ("light", DESK, False),
        ("dark", DESK, True),
        ("phone", PHONE, False),
        ("phone-dark", PHONE, True),
    ):
        page.resize(*size, dark=dark)
        page.wait("document.querySelectorAll('.chart svg').length === 3")
        assert fits(page), name
        shot(page, name)


def test_whoever_wants_no_motion_sees_none(page: Page, public: Served) -> None:
    page.resize(*DESK, still=True)
    page.open(public.address)
    says(page, "health", "All shards run")
    page.run("document.getElementById('flow').classList.add('moving')")
    assert page.run("document.getAnimations().length") == 0


def test_a_stopped_shard_is_named_with_the_reason(page: Page, public: Served) -> None:
    """The others go on."""
    page.open(public.address)
    says(page, "health", "All shards run")
    damaged = encode("other", 0, Batch.of("D", [2], [90_000], [10_000], [1]), 0) | {b"n": b"2"}
    client = public.system.lasting_client()
    client.xadd(public.system.keys.log(2), damaged, id="1-*")  # type: ignore[arg-type]
    says(page, "health", "3 of 4 shards run")
    says(page, "notes", "Shard 2: stopped.")
    assert "hftpipe repair" in page.run("document.getElementById('notes').textContent")
    shot(page, "stopped")
    page.resize(*PHONE, dark=True)
    assert fits(page)
    shot(page, "stopped-phone")


def test_readers_see_dead_letters_and_administrators_decide(page: Page, private: Served) -> None:
    """Without a token nothing is seen; what a letter holds is text, whatever it looks like."""
    system = private.system
    system.prepare()
    client, key = system.lasting_client(), system.keys.log(1)
    client.xadd(key, {"type": "deposit", "account": "5", "tx": "1", "amount": "2.50"}, id="1-*")
    client.xadd(key, {"nonsense": "<img src=x onerror=alert(1)>"}, id="1-*")
    wait_for(lambda: system.summaries()[1].checkpoint.totals.dead == 2, "dead letters")
    page.open(private.address)
    page.wait("!document.getElementById('token-form').hidden")
    assert page.run("document.getElementById('content').hidden")
    shot(page, "token")
    enter(page, "hft_wrong")
    says(page, "token-why", "a valid token is needed")
    enter(page, private.secrets["read"])
    page.wait("document.querySelectorAll('#dead tr').length === 2")
    says(page, "caller-name", "read, read only")
    assert "<img src=x onerror=alert(1)>" in page.text()
    assert page.run("document.querySelectorAll('#dead button').length") == 0
    page.run("document.getElementById('token-button').click()")
    enter(page, private.secrets["read+admin"])
    page.wait("document.querySelectorAll('#dead button').length === 4")
    shot(page, "dead")
    page.run("document.querySelector('#dead tr:nth-child(2) button').click()")
    says(page, "dead-said", "1/1-1 cannot be retried")
    page.run("document.querySelector('#dead button').click()")
    says(page, "dead-said", "1/1-0 was appended again as 1/1-2.")
    page.wait("document.querySelectorAll('#dead tr').length === 1")
    page.run("document.querySelectorAll('#dead button')[1].click()")
    page.wait("document.activeElement.id === 'drop-no'")
    shot(page, "drop")
    page.press("Escape")
    page.wait("!document.getElementById('drop').open")
    page.run(
        "document.querySelectorAll('#dead button')[1].click(); document.getElementById('drop-yes').click()"
    )
    says(page, "dead-said", "1/1-1 was dropped.")
    page.wait("document.getElementById('dead-scroll').hidden")
    wait_for(lambda: system.summaries()[1].checkpoint.totals.applied == 1, "what was retried")
    told = system.run("dead", "list", "--decided", "--format", "json").out
    assert "retried" in told
    assert "dropped" in told
    page.forgive("401", "409")


def test_a_service_that_is_gone_leaves_old_numbers_that_say_so(page: Page, private: Served) -> None:
    page.open(private.address)
    enter(page, private.secrets["read"])
    says(page, "health", "All shards run")
    private.system.close()
    says(page, "health", "No answer")
    says(page, "notes", "What is shown is as of")
    assert page.run("document.getElementById('main').classList.contains('stale')")
    shot(page, "stale")
    page.forgive("401", "ERR_")
