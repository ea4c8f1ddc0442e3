"""The text of a playbook: which YAML is read, what it stands for, and where faults are placed."""

import time

import pytest

from broker.playbook import reading
from broker.playbook.document import Faults, PlaybookInvalid
from broker.playbook.reading import TEXT_LIMIT, read_document


def read(text: str) -> object:
    faults = Faults()
    node = read_document(text, faults)
    faults.raise_if_any()
    assert node is not None
    return node.value


def refusals(text: str) -> list[str]:
    faults = Faults()
    read_document(text, faults)
    with pytest.raises(PlaybookInvalid) as refused:
        faults.raise_if_any()
    return [str(fault) for fault in refused.value.faults]


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        *(("", None), ("~", None), ("null", None), ("true", True), ("FALSE", False)),
        *(
            ("5", 5),
            ("-5", -5),
            ("+5", 5),
            ("0", 0),
            ("0x1f", 31),
            ("0o17", 15),
            ("9007199254740993", 2**53 + 1),
        ),
        *(("1.5", 1.5), (".5", 0.5), ("5.", 5.0), ("1e3", 1000.0), ("-2.5E-1", -0.25)),
        *(
            ("yes", "yes"),
            ("off", "off"),
            ("NO", "NO"),
            ("007", "007"),
            ("1_000", "1_000"),
            ("12:30", "12:30"),
        ),
        *(("2026-11-23", "2026-11-23"), ("'5'", "5"), ('"true"', "true"), ("!!str 5", "5"), ("!!int '5'", 5)),
        *(("!!float 5", 5), ("!!null ''", None), ("! 5", "5")),
    ],
)
def test_scalar_stands_for_what_json_can_hold(scalar: str, value: object) -> None:
    found = read(f"[{scalar or '~'}]") if scalar else read("a:\n")
    expected = [value] if scalar else {"a": None}
    assert found == expected
    assert isinstance(found, dict) or type(found[0]) is type(value)


@pytest.mark.parametrize(
    ("scalar", "message"),
    [
        (".inf", "infinity and NaN are no JSON values"),
        ("-.INF", "infinity and NaN are no JSON values"),
        (".nan", "infinity and NaN are no JSON values"),
        ("1e999", "the number is too large"),
        ("9" * 500, "a number of 500 digits is too long: at most 400"),
        ('"a\\0b"', "a text may not hold NUL or half of a surrogate pair"),
        ("!!int x", "'x' is no int"),
        ("!!python/name:os.system x", "the tag tag:yaml.org,2002:python/name:os.system is not supported"),
        ("!!binary aGk=", "the tag tag:yaml.org,2002:binary is not supported"),
        ("!own x", "the tag !own is not supported"),
        ("!own {a: 1}", "the tag !own is not supported here"),
        ("!!set {a}", "the tag tag:yaml.org,2002:set is not supported here"),
    ],
)
def test_what_json_cannot_hold_is_refused_with_its_place(scalar: str, message: str) -> None:
    [refusal] = refusals(f"a:\n  b: {scalar}")
    assert refusal.startswith(f"line 2, column 6: a.b: {message}")


def test_keys_are_texts_as_they_are_written() -> None:
    assert read("200: ok\ntrue: 1\n1.0: x") == {"200": "ok", "true": 1, "1.0": "x"}


def test_merge_keys_fill_in_what_is_not_given() -> None:
    text = "a: &a {x: 1, y: 2}\nb: &b {y: 3, z: 4}\nc:\n  <<: [*a, *b]\n  x: 0\nd: {<<: *b}"
    found = read(text)
    assert isinstance(found, dict)
    assert (found["c"], found["d"]) == ({"x": 0, "y": 2, "z": 4}, {"y": 3, "z": 4})


def test_merging_what_is_no_mapping_is_refused() -> None:
    assert refusals("a: {<<: 5}") == [
        "line 1, column 9: a: `<<` merges mappings: give it one, or a list of them"
    ]


def test_duplicate_keys_are_refused_where_the_second_stands() -> None:
    assert refusals("a: 1\nb:\n  c: 1\n  c: 2\na: 2") == [
        "line 4, column 3: b.c: the key 'c' is given twice: first in line 3",
        "line 5, column 1: a: the key 'a' is given twice: first in line 1",
    ]


def test_second_document_is_refused() -> None:
    assert refusals("a: 1\n---\nb: 2") == [
        "line 2, column 1: a playbook is one document: what follows `---` is not allowed"
    ]


@pytest.mark.parametrize("text", ["", "   \n", "# only a comment\n"])
def test_empty_text_is_refused(text: str) -> None:
    assert refusals(text) == ["line 1, column 1: the text is empty"]


def test_unquoted_template_is_explained() -> None:
    [refusal] = refusals("a: 1\nurl: {{ workload.url }}")
    assert (
        refusal == 'line 2, column 7: url: a key must be text; a template needs quotes around it: "{{ … }}"'
    )


def test_unquoted_template_with_a_tail_is_explained() -> None:
    found = refusals("a: 1\nurl: {{ workload.url }}/x")
    assert any("not valid YAML" in refusal and "a template needs quotes" in refusal for refusal in found)


@pytest.mark.parametrize(
    "text",
    [
        "note: total: {{ x }}",
        "url: {{ x }\nnext: end",
        "a: [1, {{ x }}/y]",
        "it's: {{ x }}/y",
        "- {{ x }}/y",
        'a: {b: "{{ x }}", c: {{ y }}/z}',
    ],
)
def test_syntax_error_at_a_template_without_quotes_names_the_cause(text: str) -> None:
    assert any(
        "not valid YAML" in refusal and "a template needs quotes" in refusal for refusal in refusals(text)
    )


@pytest.mark.parametrize(
    "text",
    [
        'type: http\n url: "{{ x }}"',
        "type: http\n url: '{{ it''s }}'",
        'type: http\n url: "{{ x[\\"y\\"] }}"',
        'a: {b: 1\nurl: "{{ x }}"',
        'url: "{{ x }}\nnext: end',
        "type: http\n url: http://h/{{ x }}",
        "type: http\n url: x # {{ y }}",
        "a: {[1]: 2}",
    ],
)
def test_other_syntax_errors_are_not_blamed_on_templates(text: str) -> None:
    assert not any("a template needs quotes" in refusal for refusal in refusals(text))


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: b: c", "line 1, column 5"),
        ("a: 1\n\tb: 2", "line 2, column 1"),
        ("a: 1\nb: 'open\n", "line 3, column 1"),
        ("a: 1\nb: [1, 2\nc: 3", "line 3, column 2"),
        ("é: 1\nb: ü: c", "line 2, column 5"),
    ],
)
def test_syntax_error_has_line_and_column(text: str, place: str) -> None:
    [refusal] = refusals(text)
    assert refusal.startswith(f"{place}: not valid YAML: ")


@pytest.mark.parametrize("character", ["\0", "\x07", "\x1b", "\ufffe", "\ud800"])
def test_unprintable_character_is_refused_with_its_place(character: str) -> None:
    [refusal] = refusals(f"a: 1\nb: x{character}y")
    assert refusal == f"line 2, column 5: the character U+{ord(character):04X} is not allowed"


def test_unknown_alias_and_alias_to_itself_are_refused() -> None:
    assert refusals("a: *b\nc: &c [*c]") == [
        "line 1, column 4: a: the alias *b names no anchor that ends before it",
        "line 2, column 8: c[0]: the alias *c names no anchor that ends before it",
    ]


def test_text_over_its_limit_is_refused() -> None:
    assert refusals("a: " + "é" * (TEXT_LIMIT // 2)) == [
        f"line 1, column 1: the text is larger than {TEXT_LIMIT} bytes"
    ]


def test_text_at_its_limit_is_read() -> None:
    assert read("a: " + "x" * (TEXT_LIMIT - 3)) == {"a": "x" * (TEXT_LIMIT - 3)}


def billion_laughs() -> str:
    lines = ["a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha, ha]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 20)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (billion_laughs(), "too many values, aliases expanded"),
        ("a: [" + "1," * 500_000 + "]", "too many values, aliases expanded"),
        ("[" * 500_000, "values are nested deeper than 64"),
        ("{a: " * 100_000, "values are nested deeper than 64"),
        ("- " * 100_000, "values are nested deeper than 64"),
    ],
    ids=["billion laughs", "many values", "deep lists", "deep mappings", "deep blocks"],
)
def test_bomb_is_refused_in_bounded_time(text: str, message: str) -> None:
    started = time.process_time()
    [refusal] = refusals(text)
    assert message in refusal
    assert time.process_time() - started < 10


def test_depth_up_to_the_limit_is_read() -> None:
    assert read("[" * 64 + "]" * 64)


def test_both_parsers_of_yaml_place_the_same_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    import yaml

    text = "a: {{ x }}\nb: {c: 1, c: 2}\nd: *e\nf: |\n  g\nh: .nan"
    with_libyaml = refusals(text)
    monkeypatch.setattr(reading, "_LOADER", yaml.SafeLoader)
    assert refusals(text) == with_libyaml
