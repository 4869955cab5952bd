"""What takes long and is the same for all who ask: it is found out once for all who wait."""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Shared(Generic[T]):
    """Asks in a thread, once at a time, however many wait; for one event loop. What `find` raises all of them meet."""

    def __init__(self, find: Callable[[], T]) -> None:
        self._find = find
        self._task: asyncio.Task[T] | None = None

    async def get(self) -> T:
        """What is found by the asking under way, or a new one; who leaves meanwhile does not end it."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(asyncio.to_thread(self._find))
            self._task.add_done_callback(_note_error)
        return await asyncio.shield(self._task)


def _note_error(task: "asyncio.Task[T]") -> None:
    """Whoever waited is told; where nobody did any more, asyncio would log that as a bug."""
    if not task.cancelled():
        task.exception()
