"""`replay --step`: what is seen, and what the keys do; in the real terminal view, and once in a real terminal."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from textual.pilot import Pilot
from textual.widgets import Static

from hftpipe.audit.material import Recording
from hftpipe.audit.parallel import Tell
from hftpipe.audit.walker import Walker
from hftpipe.audit.window import Origin, Window
from hftpipe.core.picked_ledger import Wanted
from hftpipe.errors import HftpipeError
from hftpipe.terminal.stepper import Stepper
from tests.audit.prepared import SHARDS, Prepared
from tests.system.support import wait_for
from tests.tools import needed

Script = Callable[[Pilot[None], Stepper], Coroutine[Any, Any, None]]


def played(
    prepared: Prepared, folder: Path, script: Script, wanted: Wanted | None = None, shards: int = SHARDS
) -> Stepper:
    """The view after some keys were pressed."""

    def make(tell: Tell) -> Walker:
        recording = Recording(prepared.home, SHARDS, Window(), Origin.JOURNAL)
        return Walker(recording, range(shards), folder, tell, wanted)

    stepper = Stepper(make)

    async def play() -> None:
        async with stepper.run_test(size=(80, 24)) as pilot:
            await stepper.workers.wait_for_complete()
            await script(pilot, stepper)

    asyncio.run(play())
    return stepper


async def press(pilot: Pilot[None], *keys: str) -> None:
    """Presses keys, and waits until what they ask for is there."""
    for key in keys:
        await pilot.press(key)
        await pilot.app.workers.wait_for_complete()
    await pilot.pause()


async def ask(pilot: Pilot[None], key: str, text: str) -> None:
    await press(pilot, key, *("space" if letter == " " else letter for letter in text), "enter")


def shown(stepper: Stepper, name: str) -> str:
    return str(stepper.query_one(f"#{name}", Static).render())


def place(stepper: Stepper) -> str:
    return shown(stepper, "place").split("   ")[0]


def test_it_shows_the_transaction_its_rule_and_both_balances(prepared: Prepared, tmp_path: Path) -> None:
    async def script(pilot: Pilot[None], stepper: Stepper) -> None:
        await ask(pilot, "slash", "tx 9000000000000000003")
        assert "disputes row 4, appended" in shown(stepper, "origin")
        assert "▶" in shown(stepper, "list")
        assert shown(stepper, "rule").strip() == "deposit: 7.0000 comes in → applied"
        balance = shown(stepper, "balance")
        assert "account 6" in balance
        assert "undisputed" in balance
        lines = pilot.app.screen.size
        assert (lines.width, lines.height) == (80, 24)
        assert "q quit" in shown(stepper, "keys")

    played(prepared, tmp_path, script)


def test_keys_go_forward_and_back(prepared: Prepared, tmp_path: Path) -> None:
    async def script(pilot: Pilot[None], stepper: Stepper) -> None:
        at = stepper.view
        await press(pilot, "right", "space", "n")
        assert stepper.view is not None
        assert stepper.view.index == 3
        await press(pilot, "left", "p", "up")
        assert stepper.view == at
        await press(pilot, "pagedown")
        assert place(stepper) == "0/1-1"
        await press(pilot, "pageup", "G")
        assert stepper.view.told.number == stepper.view.records
        await press(pilot, "right")
        assert shown(stepper, "message") == "this is the last entry of the shard"
        await press(pilot, "g")
        assert place(stepper) == "0/1-0"
        await press(pilot, "s")
        assert place(stepper) == "1/1-0"

    played(prepared, tmp_path, script)


def test_it_goes_where_it_is_told_and_says_when_it_cannot(prepared: Prepared, tmp_path: Path) -> None:
    async def script(pilot: Pilot[None], stepper: Stepper) -> None:
        await ask(pilot, "slash", "1/1-4")
        assert place(stepper) == "1/1-4"
        await ask(pilot, "slash", "nonsense")
        assert "is no address" in shown(stepper, "message")
        await press(pilot, "slash", "escape", "right")
        assert stepper.view is not None
        assert stepper.view.index == 1
        await ask(pilot, "f", "5")
        assert "only account 5" in shown(stepper, "place")
        await press(pilot, "right")
        assert stepper.view.row is not None
        assert stepper.view.row.account == 5
        await ask(pilot, "f", "x")
        assert shown(stepper, "message") == "'x' is no account"
        await ask(pilot, "f", "")
        assert "only" not in shown(stepper, "place")

    played(prepared, tmp_path, script)


def test_keys_pressed_meanwhile_are_not_lost(prepared: Prepared, tmp_path: Path) -> None:
    async def script(pilot: Pilot[None], stepper: Stepper) -> None:
        await pilot.press(*["right"] * 9)
        await press(pilot)
        await stepper.workers.wait_for_complete()
        assert stepper.view is not None
        assert stepper.view.index == 9

    played(prepared, tmp_path, script)


def test_it_begins_with_what_is_wanted_and_ends_where_nothing_is(prepared: Prepared, tmp_path: Path) -> None:
    async def script(pilot: Pilot[None], stepper: Stepper) -> None:
        assert stepper.view is not None
        assert stepper.view.row is not None
        assert stepper.view.row.tx == 9000000000000000003

    wanted = Wanted(txs={9000000000000000003})
    (tmp_path / "one").mkdir()
    assert played(prepared, tmp_path / "one", script, wanted).failed is None

    async def nothing(pilot: Pilot[None], stepper: Stepper) -> None:
        pass

    (tmp_path / "two").mkdir()
    failed = played(prepared, tmp_path / "two", nothing, Wanted(accounts={999_998})).failed
    assert isinstance(failed, HftpipeError)


def test_the_command_in_a_real_terminal(prepared: Prepared, tmp_path: Path) -> None:
    program, socket = needed("tmux"), str(tmp_path / "tmux")

    def tmux(*words: str) -> str:
        done = subprocess.run([program, "-S", socket, *words], capture_output=True, check=True)
        return done.stdout.decode()

    def screen() -> str:
        return tmux("capture-pane", "-p")

    command = f"{sys.executable} -m hftpipe replay --home {prepared.home} --record journal --step; echo ended $?; cat"
    tmux("-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", command)
    try:
        wait_for(lambda: "0/1-0   entry 1 of" in screen(), "the first transaction")
        assert all(len(line) <= 80 for line in screen().splitlines())
        tmux("send-keys", "Right", "Right")
        wait_for(lambda: "row 3 of" in screen(), "the third transaction")
        tmux("send-keys", "/")
        wait_for(lambda: "account 42 or tx 123" in screen(), "the question")
        tmux("send-keys", "tx 9000000000000000001", "Enter")
        wait_for(lambda: "deposit: 5.0000 comes in → applied" in screen(), "the rule")
        tmux("send-keys", "q")
        wait_for(lambda: "ended 0" in screen(), "the end")
    finally:
        tmux("kill-server")
