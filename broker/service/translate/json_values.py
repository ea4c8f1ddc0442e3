"""google.protobuf.Struct and Value as JSON text: comfortable by hand, checked like any JSON that is to be stored."""

import json

from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct, Value

from broker.json_text import MAX_DEPTH, JsonInvalid, from_double, write_json

# Protobuf reads 100 messages deep by default. Around a value there are at most three; a list adds two, an object three.
_MESSAGES_DEEP = 97
_MESSAGES_PER_LIST = 2
_MESSAGES_PER_OBJECT = 3


def struct_json(struct: Struct, max_bytes: int) -> str:
    """The JSON object. Raises JsonInvalid where it cannot be stored, or a number is an integer that a double does not hold."""
    return write_json(_object(struct, 0), max_bytes)


def value_json(value: Value, max_bytes: int) -> str:
    """The JSON value; one that is not set is null. Raises JsonInvalid like `struct_json`."""
    return write_json(_value(value, 0), max_bytes)


def value_message(text: str) -> Value:
    """The value of a JSON text that was checked when it came. Raises JsonInvalid where no client could read the message."""
    value = json.loads(text)
    if not _fits(value, _MESSAGES_DEEP):
        raise JsonInvalid("nested deeper than a message may be")
    message = Value()
    try:
        json_format.ParseDict(value, message)
    except json_format.ParseError as error:
        raise JsonInvalid(f"no google.protobuf.Value: {error}") from error
    return message


def _fits(value: object, messages: int) -> bool:
    match value:
        case dict():
            left = messages - _MESSAGES_PER_OBJECT
            return left >= 0 and all(_fits(member, left) for member in value.values())
        case list():
            left = messages - _MESSAGES_PER_LIST
            return left >= 0 and all(_fits(item, left) for item in value)
    return True


def _object(struct: Struct, depth: int) -> dict[str, object]:
    return {key: _value(member, depth + 1) for key, member in struct.fields.items()}


def _value(value: Value, depth: int) -> object:
    if depth > MAX_DEPTH:
        raise JsonInvalid(f"nested deeper than {MAX_DEPTH}")
    match value.WhichOneof("kind"):
        case "number_value":
            return from_double(value.number_value)
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return _object(value.struct_value, depth)
        case "list_value":
            return [_value(item, depth + 1) for item in value.list_value.values]
        case _:
            return None
