"""`hftpipe replay --step`: a walk through the transactions in the terminal, forward and back."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from signal import Signals
from threading import Event
from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Input, Static

from hftpipe.audit.parallel import Progress
from hftpipe.audit.walker import View, Walker
from hftpipe.errors import HftpipeError, Interrupted
from hftpipe.terminal import step_view

_KEYS = " → ← step   PgDn PgUp entry   g G ends   s shard   / go to   f filter   q quit"

_FIXED_LINES = 13
"""Lines of the screen that are not the list of transactions."""

_WAITING_MAX = 100
"""Keys that are pressed while it is still on the way; the oldest are dropped."""

_ASKING = {"go": "3/1-1042, account 42 or tx 123", "keep": "account to stop at alone; empty for all"}


class Stopping:
    """Takes in how far a walk is, and stops it when asked to. One thread walks, another looks."""

    def __init__(self) -> None:
        self._stop = Event()
        self._passed = 0

    def tell(self, progress: Progress) -> None:
        """See `Walker`. Raises Interrupted."""
        self._passed += progress.transactions
        if self._stop.is_set():
            self._stop.clear()
            raise Interrupted("stopped on the way; it stands where it did")

    def begin(self) -> None:
        """A new walk begins."""
        self._passed = 0
        self._stop.clear()

    def stop(self) -> None:
        """Ends the walk that is under way."""
        self._stop.set()

    @property
    def told(self) -> str:
        """How far it is, for people."""
        return f"deciding what lies between: {self._passed:,} transactions (Esc stops)"


class Stepper(App[None]):
    """Shows where a walker stands, and moves it.

    make: makes the walker, in the one thread that it then lives in. ending: signals that end it as `q` does.
    """

    CSS = """
    Screen { layout: vertical; }
    Static { text-wrap: nowrap; text-overflow: ellipsis; }
    #place { background: $primary; color: $text; text-style: bold; }
    #list { height: 1fr; }
    #rule { height: 2; text-style: bold; }
    #balance { height: 6; }
    #message { height: 1; color: $warning; }
    #ask { display: none; height: 1; border: none; padding: 0; }
    #ask.asked { display: block; }
    #keys { background: $panel; color: $text-muted; }
    """
    ENABLE_COMMAND_PALETTE = False
    AUTO_FOCUS = None
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right,space,n,down", "move('next')"),
        Binding("left,p,up", "move('previous')"),
        Binding("pagedown", "move('next_entry')"),
        Binding("pageup", "move('previous_entry')"),
        Binding("g,home", "move('first')"),
        Binding("G,end", "move('last')"),
        Binding("s", "move('next_shard')"),
        Binding("slash", "ask('go')"),
        Binding("f", "ask('keep')"),
        Binding("escape", "give_up"),
        Binding("q", "quit"),
    ]

    def __init__(
        self, make: Callable[[Callable[[Progress], None]], Walker], ending: Sequence[Signals] = ()
    ) -> None:
        super().__init__()
        self._ending = ending
        self._make = make
        self._stopping = Stopping()
        self._thread = ThreadPoolExecutor(1, "walk")
        self._walker: Walker | None = None
        self._is_moving = False
        self._waiting: deque[Callable[[], View]] = deque(maxlen=_WAITING_MAX)
        self._asked = ""
        self._keeps_to = ""
        self.view: View | None = None
        self.failed: HftpipeError | None = None
        """Why it ended, when that was not asked for."""

    def compose(self) -> ComposeResult:
        yield Static(id="place", markup=False)
        yield Static(id="origin", markup=False)
        yield Static(step_view.LIST_HEADING, id="columns", markup=False)
        yield Static(id="list", markup=False)
        yield Static(id="rule", markup=False)
        yield Static(id="balance", markup=False)
        yield Static(id="message", markup=False)
        yield Input(id="ask")
        yield Static(_KEYS, id="keys", markup=False)

    async def on_mount(self) -> None:
        for number in self._ending:
            asyncio.get_running_loop().add_signal_handler(number, self.exit)
        self.set_interval(0.2, self._show_progress)
        self._start(self._begin)

    def _begin(self) -> View:
        self._walker = self._make(self._stopping.tell)
        if self._walker.wanted is not None:
            self._keeps_to = "what was asked for"
        return self._walker.begin()

    async def on_unmount(self) -> None:
        self._stopping.stop()
        if self._walker is not None:
            await asyncio.wrap_future(self._thread.submit(self._walker.close))
        self._thread.shutdown()

    def on_resize(self) -> None:
        self._show()

    # --- moving --------------------------------------------------------------------------------------------------

    def action_move(self, where: str) -> None:
        if self._walker is not None:
            self._start(getattr(self._walker, where))

    def action_ask(self, what: str) -> None:
        if self._is_moving or self._walker is None:
            return
        self._asked = what
        ask = self.query_one("#ask", Input)
        ask.placeholder = _ASKING[what]
        ask.value = ""
        ask.add_class("asked")
        ask.focus()

    def action_give_up(self) -> None:
        if self._is_moving:
            self._waiting.clear()
            self._stopping.stop()
        self._end_asking()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self._end_asking()
        if self._walker is None:
            return
        text = event.value.strip()
        if self._asked == "go":
            if text:
                walker = self._walker
                self._start(lambda: walker.go(text))
        elif not text or text.isdecimal():
            self._keep_to(int(text) if text else None)
        else:
            self._say(f"{text!r} is no account")

    def _keep_to(self, account: int | None) -> None:
        walker = self._walker
        assert walker is not None, "nobody is asked before it is there"  # noqa: S101

        def keep() -> View:
            view = walker.keep_to(account)
            self._keeps_to = "" if account is None else f"account {account}"
            return view

        self._start(keep)

    def _end_asking(self) -> None:
        ask = self.query_one("#ask", Input)
        ask.remove_class("asked")
        self.set_focus(None)

    def _start(self, move: Callable[[], View]) -> None:
        """Moves as soon as the moves before are done."""
        self._waiting.append(move)
        if not self._is_moving:
            self._is_moving = True
            self.run_worker(self._move_all())

    async def _move_all(self) -> None:
        note = ""
        while self._waiting:
            self._stopping.begin()
            try:
                self.view = await asyncio.wrap_future(self._thread.submit(self._waiting.popleft()))
                note = self.view.note
            except HftpipeError as error:
                note = str(error)
                self._waiting.clear()
                if self.view is None:
                    self.failed = error
                    self.exit()
            self._show()
        self._is_moving = False
        self._say(note)

    # --- showing -------------------------------------------------------------------------------------------------

    def _show(self) -> None:
        view = self.view
        if view is None:
            return
        width, height = self.size
        row = view.row
        self.query_one("#place", Static).update(step_view.heading(view, self._keeps_to))
        self.query_one("#origin", Static).update(step_view.origin_of(view))
        lines = step_view.around(view, max(height - _FIXED_LINES, 3))
        self.query_one("#list", Static).update(Text("\n").join(lines))
        self.query_one("#rule", Static).update("\n".join(step_view.rule_lines(row, width)))
        self.query_one("#balance", Static).update(Text("\n").join(step_view.balance_lines(row)))

    def _say(self, line: str) -> None:
        self.query_one("#message", Static).update(line)

    def _show_progress(self) -> None:
        if self._is_moving:
            self._say(self._stopping.told)
