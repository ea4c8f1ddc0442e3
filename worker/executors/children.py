"""What both ways to start a child have in common: the wires that tie it to the worker, and what is asked of whoever
starts it.
"""

import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

ROOT = Path(__file__).parents[2]
# -I: neither the environment nor the working folder decides what a child imports.
INTERPRETER = (sys.executable, "-I", "-u", "-X", "utf8", "-X", "faulthandler", "-c")


class Wires:
    """The descriptors of one child: it reads `job` and writes `answer`, both files, and prints to `output`, a pipe.

    It is tied to the worker by `lifeline`: where the worker's end closes, by `cut` or by the worker's death, the kernel
    kills the child with its whole group.
    """

    def __init__(self, job: int, answer: int, output: int) -> None:
        """Takes over `output` only; the files stay the caller's."""
        self.job = job
        self.answer = answer
        self.output = output
        self.lifeline, ours = os.pipe()
        self._childs, self._ours = ExitStack(), ExitStack()
        self._childs.callback(os.close, output)
        self._childs.callback(os.close, self.lifeline)
        self._ours.callback(os.close, ours)

    def hand_over(self) -> None:
        """Closes the child's ends here: it has its own now, or will never be."""
        self._childs.close()

    def cut(self) -> None:
        """Closes the worker's end. Repeated: nothing."""
        self._ours.close()


class Children(Protocol):
    """Starts children of one kind, any number at a time."""

    async def run(self, wires: Wires, folder: Path | None) -> int:
        """A child's exit status once it has ended, negative for the signal that killed it; its group is dead, too.

        It works in `folder`, by default the worker's. Hands the wires over. Cancelled, it kills the child, waits for its
        end and passes the cancellation on. Raises OSError where no child can be started.
        """
