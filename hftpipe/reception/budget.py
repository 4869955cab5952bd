"""How many bytes of messages all connections together may hold."""

import asyncio
from collections import deque
from contextlib import suppress


class Budget:
    """Taken before bytes are kept, given back when they are done with; for one event loop.

    A single claim larger than the whole budget is granted when nothing else is taken.
    """

    def __init__(self, bytes_max: int) -> None:
        self._free = self._all = bytes_max
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def is_used_up(self) -> bool:
        """Whether somebody waits for it, or nothing is left."""
        return bool(self._waiting) or self._free <= 0

    def take(self, count: int) -> bool:
        """Takes so many bytes, if they are free and nobody waits for them."""
        if self._waiting or not self._fits(count):
            return False
        self._free -= count
        return True

    async def wait(self, count: int) -> None:
        """Takes so many bytes as soon as they are free; whoever came first is served first."""
        if self.take(count):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((count, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give(count)  # it had just been granted
            else:
                with suppress(ValueError):  # passed over before
                    self._waiting.remove((count, turn))
                self._serve()
            raise

    def give(self, count: int) -> None:
        """Gives back what was taken."""
        self._free += count
        self._serve()

    def _serve(self) -> None:
        while self._waiting and self._fits(self._waiting[0][0]):
            count, turn = self._waiting.popleft()
            if not turn.cancelled():
                self._free -= count
                turn.set_result(None)

    def _fits(self, count: int) -> bool:
        return count <= self._free or self._free == self._all
