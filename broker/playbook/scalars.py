"""What a YAML scalar stands for: YAML 1.2's core schema, cut down to what JSON can hold.

So `yes`, `on` and `NO` are texts, as are dates, `1_000`, `12:30` and `007`: nothing that a person wrote is lost.
Must not look at where a scalar stands.
"""

import math
import re

TAG = "tag:yaml.org,2002:"
# Longer integers cost quadratic time to read and no consumer holds them.
DIGITS_LIMIT = 400

_WORDS: dict[str, bool | None] = {
    "": None,
    "~": None,
    **dict.fromkeys(("null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_OTHER_BASE = re.compile(r"0(x[0-9a-fA-F]+|o[0-7]+)")
_DECIMAL = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?")
_NOT_JSON = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")

_KINDS: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "null": (type(None),),
}


class ScalarInvalid(ValueError):
    """A scalar that no JSON value stands for; the text says why."""


def resolve_plain(text: str) -> str | int | float | bool | None:
    """The JSON value of an unquoted scalar without a tag; raises ScalarInvalid."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text) or _OTHER_BASE.fullmatch(text):
        if len(text) > DIGITS_LIMIT:
            raise ScalarInvalid(f"a number of {len(text)} digits is too long: at most {DIGITS_LIMIT}")
        return int(text, 0)
    if _DECIMAL.fullmatch(text):
        number = float(text)
        if math.isinf(number):
            raise ScalarInvalid("the number is too large")
        return number
    if _NOT_JSON.fullmatch(text):
        raise ScalarInvalid("infinity and NaN are no JSON values")
    return text


def resolve(text: str, tag: str | None, is_plain: bool) -> str | int | float | bool | None:
    """The JSON value of a scalar; an explicit tag decides over its look. Raises ScalarInvalid."""
    if _UNSTORABLE.search(text):
        raise ScalarInvalid("a text may not hold NUL or half of a surrogate pair")
    if tag is None:
        return resolve_plain(text) if is_plain else text
    name = tag.removeprefix(TAG)
    if tag == "!" or name == "str":
        return text
    if name not in _KINDS:
        raise ScalarInvalid(
            f"the tag {tag} is not supported: only str, int, float, bool, null, map and seq are"
        )
    value = resolve_plain(text)
    if type(value) not in _KINDS[name]:
        raise ScalarInvalid(f"'{text}' is no {name}")
    return value
