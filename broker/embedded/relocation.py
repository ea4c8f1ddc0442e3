"""Copies PostgreSQL's programs to where the user `nobody` can run them, when a venv below root's home hides them."""

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

from broker.embedded.binaries import Binaries
from broker.embedded.identity import Identity, launch_command

_SHARED_PLACE = Path("/var/lib/reprise")


def reachable_by_nobody(binaries: Binaries) -> Binaries:
    """`binaries` as they are if `nobody` can run them, else a copy of them that is made once per version (44 MB)."""
    if _runs_as_nobody(binaries):
        return binaries
    installation = binaries.directory.parent
    package = installation.parent
    place = _SHARED_PLACE / f"postgresql-{binaries.version}"
    copied = replace(binaries, directory=place / package.name / installation.name / "bin")
    if not _runs_as_nobody(copied):
        place.mkdir(parents=True, exist_ok=True)
        shutil.copytree(
            installation, place / package.name / installation.name, symlinks=True, dirs_exist_ok=True
        )
        # The wheel's programs find their libraries in a directory beside the package.
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, place / libraries.name, symlinks=True, dirs_exist_ok=True)
    return copied


def _runs_as_nobody(binaries: Binaries) -> bool:
    postgres = binaries.program("postgres")
    if not os.access(postgres, os.X_OK):
        return False
    trial = subprocess.run(  # noqa: S603
        launch_command(Identity.NOBODY, [postgres, "--version"]), capture_output=True, check=False
    )
    return trial.returncode == 0
