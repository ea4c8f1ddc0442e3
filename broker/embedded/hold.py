"""A file that one process at a time holds, as the sign that a folder is its own."""

import fcntl
from io import BufferedWriter
from pathlib import Path


def hold(path: Path) -> BufferedWriter | None:
    """The file, made if it is missing and held until it is closed; None while another holds it.

    The kernel lets go of it however this process ends, and no child inherits it.
    """
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
