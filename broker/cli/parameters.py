"""What people type, turned into values; whatever does not make sense is wrong use (exit code 2).

Owns the syntax of option values. Must not talk to the broker.
"""

import json
import re
import sys
from collections.abc import Sequence
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

import click
from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.duration_pb2 import Duration

_UNITS = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?")
_ADDRESS = re.compile(r"(?:\[[0-9a-fA-F:.]+\]|[^\s:\[\]]+):(\d{1,5})")
_LARGEST_PORT = 65535
_ID = re.compile(r"0*([1-9][0-9]{0,18})")
_LARGEST_ID = 2**63 - 1
# A protobuf Struct holds doubles: a greater integer would arrive as another number.
_LARGEST_INTEGER = 2**53


class IdType(click.ParamType[int]):
    """The number of a job or an execution."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number, 1 to 2**63 - 1."""
        text = str(value)
        matched = _ID.fullmatch(text)
        if matched is None or int(matched[1]) > _LARGEST_ID:
            self.fail(f"{text!r} is no id: those are numbers, as `enqueue` and `run` print them", param, ctx)
        return int(matched[1])


ID = IdType()


class DurationType(click.ParamType[Duration]):
    """A length of time: "5s", "500ms", "2m", "1h", "1d"; a bare number is seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Duration:
        """The duration as the contract has it."""
        length = parse_duration(str(value))
        if length is None:
            self.fail(f"{value!r} is no duration: write 500ms, 5s, 2m, 1h or 1d", param, ctx)
        duration = Duration()
        duration.FromTimedelta(length)
        return duration


class AddressType(click.ParamType[str]):
    """Where to serve: HOST:PORT, an IPv6 host in brackets."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text as it is."""
        text = str(value)
        matched = _ADDRESS.fullmatch(text)
        if matched is None or int(matched[1]) > _LARGEST_PORT:
            self.fail(f"{text!r} is not HOST:PORT", param, ctx)
        return text


class JsonObjectType(click.ParamType[str]):
    """A JSON object as text: the text itself, FILE or @FILE, or "-" for standard input."""

    name = "json object"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text, checked to be a JSON object and otherwise untouched."""
        text = self._read(str(value), param, ctx)
        try:
            found = json.loads(text, parse_constant=_refuse_constant)
        except ValueError as error:
            self.fail(f"not JSON: {error}", param, ctx)
        if not isinstance(found, dict):
            self.fail(f"must be a JSON object, like {{}}, not {text.strip()[:40]}", param, ctx)
        return text

    def _read(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value == "-":
            return sys.stdin.read()
        if value.lstrip()[:1] in {"{", "[", '"'}:
            return value
        try:
            return Path(value.removeprefix("@")).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            self.fail(f"{value!r} is neither a JSON object nor a file that can be read: {error}", param, ctx)


class SettingType(click.ParamType[tuple[tuple[str, ...], object]]):
    """One `key=value`: the key split at its dots; the value is JSON where it parses as such, else text."""

    name = "key=value"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[tuple[str, ...], object]:
        """The path of the key, and the value."""
        if isinstance(value, tuple):
            return value
        key, equals, text = str(value).partition("=")
        path = tuple(key.split("."))
        if not equals or not all(path):
            self.fail(f"{value!r} is not key=value", param, ctx)
        try:
            return path, json.loads(text, parse_constant=_refuse_constant)
        except ValueError:
            return path, text


class LabelType(click.ParamType[tuple[str, str]]):
    """One `name=text` label."""

    name = "name=text"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Name and text."""
        if isinstance(value, tuple):
            return value
        name, equals, text = str(value).partition("=")
        if not equals or not name:
            self.fail(f"{value!r} is not name=text", param, ctx)
        return name, text


class EnumType(click.Choice[str]):
    """The values of a protobuf enum by their short names in lower case ("retry" for JOB_STATUS_RETRY)."""

    def __init__(self, enum: EnumDescriptor, prefix: str) -> None:
        names = [short_name(value.name, prefix) for value in enum.values if value.number]
        super().__init__(names, case_sensitive=False)


def parse_duration(text: str) -> timedelta | None:
    """What "5s", "500ms", "2m", "1h", "1d" or a bare number of seconds means; None for other text."""
    matched = _DURATION.fullmatch(text.strip())
    return timedelta(**{_UNITS[matched[2] or "s"]: float(matched[1])}) if matched else None


def short_name(name: str, prefix: str) -> str:
    """The enum value's name without its prefix, in lower case."""
    return name.removeprefix(prefix).lower()


def overlay(workload: dict[str, Any], settings: Sequence[tuple[tuple[str, ...], object]]) -> dict[str, Any]:
    """The workload with the settings put in, later ones over earlier ones; the argument is changed.

    Raises click.BadParameter where a setting goes below what is no object, or a number would not survive.
    """
    for path, value in settings:
        place = workload
        for depth, key in enumerate(path[:-1], start=1):
            place = place.setdefault(key, {})
            if not isinstance(place, dict):
                raise click.BadParameter(
                    f"{'.'.join(path[:depth])} is no object, so {'.'.join(path)} cannot be set"
                )
        place[path[-1]] = value
    _refuse_large_integers(workload, "workload")
    return workload


def find_unknown(workload: object, path: Sequence[str]) -> str | None:
    """The beginning of a setting's path that leads nowhere, with what was probably meant; None where all is known.

    An object without keys knows any.
    """
    for depth, key in enumerate(path, start=1):
        if not isinstance(workload, dict) or not workload:
            return None
        if key not in workload:
            near = get_close_matches(key, workload, n=1)
            return f"'{'.'.join(path[:depth])}'" + (f": did you mean '{near[0]}'?" if near else "")
        workload = workload[key]
    return None


def _refuse_large_integers(value: object, path: str) -> None:
    if isinstance(value, dict):
        for key, member in value.items():
            _refuse_large_integers(member, f"{path}.{key}")
    elif isinstance(value, list):
        for index, member in enumerate(value):
            _refuse_large_integers(member, f"{path}[{index}]")
    elif isinstance(value, int) and abs(value) > _LARGEST_INTEGER:
        raise click.BadParameter(
            f"{path}: {value} is beyond 2^53 and would change on its way: pass it as text"
        )


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
