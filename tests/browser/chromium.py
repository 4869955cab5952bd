"""Headless Chromium, driven through its DevTools protocol: https://chromedevtools.github.io/devtools-protocol/."""

import base64
import itertools
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import orjson
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.tools import needed

WAIT_S = 30.0
_WORDS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-extensions",
    "--disable-background-networking",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)


class Page:
    """One tab; `complaints` are its console errors, exceptions and violations of its own policy."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.complaints: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.command(f"{domain}.enable")

    def command(self, method: str, **parameters: object) -> Any:
        """Sends a command, and returns its result."""
        number = next(self._numbers)
        self._socket.send(orjson.dumps({"id": number, "method": method, "params": parameters}).decode())
        while True:
            message = orjson.loads(self._socket.recv(timeout=WAIT_S))
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            self._note(message)

    def open(self, url: str) -> None:
        """Goes to an address."""
        self.command("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        done = self.command("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def wait(self, condition: str) -> None:
        """Until an expression is true."""
        deadline = time.monotonic() + WAIT_S
        while not self.run(condition):
            assert time.monotonic() < deadline, f"waited in vain for {condition}; {self.text()[:2_000]}"
            time.sleep(0.05)

    def text(self) -> str:
        """All that can be read."""
        found: str = self.run("document.body.innerText")
        return found

    def type(self, text: str) -> None:
        """As on the keyboard, where the focus is."""
        self.command("Input.insertText", text=text)

    def press(self, key: str) -> None:
        """One key, by its name."""
        code = {"Enter": 13, "Escape": 27}[key]
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.command("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **text)

    def forgive(self, *parts: str) -> None:
        """Forgets complaints that a test has provoked: the browser itself tells of each request that fails."""
        self.complaints = [text for text in self.complaints if not any(part in text for part in parts)]

    def resize(self, width: int, height: int, *, dark: bool = False, still: bool = False) -> None:
        """As a screen of that size, narrow ones of phones; for somebody who likes it dark, or without motion."""
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        motion = {"name": "prefers-reduced-motion", "value": "reduce" if still else "no-preference"}
        self.command("Emulation.setEmulatedMedia", features=[scheme, motion])

    def screenshot(self, path: Path) -> None:
        """The whole page as PNG."""
        shot = self.command("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _note(self, message: dict[str, Any]) -> None:
        method, told = message.get("method"), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.complaints.append(str(told["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and told["type"] in {"error", "warning", "assert"}:
            self.complaints.append(str(told["args"]))
        elif method == "Log.entryAdded" and told["entry"]["level"] in {"error", "warning"}:
            self.complaints.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")


@contextmanager
def browsing(folder: Path) -> Iterator[Page]:
    """A browser of its own, with one tab."""
    program = needed("chromium", "chromium-browser", "google-chrome")
    with (folder / "chromium.txt").open("wb") as said:
        process = subprocess.Popen(
            [program, *_WORDS, f"--user-data-dir={folder / 'profile'}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )
    try:
        with connect(_socket_of(folder / "profile" / "DevToolsActivePort"), max_size=None) as socket:
            yield Page(socket)
            with suppress(ConnectionClosed):
                socket.send('{"id":0,"method":"Browser.close"}')
        process.wait(WAIT_S)
    finally:
        process.kill()
        process.wait()


def _socket_of(file: Path) -> str:
    deadline = time.monotonic() + WAIT_S
    while True:
        with suppress(OSError, ValueError, IndexError, StopIteration):
            port = int(file.read_text().splitlines()[0])
            with urlopen(f"http://127.0.0.1:{port}/json/list", timeout=5) as answer:
                tabs = orjson.loads(answer.read())
            found: str = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
            return found
        assert time.monotonic() < deadline, "Chromium does not start"
        time.sleep(0.05)
