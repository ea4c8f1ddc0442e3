"""The load client that is written in Go: builds it, and runs its lease streams.

It costs the machine that it shares with what it measures a fifth of what the same load in Python does.
"""

import base64
import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from google.protobuf.message import Message

_SOURCE = Path(__file__).parent / "loads" / "go_client"


def build_client(tools: Path) -> Path | None:
    """The program, built into this folder; None where that cannot be done."""
    program = (tools / "client").absolute()
    if shutil.which("go") is None:
        return None
    command = ["go", "build", "-o", str(program), "."]
    built = subprocess.run(command, cwd=_SOURCE, capture_output=True, check=False)
    return program if built.returncode == 0 else None


def as_base64(message: Message) -> str:
    """A message as the client is told it."""
    return base64.b64encode(message.SerializeToString()).decode()


@dataclass(frozen=True, slots=True)
class Worked:
    """What its lease streams did: jobs completed by stream, messages that brought leases, and when (in seconds since 1970) each job
    came last.
    """

    completed: Sequence[int]
    messages: int
    arrived_at: Mapping[int, float]


class Workers:
    """A running client whose lease streams are open."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def begin(self) -> None:
        """Lets its producers enqueue."""
        _say(self._process, "go")

    def end(self) -> Worked:
        """Waits until all jobs are done. Raises RuntimeError when the client has failed."""
        told = _pipe(self._process.stdout).readline()
        if not told:
            raise RuntimeError(f"the client has failed: {_pipe(self._process.stderr).read()}")
        outcome = json.loads(told)
        arrivals = outcome["arrivals"] or ()
        return Worked(
            outcome["completed"], outcome["messages"], {job_id: at / 1e9 for job_id, at in arrivals}
        )


@contextmanager
def workers(program: str, address: str, **work: object) -> Iterator[Workers]:
    """A client with the fields of `Work` in work.go, from the moment that its streams are open; ended with the block."""
    with subprocess.Popen(
        [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            _say(process, json.dumps({"address": address, "work": work}))
            if not _pipe(process.stdout).readline():
                raise RuntimeError(f"the client has failed: {_pipe(process.stderr).read()}")
            yield Workers(process)
        finally:
            process.kill()


def _say(process: subprocess.Popen[str], line: str) -> None:
    _pipe(process.stdin).write(f"{line}\n")
    _pipe(process.stdin).flush()


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe
