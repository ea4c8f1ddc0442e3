"""Log lines as key=value, to stderr. Owns their form; secrets and inputs are never handed to it."""

import json
import logging

LOGGER = logging.getLogger("worker")
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:/@+")


def line(event: str, **fields: object) -> str:
    """The event, then its fields in order as key=value; a value with blanks or quotes becomes a JSON string,
    None is left out.
    """
    return f"{event} {described(**fields)}" if fields else event


def described(**fields: object) -> str:
    """The fields alone, in that form."""
    return " ".join([f"{key}={_shown(value)}" for key, value in fields.items() if value is not None])


def log_to_stderr(level: str) -> None:
    """Sends this worker's lines to stderr, from `level` on ("debug", "info", "warning", "error")."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    LOGGER.addHandler(handler)
    LOGGER.setLevel(level.upper())


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if text and _PLAIN.issuperset(text) else json.dumps(text, ensure_ascii=False)
