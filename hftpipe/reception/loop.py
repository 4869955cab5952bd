"""The event loop of the service: uvloop's, where there is one; for both transports it takes less of the processor."""

import asyncio
import sys


def event_loop() -> asyncio.AbstractEventLoop:
    """A new one."""
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop

    return uvloop.new_event_loop()
