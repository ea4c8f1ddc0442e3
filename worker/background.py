"""The event loop of this process's workers, in a thread of its own."""

import asyncio
import threading
from functools import cache


@cache
def background_loop() -> asyncio.AbstractEventLoop:
    """One loop for all workers of the process; it runs as long as the process.

    It is never closed, because gRPC hands events to a loop also after the connection in it was closed, and
    stumbles
    over a loop that is gone. Its thread is a daemon: it keeps no process from exiting.
    """
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="reprise-worker", daemon=True).start()
    return loop
