"""A fresh interpreter for each attempt: right on every system, at the price of its start.

What is used where there is no warm parent, so always where the system is not Linux: the libraries of macOS do not work in
a process that was forked and never called exec.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping
from pathlib import Path

from worker.executors.children import INTERPRETER, ROOT, Wires

_PROGRAM = (
    "import sys; sys.path.append(sys.argv[1]); from worker.child.{entry} import main; "
    "main(int(sys.argv[2]), int(sys.argv[3]))"
)


class FreshChildren:
    """Starts `main` of worker.child.`entry`, with `environment` and nothing else of the worker's."""

    def __init__(self, entry: str, environment: Mapping[str, str]) -> None:
        self._entry = entry
        self._environment = environment

    async def run(self, wires: Wires, folder: Path | None) -> int:
        """As Children has it."""
        environment = {**self._environment, "TMPDIR": str(folder)} if folder else self._environment
        try:
            process = await asyncio.create_subprocess_exec(
                *INTERPRETER,
                _PROGRAM.format(entry=self._entry),
                str(ROOT),
                str(wires.lifeline),
                str(wires.answer),
                stdin=wires.job,
                stdout=wires.output,
                stderr=wires.output,
                pass_fds=(wires.lifeline, wires.answer),
                start_new_session=True,
                cwd=folder,
                env=dict(environment),
            )
        finally:
            wires.hand_over()
        try:
            return await process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # also what it left behind
            await process.wait()
