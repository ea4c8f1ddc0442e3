"""Columns of many rows as PostgreSQL's binary arrays, of exactly the type that the statement names.

psycopg looks at every element and picks the smallest integer type that holds them all: the same statement is then planned once per
mixture of types, and the server casts what does not fit. Here the type is the caller's, and each distinct value is encoded once, as
most columns of a batch hold few. Must not know any statement.
"""

from collections.abc import Callable, Collection, Hashable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from struct import Struct
from typing import ClassVar, TypeVar

from psycopg.abc import AdaptContext
from psycopg.adapt import Dumper
from psycopg.pq import Format

# Sent as an empty array, a column in which nothing is set costs nothing: unnest of several arrays fills up the shorter ones with nulls.
_EMPTY = Struct(">iiI")  # dimensions, has nulls, element type
_HEADER = Struct(">iiIii")  # the same, then elements, lower bound
_NULL = b"\xff\xff\xff\xff"
_LENGTH = Struct(">i")
_INT2 = Struct(">ih")
_INT4 = Struct(">ii")
_INT8 = Struct(">iq")
_FLOAT8 = Struct(">id")
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

Value = TypeVar("Value", bound=Hashable)


class _Array:
    """One argument of a statement: the bytes that go over the wire."""

    __slots__ = ("data",)
    element_type: ClassVar[int]
    array_type: ClassVar[int]

    def _pack(self, values: Collection[Value | None], encode: Callable[[Value], bytes]) -> None:
        distinct = set(values)
        has_nulls = None in distinct
        if len(distinct) == has_nulls:
            self.data = _EMPTY.pack(0, 0, self.element_type)
            return
        if len(distinct) == 1:
            (value,) = distinct
            elements = encode(value) * len(values)  # type: ignore[arg-type] # not None
        elif len(distinct) > len(values) // 2 and not has_nulls:
            elements = b"".join([encode(value) for value in values])  # type: ignore[arg-type]
        else:
            encoded = {value: _NULL if value is None else encode(value) for value in distinct}
            elements = b"".join(map(encoded.__getitem__, values))
        self.data = _HEADER.pack(1, has_nulls, self.element_type, len(values), 1) + elements


class Texts(_Array):
    """text[]. No value may hold NUL."""

    __slots__ = ()
    element_type, array_type = 25, 1009

    def __init__(self, values: Collection[str | None]) -> None:
        self._pack(values, _encode_text)


class Int2s(_Array):
    """int2[]."""

    __slots__ = ()
    element_type, array_type = 21, 1005

    def __init__(self, values: Collection[int | None]) -> None:
        self._pack(values, partial(_INT2.pack, 2))


class Int4s(_Array):
    """int4[]."""

    __slots__ = ()
    element_type, array_type = 23, 1007

    def __init__(self, values: Collection[int | None]) -> None:
        self._pack(values, partial(_INT4.pack, 4))


class Int8s(_Array):
    """int8[]."""

    __slots__ = ()
    element_type, array_type = 20, 1016

    def __init__(self, values: Collection[int | None]) -> None:
        self._pack(values, partial(_INT8.pack, 8))


class Float8s(_Array):
    """float8[]."""

    __slots__ = ()
    element_type, array_type = 701, 1022

    def __init__(self, values: Collection[float | None]) -> None:
        self._pack(values, partial(_FLOAT8.pack, 8))


class Instants(_Array):
    """timestamptz[], of datetimes with a time zone."""

    __slots__ = ()
    element_type, array_type = 1184, 1185

    def __init__(self, values: Collection[datetime | None]) -> None:
        self._pack(values, lambda value: _INT8.pack(8, (value - _EPOCH) // _MICROSECOND))


def teach_arrays(context: AdaptContext) -> None:
    """Lets a connection take these arrays as arguments of `%b`."""
    for dumper in _DUMPERS:
        context.adapters.register_dumper(dumper.taken, dumper)


class _ArrayDumper(Dumper):
    format = Format.BINARY
    taken: ClassVar[type[_Array]]

    def dump(self, obj: _Array) -> bytes:
        return obj.data


def _dumper(array: type[_Array]) -> type[_ArrayDumper]:
    return type(f"{array.__name__}Dumper", (_ArrayDumper,), {"oid": array.array_type, "taken": array})


_DUMPERS: Sequence[type[_ArrayDumper]] = [
    _dumper(array) for array in (Texts, Int2s, Int4s, Int8s, Float8s, Instants)
]


def _encode_text(value: str) -> bytes:
    data = value.encode()
    return _LENGTH.pack(len(data)) + data
