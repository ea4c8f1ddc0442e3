"""The checked-in stubs are what the generator makes of the contract."""

import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2]


def test_the_stubs_are_fresh(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, PROJECT / "tools" / "generate_stubs.py", tmp_path], check=True, cwd=PROJECT
    )

    fresh = {
        path.name: path.read_text() for path in (tmp_path / "reprise" / "v1").iterdir() if path.is_file()
    }
    checked_in = {
        path.name: path.read_text()
        for path in (PROJECT / "proto" / "reprise" / "v1").iterdir()
        if path.suffix in (".py", ".pyi") and path.name != "__init__.py"
    }
    assert fresh == checked_in
