"""Step type `python`: the job's `code` in a process and a folder of its own."""

import asyncio
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worker.executors.child_process import Child, run_in_child
from worker.failure import INPUT_INVALID, JobFailed
from worker.job import Job


class PythonStep:
    """Input: `code`, which defines `main`; `data`, which it is called with.

    The result is what `main` returns.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        """`environment` is all that the code gets to see of the worker's."""
        self._environment = environment

    async def execute(self, job: Job) -> Any:
        """What `main` returned.

        Raises JobFailed with the class and text of what it raised, or of how its process ended.
        """
        code = job.input.get("code")
        if not isinstance(code, str) or not code.strip():
            raise JobFailed("a python step needs code", type=INPUT_INVALID)
        folder = Path(tempfile.mkdtemp(prefix="reprise-"))
        environment = {**self._environment, "TMPDIR": str(folder)}
        given = {"code": code, "data": job.input.get("data") or {}, "context": _context_of(job)}
        try:
            return await run_in_child(Child("python_code", folder, environment), given)
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


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
