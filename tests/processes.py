"""A real process under test: its log lines as they come, waited for instead of slept for."""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping

_PATIENCE_SECONDS = 30.0
# The longest line that a program may write.
_LINE_BYTES = 16 * 1024 * 1024


class Process:
    """A running program of the product. `lines` is what it has logged so far, `output` what it has printed."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self.lines: list[str] = []
        self.output = ""
        self._process = process
        self._news = asyncio.Condition()
        self._open_streams = 2
        self._readers = asyncio.gather(self._read_log(), self._read_output())

    @classmethod
    async def start(
        cls, module: str, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> "Process":
        """Starts `python -m module arguments…`; `environment` is added to this process's own."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", module, *arguments,
            limit=_LINE_BYTES, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
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
                assert self._open_streams, f"{self.name} ended without {text!r}: {self.lines}"
                await self._news.wait()

    async def output_with(self, text: str) -> str:
        """What it has printed once that contains `text` and the rest of the line, waited for. Raises AssertionError like `line_with`."""
        async with asyncio.timeout(_PATIENCE_SECONDS), self._news:
            await self._news.wait_for(
                lambda: not self._open_streams or "\n" in self.output.partition(text)[2]
            )
        assert text in self.output, f"{self.name} ended without {text!r}: {self.lines}"
        return self.output

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
            async with self._news:
                self.lines.append(line.decode(errors="replace").rstrip())
                self._news.notify_all()
        await self._close_stream()

    async def _read_output(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            async with self._news:
                self.output += line.decode(errors="replace")
                self._news.notify_all()
        await self._close_stream()

    async def _close_stream(self) -> None:
        async with self._news:
            self._open_streams -= 1
            self._news.notify_all()
