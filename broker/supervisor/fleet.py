"""Several broker processes behind one port: each listens on a socket of its own (SO_REUSEPORT), the kernel deals out the connections.

Owns that the port is nobody else's, that all of them serve before it says so, and that one which dies is started again while the others
go on: their clients must not pay for it, and a process that lost its memory has lost nothing. Must not serve, nor know what a broker does.
gRPC does not survive a fork, so every process is started afresh.
"""

import asyncio
import logging
import signal
import socket
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing

from broker.embedded.identity import Identity, launch_command

_log = logging.getLogger(__name__)

# A process that dies at once again must not fill the log; one that has lived for a while starts over with the shortest pause.
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0
_SETTLED_SECONDS = 60.0
# A broker lets calls end for 5 s, and statements in flight for some more.
_STOP_SECONDS = 20.0


class PortTaken(Exception):
    """Somebody listens there already."""


class ProcessEnded(Exception):
    """A process ended before it had served once; it has said why itself. `code` is its exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"a broker process ended with code {code} before it served")
        self.code = code


class Fleet:
    """`size` processes that run `command(number, address)`; each says a line on its standard output once it serves."""

    def __init__(
        self, command: Callable[[int, str], Sequence[str]], environment: Mapping[str, str], size: int
    ) -> None:
        self._command = command
        self._environment = environment
        self._size = size
        self._running: dict[int, Process] = {}

    async def run(self, listen: str, ready: Callable[[str], None]) -> None:
        """Runs until SIGTERM or SIGINT; `ready` gets HOST:PORT once all serve. Raises PortTaken, ProcessEnded."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        port, address = _reserve(listen)
        with closing(port):
            running = asyncio.create_task(self._run(address, ready))
            stopping = asyncio.create_task(stop.wait())
            try:
                await asyncio.wait([running, stopping], return_when=asyncio.FIRST_COMPLETED)
                if running.done():
                    await running
            finally:
                stopping.cancel()
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
                await asyncio.gather(*(_end(process) for process in self._running.values()))

    async def _run(self, address: str, ready: Callable[[str], None]) -> None:
        """The first one alone until it serves: it migrates, and what is wrong is said once."""
        await self._start(1, address)
        others = range(2, self._size + 1)
        await asyncio.gather(*(self._start(number, address) for number in others))
        ready(address)
        await asyncio.gather(*(self._keep(number, address) for number in range(1, self._size + 1)))

    async def _start(self, number: int, address: str) -> None:
        """Returns when the process serves. Raises ProcessEnded."""
        process = await asyncio.create_subprocess_exec(
            *launch_command(
                Identity.OWN, self._command(number, address), on_parent_death=signal.SIGKILL
            ),
            stdin=DEVNULL, stdout=PIPE, env=self._environment,
            start_new_session=True,  # Ctrl-C in a terminal reaches this process alone, which stops the others
        )  # fmt: skip
        self._running[number] = process
        assert process.stdout is not None
        if not await process.stdout.readline():
            raise ProcessEnded(await process.wait())

    async def _keep(self, number: int, address: str) -> None:
        """Starts the process again whenever it ends, after a pause that grows."""
        loop = asyncio.get_running_loop()
        pause = _FIRST_PAUSE_SECONDS
        while True:
            served_at = loop.time()
            code = await self._running[number].wait()
            if loop.time() - served_at > _SETTLED_SECONDS:
                pause = _FIRST_PAUSE_SECONDS
            while True:
                _log.error("process=%d ended code=%d starts_again_in_seconds=%.1f", number, code, pause)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
                try:
                    await self._start(number, address)
                    break
                except ProcessEnded as error:
                    code = error.code
            _log.info("process=%d serves again", number)


def _reserve(listen: str) -> tuple[socket.socket, str]:
    """A socket that holds the port without listening, so that no connection waits at it, and HOST:PORT. Raises PortTaken.

    Whoever sets SO_REUSEPORT may join a port of the same user, another broker too. So it is first asked for without; only two that start
    within the same second are not told apart.
    """
    host, _, port = listen.rpartition(":")
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host.strip("[]") or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with closing(socket.socket(family, kind, protocol)) as alone:
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind(place)
            number = alone.getsockname()[1]
        shared = socket.socket(family, kind, protocol)
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        shared.bind((place[0], number, *place[2:]))
    except (OSError, ValueError) as error:
        raise PortTaken(f"cannot listen on {listen}: is another broker running there?") from error
    return shared, f"{host}:{number}"


async def _end(process: Process) -> None:
    """Asks a process to end, and kills it when it takes too long."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(_STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
