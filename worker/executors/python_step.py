"""Step type `python`: the job's `code` in a process and a folder of its own."""

import asyncio
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from worker.executors.child_process import ChildProcess
from worker.failure import INPUT_INVALID, JobFailed
from worker.job import Job


class PythonStep:
    """Input: `code`, which defines `main`; `data`, which it is called with.

    The result is what `main` returns.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        """`environment` is all that the code gets to see of the worker's."""
        self._process = ChildProcess("python_code", environment)

    async def __aenter__(self) -> Self:
        await self._process.open()
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._process.close()

    async def execute(self, job: Job) -> Any:
        """What `main` returned.

        Raises JobFailed with the class and text of what it raised, or of how its process ended.
        """
        code = job.input.get("code")
        if not isinstance(code, str) or not code.strip():
            raise JobFailed("a python step needs code", type=INPUT_INVALID)
        folder = Path(tempfile.mkdtemp(prefix="reprise-"))
        given = {"code": code, "data": job.input.get("data") or {}, "context": _context_of(job)}
        try:
            return await self._process.run(given, folder)
        finally:
            if not _remove_empty(folder):
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


def _remove_empty(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:  # the step has left something in it
        return False
    return True


def _context_of(job: Job) -> dict[str, Any]:
    """What the code learns about its job, as `context`."""
    return {
        "job_id": job.job_id,
        "execution_id": job.execution_id,
        "step": job.step,
        "queue": job.queue,
        "kind": job.kind,
        "attempt": job.attempt,
        "max_attempts": job.max_attempts,
        "labels": dict(job.labels),
    }
