"""google.protobuf.Struct and Value as JSON text: comfortable by hand, checked like any JSON that is to be stored."""

from google.protobuf.struct_pb2 import Struct, Value

from broker.json_text import MAX_DEPTH, JsonInvalid, from_double, write_json


def struct_json(struct: Struct, max_bytes: int) -> str:
    """The JSON object. Raises JsonInvalid where it cannot be stored, or a number is an integer that a double does not hold."""
    return write_json(_object(struct, 0), max_bytes)


def value_json(value: Value, max_bytes: int) -> str:
    """The JSON value; one that is not set is null. Raises JsonInvalid like `struct_json`."""
    return write_json(_value(value, 0), max_bytes)


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
