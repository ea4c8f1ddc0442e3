"""What the bounded language means, what it refuses, and where it says the fault is."""

import json

import pytest

from broker.policy.bounds import MAX_TEXT
from broker.policy.expression import (
    CONDITION_NAMES,
    ExpressionError,
    ExpressionInvalid,
    compile_condition,
    is_true,
)

CONTEXT: dict[str, object] = {
    "error": "Invalid Request",
    "none": None,
    "data": {
        "items": [10, {"name": "x"}, None],
        "count": 3,
        "keys": "mine",
        "": 1,
        "_private": 2,
        "null": None,
    },
    "text": "añb",
    "price": 2.5,
    "flag": True,
    "empty": {},
    "nested": [[1], [2, 3]],
}
EMPTY: list[object] = [None, False, 0, 0.0, "", [], {}]
FULL: list[object] = [True, 1, -1, 0.1, [0], {"a": None}]


def value_of(expression: str, names: frozenset[str] | None = None) -> object:
    return compile_condition(f"{{{{ {expression} }}}}", names).value(CONTEXT)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("1 + 2 * 3", 7),
        ("7 / 2", 3.5),
        ("7 // 2", 3),
        ("7 % 4", 3),
        ("-price + 1", -1.5),
        ("+data.count", 3),
        ("'a' + 'b'", "ab"),
        ("[1] + [2]", [1, 2]),
        ("'n=' ~ 1 ~ none ~ true", "n=1NoneTrue"),
        ("1 == 1.0", True),
        ("'a' != 'b'", True),
        ("error == None", False),
        ("1 < 2 <= 2", True),
        ("3 > 2 > 2", False),
        ("'a' < 'b'", True),
        ("[1, 2] < [1, 3]", True),
        ("503 in [429, 502, 503]", True),
        ("503 in (429, 502)", False),
        ("'name' in data.items[1]", True),
        ("'quest' in error", True),
        ("[1] in nested", True),
        ("[9] in nested", False),
        ("4 not in [1, 2]", True),
        ("[] in empty", False),
        ("true and 'x'", "x"),
        ("0 or 'y'", "y"),
        ("not none", True),
        ("1 if flag else 2", 1),
        ("1 if not flag", None),
        ("[1, 'a', none, {'k': price}]", [1, "a", None, {"k": 2.5}]),
        ("(1, 2)", [1, 2]),
        ("text[0]", "a"),
        ("text[1:]", "ñb"),
        ("nested[::-1]", [[2, 3], [1]]),
        ("data.items[:1]", [10]),
    ],
)
def test_operators_mean_what_they_mean_in_jinja2(expression: str, expected: object) -> None:
    value = value_of(expression)

    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("data.count", 3),
        ("data['count']", 3),
        ("data.items[1].name", "x"),
        ("data.items[-1]", None),
        ("data.items.1.name", "x"),
        ("data.keys", "mine"),
        ("data._private", 2),
        ("data.missing", None),
        ("data.missing.deeper[3].still", None),
        ("none.member", None),
        ("none[0]", None),
        ("data.items[99]", None),
        ("data.items['name']", None),
        ("data.items[true]", None),
        ("data.count.real", None),
        ("data[nested]", None),
        ("data.get", None),
        ("data.__class__", None),
        ("text.upper", None),
        ("text.__class__.__mro__", None),
        ("data.items.append", None),
        ("none[1:]", None),
    ],
)
def test_members_reach_into_json_values_only_and_are_none_when_missing(
    expression: str, expected: object
) -> None:
    assert value_of(expression) == expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("none | lower", "none"),
        ("error | lower", "invalid request"),
        ("error | upper", "INVALID REQUEST"),
        ("'  a ' | trim", "a"),
        ("data.items | length", 3),
        ("text | length", 3),
        ("data.items[:1] | join", "10"),
        ("[1, 'b', none] | join(', ')", "1, b, None"),
        ("[1, 2] | join(d='-')", "1-2"),
        ("2.567 | round(2)", 2.57),
        ("2.567 | round", 3.0),
        ("7 | round", 7),
        ("'42' | int", 42),
        ("'4.9' | int", 4),
        ("-4.9 | int", -4),
        ("'x' | int", 0),
        ("'x' | int(-1)", -1),
        ("none | int", 0),
        ("true | int", 1),
        ("'1.5' | float", 1.5),
        ("'x' | float", 0.0),
        ("'nan' | float", 0.0),
        ("none | float(default=2)", 2),
        ("3 | string", "3"),
        ("{'a': [1, none, 'é']} | tojson", '{"a": [1, null, "é"]}'),
        ("'<&>' | tojson", '"<&>"'),
        ("'añb' | b64encode", "YcOxYg=="),
        ("none | default('d')", "d"),
        ("data.missing | default('d')", "d"),
        ("data.null | default('d')", "d"),
        ("data.count | default('d')", 3),
        ("'' | default('d')", ""),
        ("'' | default('d', true)", "d"),
        ("'' | default(boolean=true, default_value='d')", "d"),
        ("none | default", ""),
        ("nowhere | default(1)", 1),
        ("nowhere.member | default(1)", 1),
        ("nowhere is defined", False),
        ("nowhere.member is defined", False),
        ("data.missing is defined", False),
        ("data.null is defined", True),
        ("none is defined", True),
        ("data.items[7] is not defined", True),
        ("data.missing is none", True),
        ("data.count is not none", True),
    ],
)
def test_filters_and_tests(expression: str, expected: object) -> None:
    value = value_of(expression)

    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("nowhere", "'nowhere' is not defined"),
        ("nowhere.member", "'nowhere' is not defined"),
        ("none >= 500", "null and a number have no order"),
        ("500 < none", "a number and null have no order"),
        ("'a' < 1", "a text and a number have no order"),
        ("data < data", "an object and an object have no order"),
        ("none + 1", "'+' does not work on null"),
        ("'a' * 3", "'*' does not work on a text"),
        ("'%d' % 3", "'%' does not work on a text"),
        ("[1] - [1]", "'-' does not work on a list"),
        ("'a' + 1", "'+' does not work on a text"),
        ("-error", "'-' does not work on a text"),
        ("1 / 0", "division by zero"),
        ("1 % 0", "division by zero"),
        ("1e308 * 10", "the number is too large"),
        ("1 in none", "'in' cannot look for a number in null"),
        ("1 in error", "'in' cannot look for a number in a text"),
        ("none | length", "'length' needs a text, a list or an object, not null"),
        ("error | join", "'join' needs a list, not a text"),
        ("1 | round(16)", "'round' needs a precision from -15 to 15"),
        ("text['a':]", "a slice needs whole numbers, not a text"),
        ("text[::0]", "slice step cannot be zero"),
        ("{1: 2}", "the keys of an object are texts"),
    ],
)
def test_what_has_no_meaning_raises_and_says_why(expression: str, message: str) -> None:
    with pytest.raises(ExpressionError) as raised:
        value_of(expression)

    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("{{ eror }}", 1, 4, "unknown name 'eror': did you mean 'error'?"),
        ("{{ error\n   and eror }}", 2, 8, "unknown name 'eror'"),
        ("{{ error or\r\n  eror }}", 2, 3, "unknown name 'eror'"),
        ("{{ error is defined and zzz is defined }}", 1, 25, "unknown name 'zzz'"),
        ("{{ zzz | default(1) }}", 1, 4, "unknown name 'zzz'"),
        ("{{ error in [1, zzz] }}", 1, 17, "unknown name 'zzz'"),
        ("{{ error == }}", 1, 13, "unexpected 'end of print statement'"),
        ("{{ error ^ 1 }}", 1, 10, "unexpected char '^'"),
        ("{{ (error }}", 1, 11, "unexpected '}'"),
        ("{{ error.lower() }}", 1, 15, "calls are not allowed"),
        ("{{ range(3) }}", 1, 9, "calls are not allowed"),
        ("{{ 2 ** 3 }}", 1, 4, "powers (**) are not allowed"),
        ("{{ error | uper }}", 1, 12, "unknown filter 'uper': did you mean 'upper'?"),
        ("{{ error is odd }}", 1, 10, "unknown test 'odd': known are defined, none"),
        ("{{ error is defined(1) }}", 1, 10, "test 'defined' takes no arguments"),
        ("{{ error | lower(1) }}", 1, 12, "filter 'lower' takes no arguments"),
        ("{{ attempt | round(1, 'floor') }}", 1, 14, "filter 'round' takes only precision"),
        ("{{ error | trim(chars='x') }}", 1, 12, "filter 'trim' takes no arguments"),
        ("{{ error | default(1, default_value=2) }}", 1, 12, "filter 'default' takes only"),
        ("{{ error | join(*data) }}", 1, 12, "filter 'join' takes only d"),
        ("{{ 1e999 }}", 1, 4, "the number is too large"),
        ("{{ '\\ud800' }}", 1, 4, "a text cannot hold NUL or half of a surrogate pair"),
        ("{{ '\\x00' }}", 1, 4, "a text cannot hold NUL or half of a surrogate pair"),
        ("{{ error }}{% set a = 1 %}{{ a }}", 1, 15, "statements ({% … %}) are not allowed"),
        ("error != None", 1, 1, "a condition is true, false or exactly one {{ … }}"),
        ("  true", 1, 3, "a condition is true, false or exactly one {{ … }}"),
        ("", 1, 1, "a condition is true, false or exactly one {{ … }}"),
        ("not {{ error }}", 1, 1, "exactly one"),
        ("{{ error }}{{ error }}", 1, 1, "exactly one"),
        ("{{ error }} or {{ error }}", 1, 1, "exactly one"),
        ("{# why #}{{ error }}", 1, 1, "exactly one"),
        ("{% if error %}{% endif %}", 1, 1, "exactly one"),
        ("{{ }}", 1, 4, "expected an expression"),
    ],
)
def test_an_invalid_condition_is_refused_with_its_place(
    text: str, line: int, column: int, message: str
) -> None:
    with pytest.raises(ExpressionInvalid) as refused:
        compile_condition(text, CONDITION_NAMES)

    assert message in refused.value.message
    assert (refused.value.line, refused.value.column) == (line, column)
    assert str(refused.value).endswith(f"(line {line}, column {column})")


def test_every_name_of_a_condition_may_be_used() -> None:
    text = "{{ " + " or ".join(sorted(CONDITION_NAMES)) + " }}"

    assert compile_condition(text, CONDITION_NAMES).names == CONDITION_NAMES


def test_a_condition_knows_which_names_it_uses() -> None:
    condition = compile_condition("{{ a.b[c] if d is defined else e | default(f) }}", None)

    assert condition.names == {"a", "c", "d", "e", "f"}


def test_blanks_around_a_condition_are_allowed() -> None:
    assert compile_condition(" \n{{ true }}\n ", CONDITION_NAMES).evaluate({})


@pytest.mark.parametrize("boolean", [True, False])
def test_a_boolean_is_a_condition(boolean: bool) -> None:
    assert compile_condition(boolean, CONDITION_NAMES).evaluate({}) is boolean


def test_a_condition_is_compiled_once_per_text_and_names() -> None:
    text = "{{ error == 'once' }}"

    assert compile_condition(text, CONDITION_NAMES) is compile_condition(text, CONDITION_NAMES)
    with pytest.raises(ExpressionInvalid):
        compile_condition(text, frozenset({"other"}))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *[(value, False) for value in EMPTY],
        *[(word, False) for word in ("false", "no", "n", "off", "0", "none", "null", "   ")],
        *[(word, False) for word in ("False", " NO ", "None\n", "OFF", "Null")],
        *[(value, True) for value in FULL],
        *[(word, True) for word in ("true", "yes", "0.0", "nope", "nil", "not", "falsey", "[]")],
    ],
)
def test_there_is_one_rule_of_truth(value: object, expected: bool) -> None:
    assert is_true(value) is expected
    assert compile_condition("{{ value }}", None).evaluate({"value": value}) is expected


def test_deeply_nested_values_raise_an_expression_error() -> None:
    deep = json.loads("[" * 900 + "]" * 900)
    for _ in range(200):
        deep = [deep]

    with pytest.raises(ExpressionError):
        compile_condition("{{ deep | tojson | length > 3 }}", None).evaluate({"deep": deep})


@pytest.mark.parametrize("expression", ["half ~ half ~ 'x'", "half + half + 'x'", "(half + half)[:] + 'x'"])
def test_a_text_that_is_made_has_a_largest_length(expression: str) -> None:
    context = {"half": "x" * (MAX_TEXT // 2)}

    with pytest.raises(ExpressionError, match=f"at most {MAX_TEXT} can be made"):
        compile_condition(f"{{{{ {expression} }}}}", None).evaluate(context)


def test_a_value_that_is_only_passed_through_may_be_large() -> None:
    assert compile_condition("{{ big.text }}", None).evaluate({"big": {"text": "x" * 5_000_000}})


def test_infinity_in_a_value_does_not_reach_json() -> None:
    with pytest.raises(ExpressionError):
        compile_condition("{{ big | tojson }}", None).value({"big": float("inf")})
