"""Templates keep native types, and name the place of what cannot be rendered."""

import pytest

from broker.policy.expression import ExpressionError, ExpressionInvalid
from broker.policy.template import MAX_RENDERED, compile_template, render_value

CONTEXT: dict[str, object] = {
    "workload": {"url": "http://x", "retries": 3, "tags": ["a", "b"], "none": None, "on": True},
    "big": "x" * 600_000,
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("", ""),
        ("a } b { c %}", "a } b { c %}"),
        ("ends with a break\n", "ends with a break\n"),
        ("{{ workload.retries }}", 3),
        ("{{ workload.tags }}", ["a", "b"]),
        ("{{ workload.none }}", None),
        ("{{ workload.missing }}", None),
        ("{{ workload.on }}", True),
        ("{{ workload.retries + 0.5 }}", 3.5),
        ("{{ '3' }}", "3"),
        ("{{ {'url': workload.url} }}", {"url": "http://x"}),
        ("{{- workload.retries -}}", 3),
        ("{{ workload.retries }}\n", 3),
        (" {{ workload.retries }}", " 3"),
        ("{{ workload.url }}/v1", "http://x/v1"),
        ("{{ workload.retries }}{{ workload.retries }}", "33"),
        ("is {{ workload.on }}, {{ workload.none }}\n", "is True, None\n"),
        ("{{ workload.tags | tojson }};", '["a", "b"];'),
        ("one\r\n{{ 2 }}\r\n", "one\n2\n"),
        ("{# a note #}x{{ 1 }}", "x1"),
        ("{% raw %}{{ kept }}{% endraw %}", "{{ kept }}"),
    ],
)
def test_a_text_that_is_one_expression_keeps_its_type(text: str, expected: object) -> None:
    rendered = compile_template(text).render(CONTEXT)

    assert rendered == expected
    assert type(rendered) is type(expected)


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("ok {{ a }}\n{{ b c }}", 2, 6),
        ("{% for a in b %}{{ a }}{% endfor %}", 1, 4),
        ("x\n  {{ f() }}", 2, 7),
        ("{{ a", 1, 4),
        ("x" * 70_000 + "{{ a }}", 1, 1),
    ],
)
def test_an_invalid_template_is_refused_with_its_place(text: str, line: int, column: int) -> None:
    with pytest.raises(ExpressionInvalid) as refused:
        compile_template(text)

    assert (refused.value.line, refused.value.column) == (line, column)


def test_a_template_knows_which_names_it_uses() -> None:
    assert compile_template("{{ a.x }} {{ b | default(c) }} d").names == {"a", "b", "c"}


def test_every_text_of_a_structure_is_rendered_and_nothing_else() -> None:
    value = {"data": {"n": "{{ workload.retries }}", "{{ key }}": [1, None, True, "u={{ workload.url }}"]}}

    assert render_value(value, CONTEXT) == {"data": {"n": 3, "{{ key }}": [1, None, True, "u=http://x"]}}
    assert value["data"]["n"] == "{{ workload.retries }}"


@pytest.mark.parametrize("text", ["{{ nowhere }}", "{{ workload.url >= 1 }}", "{{ 1 +", "{{ big ~ big }}"])
def test_a_text_that_cannot_be_rendered_is_named_by_its_path(text: str) -> None:
    with pytest.raises(ExpressionError) as raised:
        render_value({"data": {"items": ["ok", 2, text]}}, CONTEXT)

    assert raised.value.path == "data.items[2]"
    assert str(raised.value).startswith("data.items[2]: ")


def test_a_large_value_is_passed_on_without_a_copy() -> None:
    rendered = render_value(["{{ big }}"], CONTEXT)

    assert isinstance(rendered, list)
    assert rendered[0] is CONTEXT["big"]


def test_a_structure_cannot_grow_beyond_the_size_of_an_input() -> None:
    with pytest.raises(ExpressionError, match=str(MAX_RENDERED)) as raised:
        render_value(["{{ big }}", "{{ big }}"], CONTEXT)

    assert raised.value.path == "[1]"


def test_one_expression_cannot_make_more_than_the_size_of_an_input() -> None:
    with pytest.raises(ExpressionError, match=str(MAX_RENDERED)):
        compile_template("{{ [big, big] }}").render(CONTEXT)
