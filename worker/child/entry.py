"""The first and the last thing that a child process does: it takes its job, ties its life to the worker's,
gives its answer.

Standard input is a file that holds the job; the answer goes into a file whose descriptor comes as an
argument, so
that nothing a step prints can disturb either.
"""

import atexit
import contextlib
import fcntl
import os
import signal
import sys
from json import JSONEncoder
from typing import Any, NoReturn

from worker.json_result import encode_result

_ENCODER = JSONEncoder()  # made before the step runs, which may patch `json`


def take_job(lifeline: int, answer: int) -> bytes:
    """The job, as the executor wrote it.

    From here on this process, and its whole group, dies with the worker.
    """
    for descriptor in (lifeline, answer):
        os.set_inheritable(descriptor, False)
    _die_with_worker(lifeline)
    with os.fdopen(os.dup(0), "rb") as given:
        job = given.read()
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return job


def give_result(answer: int, result: Any) -> None:
    """Answers with what the step returned. Raises ResultNotJson."""
    _write(answer, f'{{"result":{encode_result(result)}}}')


def give_failure(answer: int, error: BaseException) -> None:
    """Answers with the failure that the exception stands for."""
    from dataclasses import asdict

    from worker.failure import failure_of

    facts = asdict(failure_of(error))
    facts["retry_after"] = facts["retry_after"] and facts["retry_after"].total_seconds()
    _write(answer, _ENCODER.encode({"failure": facts}))


def end_process() -> NoReturn:
    """Ends the process as an interpreter ends, but waits for no thread: what a step leaves running ends with its attempt.

    Nor does it take the modules apart, which would cost more than a whole trivial step.
    """
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
        if step := sys.modules.pop("step", None):
            step.__dict__.clear()  # closes, and so writes, the files that the step left open
        sys.stdout.flush()
    os._exit(0)


def _die_with_worker(lifeline: int) -> None:
    """Arms a signal for the moment when the worker's end of the lifeline closes, however the worker ends.

    The kernel sends it, so that code which never lets the interpreter run (a runaway regular expression)
    dies, too.
    """
    if sys.platform == "linux":
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
        try:
            os.read(lifeline, 1)
        except BlockingIOError:
            return  # open: the worker lives
        os._exit(1)  # it had ended before the signal was armed
    import _thread

    def watch() -> None:
        os.read(lifeline, 1)
        os.killpg(0, signal.SIGKILL)

    _thread.start_new_thread(watch, ())


def _write(answer: int, text: str) -> None:
    left = memoryview(text.encode("utf-8", "replace"))
    while left:
        left = left[os.write(answer, left) :]
