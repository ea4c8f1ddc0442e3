"""Reads single fields of a playbook: texts, names, numbers, durations, lists of names.

Every reader records a fault and returns None for what is not as it must be, so that reading goes on.
"""

import re
from collections.abc import Collection
from datetime import timedelta

from broker.playbook.document import Faults, Located, describe
from broker.policy.duration import parse_duration
from broker.policy.grammar import suggest

NAME_LIMIT = 128
PATH_LIMIT = 255
PRIORITIES = range(-100, 101)
TIMEOUT_LIMIT = timedelta(days=30)

_IDENTIFIER = re.compile(rf"[A-Za-z0-9._-]{{1,{NAME_LIMIT}}}")


def is_mapping(at: Located, faults: Faults) -> bool:
    """Whether the value is a mapping; a fault else."""
    if isinstance(at.node.value, dict):
        return True
    faults.add(at, f"must be a mapping, not {describe(at.node.value)}")
    return False


def is_list(at: Located, faults: Faults) -> bool:
    """Whether the value is a list; a fault else."""
    if isinstance(at.node.value, list):
        return True
    faults.add(at, f"must be a list, not {describe(at.node.value)}")
    return False


def refuse_unknown(at: Located, known: Collection[str], faults: Faults) -> None:
    """Records every key of a mapping that is not known, with the one that was probably meant."""
    for key in at.node.entries:
        if key not in known:
            faults.add_key(at, key, f"unknown key '{key}': {suggest(key, known)}")


def read_text(at: Located, faults: Faults, limit: int | None = None) -> str | None:
    """A text that is not blank, of at most `limit` printable characters where there is a limit."""
    value = at.node.value
    if not isinstance(value, str):
        hint = "" if value is None or isinstance(value, (dict, list)) else "; quote it"
        faults.add(at, f"must be text, not {describe(value)}{hint}")
    elif not value.strip():
        faults.add(at, "must not be blank")
    elif limit is not None and (len(value) > limit or not value.isprintable()):
        faults.add(at, f"must be at most {limit} printable characters")
    else:
        return value
    return None


def read_names(at: Located, faults: Faults) -> tuple[str, ...]:
    """A list of names, or a single one."""
    if isinstance(at.node.value, str):
        name = read_text(at, faults, NAME_LIMIT)
        return () if name is None else (name,)
    if not is_list(at, faults):
        return ()
    names = [read_text(item, faults, NAME_LIMIT) for item in at.items()]
    return tuple(name for name in names if name is not None)


def read_identifier(at: Located, faults: Faults) -> str | None:
    """The name of a queue or a dependency."""
    value = at.node.value
    if isinstance(value, str) and _IDENTIFIER.fullmatch(value):
        return value
    faults.add(at, f"must be 1 to {NAME_LIMIT} of a-z, A-Z, 0-9, '.', '_', '-'")
    return None


def read_priority(at: Located, faults: Faults) -> int | None:
    """A priority: higher first."""
    value = at.node.value
    if isinstance(value, int) and not isinstance(value, bool) and value in PRIORITIES:
        return value
    faults.add(at, f"must be a whole number from {PRIORITIES.start} to {PRIORITIES.stop - 1}")
    return None


def read_timeout(at: Located, faults: Faults) -> timedelta | None:
    """The longest that one attempt may run."""
    try:
        timeout = parse_duration(at.node.value)
    except ValueError as error:
        faults.add(at, str(error))
        return None
    if timedelta(0) < timeout <= TIMEOUT_LIMIT:
        return timeout
    faults.add(at, "must be longer than 0 s and at most 30 d")
    return None
