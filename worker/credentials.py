"""Names to connections and headers.

Owns the worker's secrets; they leave it only towards the downstream that they are for.
"""

import base64
import json
import re
from collections.abc import Mapping
from typing import Any

from worker.failure import CREDENTIAL_NOT_FOUND, INPUT_INVALID, JobFailed

CREDENTIAL_PREFIX = "REPRISE_CREDENTIAL_"  # of the environment variables that hold one each
REDACTED = "[redacted]"
SHORTEST_REDACTED = 4  # shorter secrets would tear holes into every text
# What of a credential may be shown; every other field is a secret.
_PUBLIC_FIELDS = frozenset(
    {"type", "host", "port", "user", "username", "dbname", "header", "sslmode", "connect_timeout"}
)
# The names that the reference's credentials have, and what people write.
_SAME_FIELD = {
    "db_host": "host",
    "db_port": "port",
    "db_user": "user",
    "db_password": "password",
    "db_name": "dbname",
    "db_conn_string": "dsn",
    "database": "dbname",
}


class Credential:
    """The fields of one credential, by name; its repr shows none of them."""

    def __init__(self, name: str, fields: Mapping[str, Any]) -> None:
        self.name = name
        self.fields = {_SAME_FIELD.get(key, key): value for key, value in fields.items()}

    def __repr__(self) -> str:
        return f"Credential({self.name!r})"

    def require(self, *names: str) -> str:
        """The first of these fields that there is, as text.

        Raises JobFailed, which names them, where none is.
        """
        for name in names:
            if self.fields.get(name) is not None:
                return str(self.fields[name])
        raise JobFailed(f"credential {self.name!r} has no {' or '.join(names)}", type=CREDENTIAL_NOT_FOUND)

    def secrets(self) -> set[str]:
        """Every text of it that must not be shown, in the forms in which it may turn up."""
        plain = {
            str(value)
            for key, value in self.fields.items()
            if key not in _PUBLIC_FIELDS and value is not None
        }
        if dsn := self.fields.get("dsn"):
            plain.update(re.findall(r"://[^:/@]*:([^@]*)@", str(dsn)))
            plain.update(re.findall(r"\bpassword\s*=\s*'?([^\s']+)", str(dsn)))
        if "password" in self.fields:
            plain.add(basic_token(self))
        return plain | {json.dumps(text)[1:-1] for text in plain}


class Credentials:
    """All credentials of this worker, by names that are compared as `variable_form` has them."""

    def __init__(self, by_name: Mapping[str, Mapping[str, Any]]) -> None:
        self._by_variable = {
            variable_form(name): Credential(name, fields) for name, fields in by_name.items()
        }
        found = {text for credential in self._by_variable.values() for text in credential.secrets()}
        # Longest first: a secret that contains another one must not leave its rest behind.
        self._secrets = sorted(
            (text for text in found if len(text) >= SHORTEST_REDACTED), key=len, reverse=True
        )

    def find(self, auth: object) -> Credential:
        """The credential that `auth` names: NAME, or a mapping with `credential: NAME` whose `type` goes over
        the credential's own.

        Raises JobFailed: credential_not_found, or input_invalid where a job brings a secret instead of a
        name.
        """
        match auth:
            case str():
                return self._named(auth)
            case {"credential": str(name), **rest} if rest.keys() <= {"type", "header"}:
                found = self._named(name)
                return Credential(found.name, {**found.fields, **{str(key): rest[key] for key in rest}})
            case _:
                raise JobFailed("auth is neither NAME nor {type, credential: NAME}", type=INPUT_INVALID)

    def scrub(self, text: str) -> str:
        """The text with every secret of this worker replaced."""
        for secret in self._secrets:
            text = text.replace(secret, REDACTED)
        return text

    def _named(self, name: str) -> Credential:
        found = self._by_variable.get(variable_form(name))
        if found is None:
            raise JobFailed(
                f"this worker has no credential {name!r}: start it with {CREDENTIAL_PREFIX}{variable_form(name)},"
                f" or with {name!r} in its --credentials file",
                type=CREDENTIAL_NOT_FOUND,
            )
        return found


def basic_token(credential: Credential) -> str:
    """What HTTP basic authentication sends for this user name and password."""
    user = credential.fields.get("username", credential.fields.get("user", ""))
    return base64.b64encode(f"{user}:{credential.fields.get('password', '')}".encode()).decode()


def variable_form(name: str) -> str:
    """The name as an environment variable has it: "my-api" is MY_API; names that agree in this form are one
    name.
    """
    return re.sub(r"[^A-Za-z0-9]", "_", name).upper()
