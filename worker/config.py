"""What the worker is told from outside.

The only module that reads the environment and the credentials file.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from worker.credentials import CREDENTIAL_PREFIX, Credentials, variable_form

DEFAULT_BROKER = "127.0.0.1:50051"
OWN_PREFIX = "REPRISE_"


class CredentialsInvalid(ValueError):
    """The credentials file or variable is not what it should be; the text names it, never its content."""


def default_broker() -> str:
    """HOST:PORT of REPRISE_BROKER, else the local default."""
    return os.environ.get("REPRISE_BROKER", DEFAULT_BROKER)


def child_environment() -> dict[str, str]:
    """The environment for code of jobs: this process's own, without anything of Reprise, its credentials
    above all.
    """
    return {name: value for name, value in os.environ.items() if not name.startswith(OWN_PREFIX)}


def load_credentials(path: Path | None) -> Credentials:
    """The credentials of a YAML or JSON file (a mapping from name to fields) and of
    REPRISE_CREDENTIAL_<NAME>, which win.

    A variable holds a JSON or YAML mapping, or a bare text: a postgresql:// address or a bearer token.
    Raises CredentialsInvalid, OSError.
    """
    by_name = {variable_form(name): fields for name, fields in _from_file(path).items()} if path else {}
    for variable, text in os.environ.items():
        if variable.startswith(CREDENTIAL_PREFIX):
            by_name[variable.removeprefix(CREDENTIAL_PREFIX)] = _from_text(variable, text)
    return Credentials(by_name)


def _from_file(path: Path) -> dict[str, Mapping[str, Any]]:
    content = _parsed(str(path), path.read_text())
    if not isinstance(content, dict):
        raise CredentialsInvalid(f"{path}: not a mapping from names to credentials")
    for name, fields in content.items():
        if not isinstance(name, str) or not isinstance(fields, dict):
            raise CredentialsInvalid(f"{path}: credential {name!r} is not a mapping")
    if len({variable_form(name) for name in content}) < len(content):
        raise CredentialsInvalid(f"{path}: two names differ only in case or punctuation")
    return content


def _from_text(variable: str, text: str) -> Mapping[str, Any]:
    if text.startswith(("postgres://", "postgresql://")):
        return {"type": "postgres", "dsn": text}
    content = _parsed(variable, text) if text.lstrip().startswith("{") or ": " in text else text
    return content if isinstance(content, dict) else {"type": "bearer", "token": text}


def _parsed(place: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        # Not chained: a parser's message quotes the text, and the text holds secrets.
        raise CredentialsInvalid(f"{place}: neither YAML nor JSON") from None
