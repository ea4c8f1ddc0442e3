"""What templates see, and how what they give becomes the input of a job."""

import json

import pytest

from broker.playbook.progress import FailExecution, RefuseStep
from tests.unit.playbook.playbooks import Execution, parse, python_step


def rendered(template: str, result: object = None, workload: dict[str, object] | None = None) -> object:
    """What a template in the step after `prior` becomes."""
    steps = python_step("prior", following="[last]") + python_step(
        "last", more=f", data: {{x: {json.dumps(template)}}}"
    )
    execution = Execution(parse(steps), workload)
    execution.complete("prior", result)
    if isinstance(execution.last, FailExecution):
        return execution.last.failure.message
    data = execution.data_of("last")
    assert isinstance(data, dict)
    return data["x"]


@pytest.mark.parametrize(
    ("template", "result", "value"),
    [
        ("{{ prior }}", 5, 5),
        ("{{ prior }}", {"n": 5}, {"n": 5}),
        ("{{ prior.n }}", {"n": 5}, 5),
        ("{{ prior.data.n }}", {"n": 5}, 5),
        ("{{ prior.result.n }}", {"n": 5}, 5),
        ("{{ prior.n }}", {"data": {"n": 5}, "status": "success"}, 5),
        ("{{ prior.data.n }}", {"data": {"n": 5}, "status": "success"}, 5),
        ("{{ prior }}", {"data": [1, 2]}, [1, 2]),
        ("{{ prior.data[1] }}", {"data": [1, 2]}, 2),
        ("{{ prior.data }}", {"data": {"data": "inner"}}, "inner"),
        ("{{ prior.data }}", 5, 5),
        ("{{ results.prior.status }}", {"data": 5, "status": "success"}, "success"),
        ("{{ results['prior'].data }}", {"data": 5}, 5),
        ("{{ prior.missing.deep }}", {"n": 5}, None),
        ("{{ prior.data }}", None, None),
        ("{{ prior is none }}", None, True),
        ("{{ execution_id }}", None, 42),
        ("plain", None, "plain"),
        ("n = {{ prior.n }}!", {"n": 5}, "n = 5!"),
    ],
)
def test_earlier_step_is_seen_by_its_name(template: str, result: object, value: object) -> None:
    assert rendered(template, result) == value


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("{{ workload.n }}", 1),
        ("{{ work.n }}", 1),
        ("{{ context.n }}", 1),
        ("{{ n }}", 1),
        ("{{ items }}", [1, {"a": None}]),
        ("{{ items[1].a }}", None),
        ("{{ on }}", True),
        ("{{ workload }}", {"n": 1, "items": [1, {"a": None}], "on": True}),
    ],
)
def test_workload_is_seen_with_native_types(template: str, value: object) -> None:
    assert rendered(template, None, {"n": 1, "items": [1, {"a": None}], "on": True}) == value


@pytest.mark.parametrize("name", ["env", "os", "environ", "job", "nosuch", "self", "range"])
def test_nothing_else_is_seen(name: str) -> None:
    message = rendered(f"{{{{ {name} }}}}")
    assert message == f"last.data.x (line 4, column 78): '{name}' is not defined"


def test_members_are_those_of_json_values_only() -> None:
    assert rendered("{{ prior.items }}", {"n": 1}) is None
    assert rendered("{{ prior.__class__ }}", {"n": 1}) is None


def test_name_of_a_step_wins_over_a_key_of_the_workload() -> None:
    assert rendered("{{ prior }}{{ workload.prior }}", "step", {"prior": " workload"}) == "step workload"


def test_key_of_the_workload_named_like_a_bare_router_is_seen() -> None:
    steps = "- {step: start, next: a}\n" + python_step(
        "a", following="[end]", more=", data: {x: '{{ start }}'}"
    )
    execution = Execution(parse(steps + "- step: end"), {"start": 7, "end": 9})
    assert execution.data_of("a") == {"x": 7}


SIDE_BY_SIDE = (
    "- {step: start, next: [a, b]}\n"
    + python_step("a", following="[{step: c, when: '{{ results.b is none }}'}]")
    + python_step("b", following="[d]")
    + python_step("c", more=", data: {b: '{{ results.b }}'}")
    + python_step("d")
)


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_branches_do_not_see_each_other_whichever_was_faster(order: tuple[str, str]) -> None:
    execution = Execution(parse(SIDE_BY_SIDE))
    for step in order:
        execution.complete(step, step)
    assert execution.data_of("c") == {"b": None}


def test_earlier_step_that_did_not_run_is_none() -> None:
    steps = (
        python_step("a", following="[{step: b, when: '{{ result }}'}, c]")
        + python_step("b", following="[c]")
        + python_step("c", more=", data: {b: '{{ b }}', deep: '{{ b.data.x }}'}")
    )
    execution = Execution(parse(steps))
    execution.complete("a", False)
    assert execution.data_of("c") == {"b": None, "deep": None}


@pytest.mark.parametrize(
    ("own", "data"),
    [
        ("data: {x: 1}", {"x": 1}),
        ("with: {x: 1}", {"x": 1}),
        ("args: {x: 1}", {"x": 1}),
        ("params: {x: 1}", {"x": 1}),
        ("payload: {x: 1}", {"x": 1}),
        ("input: {x: 1}", {"x": 1}),
        (
            "data: {x: data}, with: {x: with, y: with}, args: {y: args, z: args}",
            {"x": "data", "y": "with", "z": "args"},
        ),
        (
            "input: {a: input}, payload: {a: payload, b: payload}, params: {b: params}",
            {"a": "payload", "b": "params"},
        ),
        ("data: '{{ workload }}'", {"w": 1}),
        ("data: null", {}),
    ],
)
def test_keys_that_give_data_are_merged_and_data_wins(own: str, data: object) -> None:
    execution = Execution(parse(f"- {{step: a, type: python, code: x, {own}}}"), {"w": 1})
    assert execution.data_of("a") == data


@pytest.mark.parametrize("key", ["data", "input", "payload", "with", "args", "params"])
def test_data_of_a_transition_wins_over_the_steps_own(key: str) -> None:
    """As arguments win over defaults; the reference did it for `start` alone."""
    steps = python_step("a", following=f"[{{step: b, {key}: {{x: passed}}}}]")
    execution = Execution(parse(steps + python_step("b", more=", data: {x: own, y: own}")))
    execution.complete("a")
    assert execution.data_of("b") == {"x": "passed", "y": "own"}


def test_data_of_the_workbook_task_is_what_its_steps_fill_up() -> None:
    steps = "- {step: a, type: workbook, name: t, data: {y: step}}"
    rest = "workbook: [{name: t, type: python, code: c, data: {x: task, y: task}, assert: {expects: [x], returns: r}}]"
    execution = Execution(parse(steps, rest))
    assert execution.input_of("a") == {
        "code": "c",
        "data": {"x": "task", "y": "step"},
        "assert": {"returns": ["r"]},
    }


def test_step_without_the_data_that_its_task_expects_is_refused() -> None:
    rest = "workbook: [{name: t, type: python, code: c, assert: {expects: [x, y]}}]"
    execution = Execution(parse("- {step: a, type: workbook, name: t, data: {y: 1}}", rest))
    refusal = execution.actions[0]
    assert isinstance(refusal, RefuseStep)
    assert refusal.failure.message == ("a (line 3, column 5): the data lacks x, which `assert.expects` names")


def test_fields_of_a_step_see_its_data_and_what_was_passed() -> None:
    steps = python_step("a", following="[{step: b, data: {id: 7}}]") + (
        "- {step: b, type: http, url: 'http://h/{{ data.id }}', data: {twice: '{{ input.id * 2 }}'}}"
    )
    execution = Execution(parse(steps))
    execution.complete("a")
    assert execution.input_of("b") == {
        "endpoint": "http://h/7",
        "method": "GET",
        "data": {"twice": 14, "id": 7},
    }


def test_http_step_keeps_the_meaning_of_params_headers_and_payload() -> None:
    step = """
    - step: a
      type: http
      method: post
      url: "{{ workload.url }}"
      headers: {X-Id: "{{ execution_id }}"}
      params: {page: "{{ 1 + 1 }}"}
      payload: ["{{ workload.n }}"]
      auth: {type: basic, credential: "{{ workload.who }}"}
      timeout: 1500ms
    """
    execution = Execution(parse(step), {"url": "http://h", "n": 5, "who": "svc"})
    assert execution.input_of("a") == {
        "method": "POST",
        "endpoint": "http://h",
        "headers": {"X-Id": 42},
        "params": {"page": 2},
        "payload": [5],
        "auth": {"type": "basic", "credential": "svc"},
        "timeout": 1.5,
    }


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            "type: postgres, auth: w, command: 'select {{ n }}'",
            {"auth": "w", "command": "select 5", "data": {}},
        ),
        ("type: postgres, credential: w, sql: x", {"auth": "w", "command": "x", "data": {}}),
        (
            "type: postgres, auth: w, commands: [a, '{{ n }}!']",
            {"auth": "w", "commands": ["a", "5!"], "data": {}},
        ),
        (
            "type: duckdb, query: x, database: f.db, data: {n: 1}",
            {"query": "x", "database": "f.db", "data": {"n": 1}},
        ),
        ("type: python, code: 'x = {{ n }}'", {"code": "x = {{ n }}", "data": {}}),
    ],
)
def test_input_is_what_the_executor_takes(fields: str, expected: object) -> None:
    assert Execution(parse(f"- {{step: a, {fields}}}"), {"n": 5}).input_of("a") == expected


def test_conditions_are_never_rendered_with_the_step() -> None:
    """The reference rendered them with everything else, and lost all rendering when one named `error`."""
    step = (
        "- {step: a, type: python, code: x, data: {x: '{{ n }}'}, retry: {retry_when: '{{ error != None }}'}}"
    )
    execution = Execution(parse(step), {"n": 5})
    assert execution.input_of("a") == {"code": "x", "data": {"x": 5}}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("type: http, url: '{{ workload.missing }}'", "a.url (line 3, column 32): must be text, not null"),
        (
            "type: http, url: u, headers: '{{ n }}'",
            "a.headers (line 3, column 44): must be a mapping, not the number 5",
        ),
        (
            "type: python, code: x, data: '{{ n }}'",
            "a.data (line 3, column 44): must be a mapping, not the number 5",
        ),
        (
            "type: postgres, query: x, auth: '{{ n }}'",
            "a.auth (line 3, column 47): must be the name of a credential",
        ),
        (
            "type: python, code: x, data: {y: {z: ['{{ 1 / 0 }}']}}",
            "a.data.y.z[0] (line 3, column 53): division by zero",
        ),
        ("type: python, code: x, data: {y: '{{ n + none }}'}", "a.data.y (line 3, column 48): "),
    ],
)
def test_what_does_not_fit_once_rendered_is_refused_with_its_place(fields: str, message: str) -> None:
    refusal = Execution(parse(f"- {{step: a, {fields}}}"), {"n": 5}).actions[0]
    assert isinstance(refusal, RefuseStep)
    assert refusal.failure.message.startswith(message)
    assert refusal.failure.type == "template_error"


@pytest.mark.parametrize(
    "data",
    [
        "{x: '{{ big }}', y: '{{ big }}'}",
        "'{{ workload }}'",
        "{x: '{{ many }}', y: '{{ many }}', z: '{{ many }}'}",
    ],
)
def test_input_over_one_mebibyte_is_refused(data: str) -> None:
    workload: dict[str, object] = {"big": "x" * 600_000, "many": [1] * 200_000, "big2": "y" * 600_000}
    refusal = Execution(parse(f"- {{step: a, type: python, code: x, data: {data}}}"), workload).actions[0]
    assert isinstance(refusal, RefuseStep)
    assert "bytes" in refusal.failure.message


def test_size_of_an_input_is_counted_in_bytes() -> None:
    step = "- {step: a, type: python, code: x, data: {x: '{{ big }}'}}"
    assert Execution(parse(step), {"big": "é" * 500_000}).running == {"a"}
    assert isinstance(Execution(parse(step), {"big": "é" * 530_000}).actions[0], RefuseStep)


def test_passing_a_large_value_to_many_steps_stays_cheap() -> None:
    passing = ", ".join(f"k{n}: '{{{{ big }}}}'" for n in range(300))
    execution = Execution(
        parse(f"- {{step: a, type: python, code: x, data: {{{passing}}}}}"), {"big": "x" * 1_000_000}
    )
    assert isinstance(execution.actions[0], RefuseStep)
