"""JSON that PostgreSQL could not hold is refused before any shared statement sees it; all other JSON is taken as written."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.json_text import (
    MAX_DEPTH,
    JsonInvalid,
    check_json,
    check_object,
    from_double,
    same_json,
    write_json,
)

ROOM = 1_000_000


def nested(depth: int) -> str:
    return "[" * depth + "1" + "]" * depth


@pytest.mark.parametrize(
    "text",
    [
        "null", "true", "0", "-0", "-1.5e10", '""', '"ä😀"', "[]", "{}", ' { "a" : [ 1 , 2 ] } ',
        '"\\ud83d\\ude00"', '"\\u0001"', "123456789012345678901234567890", "0.1000000000000000055511151231257827",
        "1e1000", "1e-1000", "9" * 1000, nested(MAX_DEPTH), '{"a":{"a":1},"b":{"a":1}}', '"[[[{{{"',
    ],
)  # fmt: skip
def test_json_is_taken(text: str) -> None:
    check_json(text, ROOM)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no JSON"), ("{", "no JSON"), ("{'a': 1}", "no JSON"), ("[1,]", "no JSON"), ("01", "no JSON"), ("1 2", "no JSON"),
        ("\ufeff{}", "no JSON"), ('"\n"', "no JSON"), ('"\x00"', "no JSON"),
        ("NaN", "NaN"), ("[Infinity]", "Infinity"), ('{"a": -Infinity}', "-Infinity"),
        ('"\\u0000"', "NUL"), ('{"\\u0000": 1}', "NUL"), ('[{"a": ["\\u0000"]}]', "NUL"),
        ('"\\ud800"', "surrogate"), ('"\\udc00\\ud800"', "surrogate"), ('{"\\udfff": 1}', "surrogate"),
        ('{"a": 1, "a": 2}', "'a' stands twice"), ('[{"b": {"c": 1, "\\u0063": 2}}]', "'c' stands twice"),
        ("1e1001", "exponent"), ("1e999999", "exponent"), ("[-1E-999999]", "exponent"), ("9" * 1001, "digits"),
        ("0." + "1" * 1000, "digits"),
        (nested(MAX_DEPTH + 1), "deeper than 200"), (nested(100_000), "deeper than 200"), ('{"a":' * 300 + "1" + "}" * 300, "deeper"),
    ],
)  # fmt: skip
def test_what_cannot_be_stored_is_refused_with_its_cause(text: str, why: str) -> None:
    with pytest.raises(JsonInvalid, match=why):
        check_json(text, ROOM)


def test_size_counts_the_bytes_of_utf_8() -> None:
    check_json('"ää"', 6)

    with pytest.raises(JsonInvalid, match="larger than 5 bytes"):
        check_json('"ää"', 5)


@pytest.mark.parametrize("text", ["[]", "1", "null", '"{}"'])
def test_where_an_object_is_meant_nothing_else_is_taken(text: str) -> None:
    with pytest.raises(JsonInvalid, match="object"):
        check_object(text, ROOM)


def test_a_value_is_written_compact_and_readable() -> None:
    assert write_json({"ä": [1, 2.5, None, True], "b": {}}, ROOM) == '{"ä":[1,2.5,null,true],"b":{}}'


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, "\0", "\ud800", {"\0": 1}, object(), json.loads(nested(201))]
)
def test_a_value_that_cannot_be_stored_is_refused(value: object) -> None:
    with pytest.raises(JsonInvalid):
        write_json(value, ROOM)


def test_a_value_too_large_is_refused() -> None:
    with pytest.raises(JsonInvalid, match="larger than 5 bytes"):
        write_json("ää", 5)


@pytest.mark.parametrize(
    ("double", "number"), [(0.0, 0), (-0.0, 0), (1.0, 1), (-7.0, -7), (1.5, 1.5), (2.0**53 - 1, 2**53 - 1)]
)
def test_a_double_without_fraction_is_an_integer(double: float, number: float) -> None:
    assert from_double(double) == number
    assert type(from_double(double)) is type(number)


@pytest.mark.parametrize("double", [float(2**53 + 1), -float(2**53 + 1), 1e300, -1e22])
def test_an_integer_that_a_double_may_have_changed_is_refused_with_the_field_to_use(double: float) -> None:
    with pytest.raises(JsonInvalid, match="input_json"):
        from_double(double)


@pytest.mark.parametrize("double", [math.nan, math.inf, -math.inf])
def test_a_double_that_is_no_number_is_refused(double: float) -> None:
    with pytest.raises(JsonInvalid):
        from_double(double)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("1", "1.0"), ("100", "1e2"), ("-0", "0"), ('{"a":1,"b":[]}', ' {"b": [], "a": 1}'), ('"\\u00e4"', '"ä"'), ("0.10", "0.1"),
        ('{"a":{"x":1,"y":[{"p":1,"q":2}]}}', '{"a":{"y":[{"q":2,"p":1}],"x":1}}'),
    ],
)  # fmt: skip
def test_texts_of_one_value_are_the_same(first: str, second: str) -> None:
    assert same_json(first, second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("true", "1"), ("false", "0"), ("null", "0"), ('"1"', "1"), ("[]", "{}"), ("[1,2]", "[2,1]"), ("[1]", "[1,1]"),
        ('{"a":1}', '{"b":1}'),
        ("1e400", "1e401"), ("0.1", "0.1000000000000000000000000001"), ("12345678901234567890", "12345678901234567891"),
        ('{"a":[true]}', '{"a":[1]}'),
    ],
)  # fmt: skip
def test_texts_of_different_values_are_not(first: str, second: str) -> None:
    assert not same_json(first, second)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"a":1,"a":2}', "twice"),
        ('{"a" : 1, "a" : 2}', "twice"),
        ('{"a":1,"a" :2}', "twice"),
        ('{"a":1,"a"\n:2}', "twice"),
        ('[{"b":{"a":1,"a"\t :2}}]', "twice"),
        ('{"b":{"c":[{"a":1,"a":2}]}}', "twice"),
        ('{"a":"x:y","a":"::"}', "twice"),
        ('[1e-99999]', "exponent"),
        ('{"a":1e99999}', "exponent"),
        ("[" + "1" * 1001 + "]", "digits"),
        ('{"a":NaN}', "no JSON"),
        ('{"a":"\x01"}', "no JSON"),
    ],
)  # fmt: skip
def test_what_a_fast_parser_lets_pass_is_refused(text: str, why: str) -> None:
    with pytest.raises(JsonInvalid, match=why):
        check_json(text, 10_000)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(_VALUES, st.sampled_from([None, 2]), st.booleans())
def test_what_is_good_is_read_as_it_was_written(value: object, indent: int | None, ascii_only: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    if "\\u0000" in text:
        return

    assert check_json(text, 1_000_000) == value
