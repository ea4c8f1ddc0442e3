"""constraints.txt pins what is installed: an environment made tomorrow is the one that was tested today."""

import re
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"


def _needed() -> set[str]:
    """Every distribution that `pip install .[dev]` brings, whatever else a developer has installed."""
    found: set[str] = set()
    pending = [("reprise", "dev")]
    while pending:
        name, extra = pending.pop()
        for text in metadata.requires(name) or ():
            wanted = Requirement(text)
            if wanted.marker is not None and not wanted.marker.evaluate({"extra": extra}):
                continue
            needed = canonicalize_name(wanted.name)
            if needed not in found:
                found.add(needed)
                pending += [(needed, of_it) for of_it in ("", *wanted.extras)]
    return found


def _pins() -> dict[str, str]:
    lines = [line.strip() for line in _CONSTRAINTS.read_text().splitlines()]
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def test_everything_that_is_needed_is_pinned_at_the_installed_version() -> None:
    pins = _pins()
    needed = _needed()
    assert {"grpcio", "psycopg-binary", "pytest", "mypy-extensions"} <= needed
    assert {name: pins.get(name) for name in needed} == {name: metadata.version(name) for name in needed}


def test_no_file_names_a_package_host() -> None:
    assert not re.search(r"https?://|--(extra-)?index-url|--find-links", _CONSTRAINTS.read_text())
