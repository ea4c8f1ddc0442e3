"""Under which identity PostgreSQL runs: it refuses to run as root, or as a user without a name, and in many containers and on many
build machines there is no other.

Owns the choice and the command line of `launch.py`. Never changes the owner or the mode of a directory that it did not make.
"""

import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from broker.embedded import launch


class Identity(StrEnum):
    """Who the server is to the operating system."""

    OWN = "own"
    """The user who starts it."""
    NAMESPACE = "namespace"
    """The user who starts it, in a user namespace in which it looks like `nobody`: works with every directory of that user."""
    NOBODY = "nobody"
    """The user `nobody`: for root where user namespaces are not allowed, as in most containers."""

    @classmethod
    def choose(cls) -> "Identity":
        """The best identity that this process and this kernel allow."""
        if os.geteuid() != 0 and _has_a_name(os.geteuid()):
            return cls.OWN
        trial = subprocess.run(  # noqa: S603
            launch_command(cls.NAMESPACE, ["/bin/sh", "-c", ":"]), capture_output=True, check=False
        )
        if trial.returncode == 0:
            return cls.NAMESPACE
        return cls.NOBODY if os.geteuid() == 0 else cls.OWN


def launch_command(
    identity: Identity, command: Sequence[str | Path], *, on_parent_death: signal.Signals = signal.SIGINT
) -> list[str]:
    """`command` made to run under `identity` and to get `on_parent_death` when the thread that starts it is gone.

    The program must be named by its path. Start long-lived programs from the main thread: the kernel watches the thread.
    """
    # -I and -S: neither the environment nor site-packages are read, which also makes it start in 15 ms.
    launcher = [sys.executable, "-I", "-S", launch.__file__]
    return [*launcher, identity, str(os.getpid()), str(int(on_parent_death)), *map(str, command)]


def _has_a_name(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True
