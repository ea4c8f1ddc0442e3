"""What people may type for values, and what is wrong use."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from reprise.v1.retry_pb2 import JITTER_EQUAL, JITTER_FULL, JITTER_NONE, RetryPolicy

from broker.cli.parameters import ID, AddressType, JsonObjectType, SettingType, overlay, parse_duration
from broker.cli.retry_option import RetryType


def setting(text: str) -> tuple[tuple[str, ...], object]:
    return SettingType().convert(text, None, None)


@pytest.mark.parametrize(("text", "number"), [("1", 1), ("007", 7), (str(2**63 - 1), 2**63 - 1)])
def test_an_id_is_a_number(text: str, number: int) -> None:
    assert ID.convert(text, None, None) == number


@pytest.mark.parametrize("text", ["", "abc", "0", "-1", "1.5", "²", "٣", str(2**63), "9" * 5000])
def test_anything_else_is_no_id(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no id"):
        ID.convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("5s", timedelta(seconds=5)),
        ("500ms", timedelta(milliseconds=500)),
        ("1.5", timedelta(seconds=1.5)),
        ("2 m", timedelta(minutes=2)),
        ("1h", timedelta(hours=1)),
        ("30d", timedelta(days=30)),
    ],
)
def test_duration_is_a_number_and_a_unit(text: str, length: timedelta) -> None:
    assert parse_duration(text) == length


@pytest.mark.parametrize("text", ["127.0.0.1:50051", "localhost:0", "[::1]:50051", "0.0.0.0:65535"])
def test_address_to_serve_at_is_host_and_port(text: str) -> None:
    assert AddressType().convert(text, None, None) == text


@pytest.mark.parametrize(
    "text", ["50051", ":50051", "localhost", "localhost:", "localhost:x", "a:65536", "::1:5"]
)
def test_other_text_is_no_address(text: str) -> None:
    with pytest.raises(click.BadParameter, match="HOST:PORT"):
        AddressType().convert(text, None, None)


@pytest.mark.parametrize("text", ["", "s", "-1s", "5 parsecs", "1e3", "1h30m", "nan"])
def test_other_text_is_no_duration(text: str) -> None:
    assert parse_duration(text) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=1", 1),
        ("a=true", True),
        ("a=null", None),
        ('a={"b": [1]}', {"b": [1]}),
        ('a="1"', "1"),
        ("a=hello world", "hello world"),
        ("a=NaN", "NaN"),
        ("a=", ""),
        ("a=b=c", "b=c"),
    ],
)
def test_set_value_is_json_where_it_is_json(text: str, value: object) -> None:
    assert setting(text) == (("a",), value)


def test_dotted_keys_make_nested_objects_over_the_workload() -> None:
    workload: dict[str, Any] = {"db": {"host": "a", "port": 1}}

    overlay(workload, [setting("db.host=b"), setting("x.y.z=3"), setting("x.y.w=4")])

    assert workload == {"db": {"host": "b", "port": 1}, "x": {"y": {"z": 3, "w": 4}}}


def test_set_cannot_go_below_a_value_that_is_no_object() -> None:
    with pytest.raises(click.BadParameter, match=r"a\.b is no object, so a\.b\.c cannot be set"):
        overlay({}, [setting("a.b=1"), setting("a.b.c=2")])


@pytest.mark.parametrize("text", ["a=9007199254740993", 'a=[1, {"b": -9007199254740993}]'])
def test_number_that_would_be_rounded_on_its_way_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="beyond 2\\^53"):
        overlay({}, [setting(text)])


@pytest.mark.parametrize("text", ["a", "=1", "a..b=1"])
def test_set_needs_key_and_value(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not key=value"):
        setting(text)


def test_json_object_comes_as_text_or_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "input.json"
    file.write_text('{"n": 12345678901234567890}')

    for value in ('{"n": 12345678901234567890}', str(file), f"@{file}"):
        assert JsonObjectType().convert(value, None, None) == '{"n": 12345678901234567890}'


@pytest.mark.parametrize("text", ["[1]", '"a"', "{", '{"a": NaN}', "no-such-file"])
def test_what_is_no_json_object_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        JsonObjectType().convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("5", RetryPolicy(max_attempts=5)),
        ("true", RetryPolicy()),
        ("false", None),
        ("0", None),
        ('{"jitter": true, "stop_when": false}', RetryPolicy(jitter=JITTER_FULL, stop_when="{{ false }}")),
        ('{"jitter": false}', RetryPolicy(jitter=JITTER_NONE)),
        (
            '{"jitter": "equal", "retry_when": "{{ attempt < 2 }}"}',
            RetryPolicy(jitter=JITTER_EQUAL, retry_when="{{ attempt < 2 }}"),
        ),
    ],
)
def test_retry_is_spelled_as_in_a_playbook(text: str, policy: RetryPolicy | None) -> None:
    assert RetryType().convert(text, None, None) == policy


@pytest.mark.parametrize(("written", "seconds"), [("1.5", 1.5), ('"500ms"', 0.5), ('"2m"', 120), ("0", 0)])
def test_delays_of_a_policy_are_seconds_or_durations(written: str, seconds: float) -> None:
    policy = RetryType().convert(f'{{"initial_delay": {written}, "max_attempts": 2}}', None, None)

    assert policy is not None
    assert policy.initial_delay.ToTimedelta() == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"max_atempts": 3}', "unknown key 'max_atempts', did you mean 'max_attempts'?"),
        ('{"initial_delay": "soon"}', 'initial_delay must be seconds or a duration like "500ms", not "soon"'),
        ('{"initial_delay": true}', "initial_delay must be seconds"),
        ('{"jitter": "some"}', "jitter must be false, true, full or equal"),
        ('{"max_attempts": "three"}', "max_attempts"),
        ("-1", "max_attempts must be 1 to 1000"),
        ("1.5", "write true, a number of attempts, or a JSON object"),
        ("often", "Expecting value"),
    ],
)
def test_mistyped_policy_is_refused_by_name(text: str, complaint: str) -> None:
    with pytest.raises(click.BadParameter) as refused:
        RetryType().convert(text, None, None)

    assert complaint in refused.value.message
