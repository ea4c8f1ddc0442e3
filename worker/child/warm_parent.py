"""The warm parent: a process with everything imported already, which forks a child for each attempt.

Knows no job: what a child runs and answers goes past it, through descriptors that it only hands on. It holds no
credentials, starts no thread and loads nothing of gRPC, because every child is a copy of it. Linux only: see
worker/executors/children.py.
"""

import contextlib
import ctypes
import gc
import os
import select
import shutil
import signal
import socket
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import NoReturn

from worker.child.orders import DESCRIPTORS, ORDER_BYTES, ChildEnd, Order

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h

Entry = Callable[[int, int], NoReturn]


@dataclass(frozen=True, slots=True)
class _Child:
    order: Order
    lifeline: int  # kept open here, so that a child which closes its own cannot outlive the worker


class WarmParent:
    """Forks what the worker orders through `control`, and tells it how each child ended."""

    def __init__(self, control: socket.socket, entry: Entry) -> None:
        self._control = control
        self._entry = entry
        self._children: dict[int, _Child] = {}  # by process id
        self._woken, self._wake = os.pipe()

    def serve(self) -> None:
        """Returns when the worker has closed its end or is dead; no child is left then, nor its folder."""
        for descriptor in (self._woken, self._wake):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        control = self._control.fileno()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while True:
                readable, _, _ = select.select([control, self._woken], [], [])
                if self._woken in readable:
                    os.read(self._woken, 4096)
                    self._reap()
                if control in readable and not self._take_order():
                    break
        self._end_all()

    def _take_order(self) -> bool:
        """Whether the worker is still there."""
        message, descriptors, _, _ = socket.recv_fds(
            self._control, ORDER_BYTES, DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
        )
        if not message:
            return False
        order = Order.from_bytes(message)
        if len(descriptors) == DESCRIPTORS:
            self._fork(order, *descriptors)
            return True
        for descriptor in descriptors:
            os.close(descriptor)
        self._tell(ChildEnd(order.number, refusal="too many open files"))
        return True

    def _fork(self, order: Order, job: int, answer: int, output: int, lifeline: int) -> None:
        try:
            process_id = os.fork()
        except OSError as error:  # no room for another process
            self._tell(ChildEnd(order.number, refusal=str(error)))
            os.close(lifeline)
        else:
            if process_id == 0:
                self._become_child(order, job, answer, output, lifeline)
            self._children[process_id] = _Child(order, lifeline)
        for descriptor in (job, answer, output):
            os.close(descriptor)

    def _become_child(self, order: Order, job: int, answer: int, output: int, lifeline: int) -> NoReturn:
        """Leaves nothing of the parent's in reach but its memory, then runs the step."""
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for source, target in ((job, 0), (output, 1), (output, 2)):
                os.dup2(source, target)
            others = (child.lifeline for child in self._children.values())
            for descriptor in (job, output, self._woken, self._wake, *others):
                os.close(descriptor)
            self._control.close()
            if order.folder:
                os.chdir(order.folder)
                os.environ["TMPDIR"] = order.folder
            self._entry(lifeline, answer)
        except BaseException:  # a child must never come back into the parent's loop
            traceback.print_exc()
            os._exit(1)

    def _reap(self) -> None:
        """Tells of every child that has ended, once its group is killed.

        The group goes first: until the child is reaped its number cannot be anybody else's.
        """
        while ended := _next_ended():
            child = self._children.pop(ended, None)
            if child:
                _kill_group(ended)
            _, status = os.waitpid(ended, 0)
            if child:  # else something that a child had left behind
                os.close(child.lifeline)
                self._tell(ChildEnd(child.order.number, os.waitstatus_to_exitcode(status)))

    def _tell(self, end: ChildEnd) -> None:
        self._control.send(end.to_bytes())

    def _end_all(self) -> None:
        for process_id in self._children:
            _kill_group(process_id)
        for process_id, child in self._children.items():
            os.waitpid(process_id, 0)
            if child.order.folder:
                shutil.rmtree(child.order.folder, ignore_errors=True)


def _next_ended() -> int | None:
    """A process that has ended and is not reaped yet."""
    try:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return ended.si_pid if ended else None


def _kill_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def main(control: int, entry: str) -> None:
    """Serves with the `main` of worker.child.`entry`, after all that its WARM names has been imported."""
    module = import_module(f"worker.child.{entry}")
    for name in module.WARM:
        import_module(name)
    # What a step leaves behind when it is killed becomes our child and is reaped here; the first process of a
    # container may not do that.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    gc.collect()
    gc.freeze()  # else the first collection in each child copies every page
    WarmParent(socket.socket(fileno=control), module.main).serve()
