"""`hftpipe top`: the pipeline on the terminal, looked at again and again."""

import asyncio
import signal
from collections.abc import Callable
from typing import ClassVar, Final

from rich.text import Text
from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import Static

from hftpipe.telemetry.overview import Overview
from hftpipe.terminal.top_text import Watched, head, lists, shard_lines, trouble

_KEYS: Final = "q quits   up/down, page up/down scroll the shards"


class Top(App[None]):
    """Shows a look every `interval_s`; starts nothing, and ends nothing but itself.

    look: see `overview.Observer`; it is called in a thread, one call at a time.
    """

    CSS = """
    Screen { background: ansi_default; color: ansi_default; }
    Static { background: ansi_default; height: auto; width: 100%; }
    #shards { height: auto; max-height: 50%; scrollbar-size-vertical: 1; background: ansi_default; }
    #lists { height: 1fr; min-height: 3; margin-top: 1; }
    #trouble { max-height: 3; }
    #keys { dock: bottom; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit", priority=True),
        Binding("ctrl+c", "quit", "Quit", priority=True),
        Binding("up", "scroll_shards(-1)", show=False),
        Binding("down", "scroll_shards(1)", show=False),
        Binding("pageup", "scroll_page(-1)", show=False),
        Binding("pagedown", "scroll_page(1)", show=False),
    ]
    ENABLE_COMMAND_PALETTE = False

    def __init__(self, look: Callable[[], Overview], home: str, interval_s: float) -> None:
        super().__init__(ansi_color=True)
        self._look = look
        self._home = home
        self._interval_s = interval_s
        self.watched = Watched()
        self._drawn: dict[str, Text | str] = {}
        self._width = 0

    def compose(self) -> ComposeResult:
        yield Static(id="head", markup=False)
        yield VerticalScroll(Static(id="rows", markup=False), id="shards", can_focus=False)
        yield Static(id="lists", markup=False)
        yield Static(id="trouble", markup=False)
        yield Static(_KEYS, id="keys", markup=False)

    def on_mount(self) -> None:
        """A signal ends it as a key does: the terminal is left as it was."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self.exit)
        self._draw()
        self.run_worker(self._watch(), exit_on_error=True)

    def on_resize(self, _: events.Resize) -> None:
        """Everything is laid out anew."""
        self._draw()

    def action_scroll_shards(self, lines: int) -> None:
        """Shows others of the shards."""
        self.query_one("#shards").scroll_relative(y=lines, animate=False)

    def action_scroll_page(self, direction: int) -> None:
        """Shows those that follow, or come before."""
        self.action_scroll_shards(direction * self.query_one("#shards").size.height)

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + self._interval_s
            try:
                self.watched.see(await asyncio.to_thread(self._look))
            except Exception as error:  # nobody foresaw it: what was seen last stays, and it is told why
                self.watched.problem = f"the last look failed: {type(error).__name__}: {error}"
            self._draw()
            await asyncio.sleep(max(due_s - loop.time(), 0.05))

    def _draw(self) -> None:
        width = self.size.width
        rows = max(self.query_one("#lists").size.height, 3)
        shown: dict[str, Text | str] = {
            "#head": head(self.watched, self._home, width),
            "#rows": shard_lines(self.watched, width - 1),
            "#lists": lists(self.watched, width, rows),
            "#trouble": trouble(self.watched),
        }
        for name, content in shown.items():
            before = self._drawn.get(name)
            if content != before or width != self._width:
                # To lay everything out anew costs as much again as to draw it.
                is_alike = width == self._width and _height(content) == _height(before)
                self.query_one(name, Static).update(content, layout=not is_alike)
        self._drawn, self._width = shown, width


def _height(content: Text | str | None) -> object:
    """What tells how many lines a content takes; that of running text depends on how it is broken."""
    return content.plain.count("\n") if isinstance(content, Text) else content
