"""A real process under test: its log lines as they come, waited for instead of slept for."""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping

_PATIENCE_SECONDS = 30.0


class Process:
    """A running program of the product. `lines` is what it has logged so far; `output` what it printed, once it has ended."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self.lines: list[str] = []
        self.output = ""
        self._process = process
        self._news = asyncio.Condition()
        self._ended = False
        self._readers = asyncio.gather(self._read_log(), self._read_output())

    @classmethod
    async def start(
        cls, module: str, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> "Process":
        """Starts `python -m module arguments…`; `environment` is added to this process's own."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", module, *arguments,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **(environment or {})},
        )  # fmt: skip
        return cls(module, process)

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    async def line_with(self, text: str) -> str:
        """The first log line that contains `text`, waited for. Raises AssertionError if the process ends without it, or takes too long."""
        seen = 0
        async with asyncio.timeout(_PATIENCE_SECONDS), self._news:
            while True:
                for line in self.lines[seen:]:
                    if text in line:
                        return line
                seen = len(self.lines)
                assert not self._ended, f"{self.name} ended without {text!r}: {self.lines}"
                await self._news.wait()

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to the process."""
        self._process.send_signal(number)

    async def exit_code(self) -> int:
        """The exit code, waited for."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await self._readers
            return await self._process.wait()

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Sends a signal if the process still runs; returns its exit code."""
        if self._process.returncode is None:
            self.send(number)
        return await self.exit_code()

    async def _read_log(self) -> None:
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            await self._tell(line.decode(errors="replace").rstrip())
        self._ended = True
        async with self._news:
            self._news.notify_all()

    async def _read_output(self) -> None:
        assert self._process.stdout is not None
        self.output = (await self._process.stdout.read()).decode()

    async def _tell(self, line: str) -> None:
        async with self._news:
            self.lines.append(line)
            self._news.notify_all()
