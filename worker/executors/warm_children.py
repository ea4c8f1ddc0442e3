"""Children forked by a warm parent, which has imported everything once.

Owns the parent's life: started when it is first needed, started anew when it has died, gone when the worker closes its end of the
socket between them or dies. multiprocessing's forkserver does the same for functions; it gives a child neither a group nor
a folder of its own, and reaps it before anybody could kill what it left behind.
"""

import asyncio
import contextlib
import itertools
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

from worker.child.orders import ORDER_BYTES, ChildEnd, Order
from worker.executors.children import INTERPRETER, ROOT, Wires
from worker.log_lines import LOGGER, line

_PROGRAM = (
    "import sys; sys.path.append(sys.argv[1]); from worker.child.warm_parent import main; "
    "main(int(sys.argv[2]), sys.argv[3])"
)
# Some eighty orders under way: the kernel limits the descriptors that are on their way in messages to the files that a process may open.
_SEND_BYTES = 32 * 1024
_CLOSE_SECONDS = 5.0  # a parent that was stopped by a signal is killed after that
_LOST = ChildEnd(0, -signal.SIGKILL)  # of every child of a parent that died: its lifeline is cut


class WarmChildren:
    """Has `main` of worker.child.`entry` run in copies of a process that has imported it, with `environment` and nothing else
    of the worker's.
    """

    def __init__(self, entry: str, environment: Mapping[str, str]) -> None:
        self._entry = entry
        self._environment = environment
        self._parent: _Parent | None = None
        self._starting = asyncio.Lock()

    async def start(self) -> None:
        """Starts the parent unless it is there; its imports go on after this has returned."""
        await self._living_parent()

    async def close(self) -> None:
        """Ends the parent."""
        async with self._starting:
            if self._parent:
                await self._parent.close()
            self._parent = None

    async def run(self, wires: Wires, folder: Path | None) -> int:
        """As Children has it. Where the parent dies, its children are killed: -9."""
        try:
            ended = await self._order(wires, str(folder or ""))
        finally:
            wires.hand_over()
        try:
            end = await asyncio.shield(ended)
        except asyncio.CancelledError:
            wires.cut()
            await asyncio.wait([ended])
            raise
        wires.cut()  # of use where the parent died
        if end.refusal:
            raise OSError(end.refusal)
        return end.status

    async def _order(self, wires: Wires, folder: str) -> "asyncio.Future[ChildEnd]":
        parent = await self._living_parent()
        try:
            return await parent.order(wires, folder)
        except (BrokenPipeError, ConnectionResetError):  # it has just died
            parent.lose()
        return await (await self._living_parent()).order(wires, folder)

    async def _living_parent(self) -> "_Parent":
        async with self._starting:
            if self._parent is None or self._parent.is_lost:
                self._parent = await _Parent.start(self._entry, self._environment)
            return self._parent


class _Parent:
    """One parent process, from its start to its end."""

    def __init__(self, control: socket.socket, process: asyncio.subprocess.Process) -> None:
        self.is_lost = False
        self._control = control
        self._process = process
        self._ends: dict[int, asyncio.Future[ChildEnd]] = {}
        self._numbers = itertools.count(1)
        self._sending = asyncio.Lock()
        self._writable: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(control, self._read)

    @classmethod
    async def start(cls, entry: str, environment: Mapping[str, str]) -> "_Parent":
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            ours.setblocking(False)
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BYTES)
            try:
                process = await asyncio.create_subprocess_exec(
                    *INTERPRETER,
                    _PROGRAM,
                    str(ROOT),
                    str(theirs.fileno()),
                    entry,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,  # a Ctrl-C is the worker's to act on
                    env=dict(environment),
                )
            except BaseException:
                ours.close()
                raise
        return cls(ours, process)

    async def order(self, wires: Wires, folder: str) -> "asyncio.Future[ChildEnd]":
        """The end of a child that is forked now. Raises BrokenPipeError, ConnectionResetError where the parent is dead."""
        order = Order(next(self._numbers), folder)
        descriptors = [wires.job, wires.answer, wires.output, wires.lifeline]
        async with self._sending:
            while True:
                if self.is_lost:
                    raise BrokenPipeError
                try:
                    socket.send_fds(self._control, [order.to_bytes()], descriptors)
                    break
                except BlockingIOError:
                    await self._until_writable()
        ended: asyncio.Future[ChildEnd] = self._loop.create_future()
        self._ends[order.number] = ended
        return ended

    def lose(self) -> None:
        """Gives up on a parent that is dead: its children are, or will be when their lifelines are cut."""
        if self.is_lost:
            return
        self.is_lost = True
        self._loop.remove_reader(self._control)
        self._loop.remove_writer(self._control)
        self._control.close()
        self._settle_writable()
        for ended in self._ends.values():
            ended.set_result(_LOST)
        self._ends.clear()

    async def close(self) -> None:
        """Returns when the process has ended."""
        self.lose()
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    async def _until_writable(self) -> None:
        self._writable = self._loop.create_future()
        self._loop.add_writer(self._control, self._settle_writable)
        await self._writable

    def _settle_writable(self) -> None:
        if not self.is_lost:
            self._loop.remove_writer(self._control)
        if self._writable and not self._writable.done():
            self._writable.set_result(None)

    def _read(self) -> None:
        try:
            while message := self._control.recv(ORDER_BYTES):
                end = ChildEnd.from_bytes(message)
                self._ends.pop(end.number).set_result(end)
        except BlockingIOError:
            return
        except ConnectionResetError:
            pass
        LOGGER.warning(line("parent of steps died", children=len(self._ends)))
        self.lose()
