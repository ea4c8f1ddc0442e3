"""Becomes another program that ends when its parent does, and that is not root where root is not welcome.

Run as a script (`python -I -S launch.py …`), so that nothing of ours runs between fork and exec in a process with threads.
Imports only the standard library. Arguments: IDENTITY PARENT_PID SIGNAL PROGRAM [ARGUMENT…]
"""

import ctypes
import os
import pwd
import signal
import sys
from pathlib import Path

_CLONE_NEWUSER = 0x10000000  # linux/sched.h
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_UNPRIVILEGED = "nobody"


def main(arguments: list[str]) -> None:
    """Never returns: the process becomes the program, or exits because its parent is gone."""
    identity, parent_pid, number, *command = arguments
    if identity == "namespace":
        _enter_namespace()
    elif identity == "nobody":
        _drop_root()
    # After the change of identity, which would clear it.
    _end_with_parent(int(parent_pid), int(number))
    os.execv(command[0], command)  # noqa: S606


def _enter_namespace() -> None:
    """Looks like another user to the program, while files stay ours: nothing needs another owner or mode."""
    user, uid, gid = pwd.getpwnam(_UNPRIVILEGED), os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "user namespaces are not allowed here")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user.pw_uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{user.pw_gid} {gid} 1")


def _drop_root() -> None:
    user = pwd.getpwnam(_UNPRIVILEGED)
    os.setgroups([])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)


def _end_with_parent(parent_pid: int, number: int) -> None:
    """Asks the kernel for `number` when the parent dies, `kill -9` included. Only Linux can; elsewhere the next start cleans up."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent_pid:
        signal.raise_signal(signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1:])
