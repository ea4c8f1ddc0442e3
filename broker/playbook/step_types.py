"""The types of steps: which fields each has, which it needs, and what their values must be.

One table, asked twice: when a playbook is registered, and when a step's templates are rendered and may have
become something else. Must not know how a step is run.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from broker.playbook.document import describe

DATA_KEYS: Final = ("input", "payload", "params", "args", "with", "data")
"""The keys that give a step its data, in rising precedence: an explicit `data` wins."""

ROUTER_TYPES: Final = frozenset({"start", "end", "route"})
WORKBOOK: Final = "workbook"
NOT_YET_TYPES: Final = frozenset({"iterator", "playbook", "save", "secrets"})
NOT_YET_KEYS: Final = frozenset(
    {
        *("save", "loop", "task", "run", "collection", "element", "mode", "concurrency", "enumerate"),
        *("where", "limit", "chunk", "order_by", "resource_path", "content", "path", "credentials"),
    }
)
"""Keys of the language that belong to types, or to ways to run a step, which are not there yet."""

_AUTH_KEYS = ("credential", "type", "header")


class Shape(Enum):
    """What the value of a field must be once its templates are rendered."""

    CODE = "text that is never a template"
    TEXT = "text"
    TEXTS = "text or a list of texts"
    MAPPING = "a mapping"
    AUTH = "the name of a credential or {credential, type, header}"
    ANY = "any value"


@dataclass(frozen=True, slots=True)
class StepType:
    """The fields of a type with their shapes; `aliases` are other names of fields.

    Of each group in `needs` exactly one must be given.
    """

    fields: Mapping[str, Shape]
    needs: tuple[tuple[str, ...], ...]
    aliases: Mapping[str, str]

    @property
    def keys(self) -> frozenset[str]:
        """Every key that a step of this type has for itself."""
        return frozenset(self.fields) | frozenset(self.aliases)

    @property
    def data_keys(self) -> tuple[str, ...]:
        """The keys that give it data, in rising precedence: those that are not fields of its own."""
        return tuple(key for key in DATA_KEYS if key not in self.fields)


_SQL_FIELDS = {"command": Shape.TEXT, "commands": Shape.TEXTS, "query": Shape.TEXT}
_SQL_NEEDS = ("command", "commands", "query", "sql")
_AUTH_NEEDS = ("auth", "credential")

STEP_TYPES: Final[Mapping[str, StepType]] = {
    "python": StepType({"code": Shape.CODE}, needs=(("code",),), aliases={}),
    "http": StepType(
        {
            "method": Shape.TEXT,
            "endpoint": Shape.TEXT,
            "headers": Shape.MAPPING,
            "params": Shape.MAPPING,
            "payload": Shape.ANY,
            "auth": Shape.AUTH,
        },
        needs=(("endpoint", "url"),),
        aliases={"url": "endpoint", "credential": "auth"},
    ),
    "postgres": StepType(
        {**_SQL_FIELDS, "auth": Shape.AUTH},
        needs=(_SQL_NEEDS, _AUTH_NEEDS),
        aliases={"sql": "command", "credential": "auth"},
    ),
    "duckdb": StepType(
        {**_SQL_FIELDS, "database": Shape.TEXT}, needs=(_SQL_NEEDS,), aliases={"sql": "command"}
    ),
}


def misfit(shape: Shape, value: object) -> str | None:
    """Why a value is not of this shape; None if it is."""
    match shape:
        case Shape.ANY:
            return None
        case Shape.CODE | Shape.TEXT:
            fits = isinstance(value, str) and bool(value.strip())
        case Shape.TEXTS:
            texts = value if isinstance(value, list) else [value]
            fits = bool(texts) and all(isinstance(text, str) and text.strip() for text in texts)
        case Shape.MAPPING:
            fits = isinstance(value, dict)
        case Shape.AUTH:
            return _misfit_of_auth(value)
    if fits:
        return None
    is_blank = isinstance(value, str) and not value.strip()
    return f"must be {shape.value}, not {'blank' if is_blank else describe(value)}"


def _misfit_of_auth(value: object) -> str | None:
    """Secrets stay with the workers: a step names a credential and never holds one."""
    if isinstance(value, str) and value.strip():
        return None
    if not isinstance(value, dict):
        return f"must be {Shape.AUTH.value}, not {describe(value)}"
    for key in value:
        if key not in _AUTH_KEYS:
            return f"names a credential; '{key}' belongs to the worker's credentials, where secrets stay"
    if "credential" not in value:
        return "needs `credential`, the name of one of the worker's credentials"
    if not all(isinstance(part, str) and part.strip() for part in value.values()):
        return "holds texts only"
    return None
