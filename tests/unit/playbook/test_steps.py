"""Steps: their names, types, keys, and how their jobs are queued and retried."""

from datetime import timedelta

import pytest

from broker.playbook.document import PlaybookInvalid
from broker.playbook.model import Task
from broker.playbook.parse import parse_playbook
from broker.playbook.step_types import NOT_YET_KEYS, NOT_YET_TYPES
from broker.policy.retry_policy import RetryPolicy
from tests.unit.playbook.playbooks import faults_in, parse, workflow

CODE = "type: python, code: x"


def task_of(step: str, rest: str = "") -> Task:
    task = parse(step, rest).steps[0].task
    assert task is not None
    return task


def message_of(step: str, rest: str = "") -> str:
    """The only fault, without its line and column."""
    [fault] = faults_in(step, rest)
    return fault.split(": ", 1)[1]


@pytest.mark.parametrize("kind", sorted(NOT_YET_TYPES))
def test_type_that_is_not_there_yet_is_refused_by_name(kind: str) -> None:
    with pytest.raises(PlaybookInvalid) as refused:
        parse_playbook(workflow(f"- {{step: a, type: {kind}, collection: [1], task: {{}}}}"))
    [fault] = refused.value.faults
    assert (fault.message, fault.reason) == (f"the type '{kind}' is not supported yet", "NOT_SUPPORTED_YET")


@pytest.mark.parametrize("key", sorted(NOT_YET_KEYS))
def test_key_that_is_not_there_yet_is_refused_by_name(key: str) -> None:
    with pytest.raises(PlaybookInvalid) as refused:
        parse_playbook(workflow(f"- {{step: a, {CODE}, {key}: {{}}}}"))
    [fault] = refused.value.faults
    assert (fault.message, fault.reason) == (f"`{key}` is not supported yet", "NOT_SUPPORTED_YET")


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("- {step: a, type: pythn}", "workflow[0].type: unknown type 'pythn': did you mean 'python'?"),
        (
            "- {step: a, type: 5}",
            "workflow[0].type: unknown type: known are python, http, postgres, duckdb, workbook",
        ),
        ("- {step: a, type: python}", "workflow[0]: a step of type python needs code"),
        (
            "- {step: a, type: python, code: ''}",
            "workflow[0].code: must be text that is never a template, not blank",
        ),
        (
            "- {step: a, type: python, code: [x]}",
            "workflow[0].code: must be text that is never a template, not a list",
        ),
        ("- {step: a, type: http}", "workflow[0]: a step of type http needs endpoint or url"),
        ("- {step: a, type: http, url: 5}", "workflow[0].url: must be text, not the number 5"),
        ("- {step: a, type: http, url: x, endpoint: y}", "workflow[0].endpoint: there is `url` already"),
        (
            "- {step: a, type: http, url: x, headers: [a]}",
            "workflow[0].headers: must be a mapping, not a list",
        ),
        (
            "- {step: a, type: http, url: x, auth: {password: p}}",
            "workflow[0].auth: names a credential; 'password'",
        ),
        ("- {step: a, type: http, url: x, auth: {type: basic}}", "workflow[0].auth: needs `credential`"),
        (
            "- {step: a, type: http, url: x, auth: b, credential: c}",
            "workflow[0].credential: `credential` is another",
        ),
        (
            "- {step: a, type: postgres, auth: w}",
            "workflow[0]: a step of type postgres needs command, commands, query or sql",
        ),
        (
            "- {step: a, type: postgres, query: x}",
            "workflow[0]: a step of type postgres needs auth or credential",
        ),
        (
            "- {step: a, type: postgres, auth: w, commands: []}",
            "workflow[0].commands: must be text or a list of texts",
        ),
        (
            "- {step: a, type: postgres, auth: w, query: x, command: y}",
            "workflow[0].command: there is `query` already",
        ),
        (
            "- {step: a, type: duckdb}",
            "workflow[0]: a step of type duckdb needs command, commands, query or sql",
        ),
        (
            "- {step: a, type: duckdb, query: x, auth: w}",
            "workflow[0].auth: `auth` is only for steps of type http or postgres",
        ),
        (
            "- {step: a, type: python, code: x, query: y}",
            "workflow[0].query: `query` is only for steps of type postgres or duckdb",
        ),
        (
            f"- {{step: a, {CODE}, retries: 3}}",
            "workflow[0].retries: unknown key 'retries': did you mean 'retry'?",
        ),
        (f"- {{step: a, {CODE}, queue: 'a b'}}", "workflow[0].queue: must be 1 to 128 of a-z"),
        (f"- {{step: a, {CODE}, dependency: ''}}", "workflow[0].dependency: must be 1 to 128 of a-z"),
        (
            f"- {{step: a, {CODE}, priority: 101}}",
            "workflow[0].priority: must be a whole number from -100 to 100",
        ),
        (
            f"- {{step: a, {CODE}, priority: true}}",
            "workflow[0].priority: must be a whole number from -100 to 100",
        ),
        (
            f"- {{step: a, {CODE}, timeout: 0}}",
            "workflow[0].timeout: must be longer than 0 s and at most 30 d",
        ),
        (
            f"- {{step: a, {CODE}, timeout: -5}}",
            "workflow[0].timeout: must be longer than 0 s and at most 30 d",
        ),
        (f"- {{step: a, {CODE}, timeout: null}}", "workflow[0].timeout: must be a number of seconds"),
        (f"- {{step: a, {CODE}, timeout: later}}", "workflow[0].timeout: must be a number of seconds"),
        (f"- {{step: a, {CODE}, desc: 5}}", "workflow[0].desc: must be text, not the number 5"),
        (f"- {{step: a, {CODE}, data: [1]}}", "workflow[0].data: must be a mapping, not a list"),
        (f"- {{step: a, {CODE}, args: text}}", "workflow[0].args: must be a mapping, not text"),
        (f"- {{{CODE}}}", "workflow[0]: a step needs a name: `step: NAME`"),
        (f"- {{step: 5, {CODE}}}", "workflow[0].step: must be text, not the number 5; quote it"),
        (f"- {{step: a, name: b, {CODE}}}", "workflow[0].name: a step has one name: give `step` alone"),
        (
            f"- {{step: workload, {CODE}}}",
            "workflow[0].step: a step cannot be named 'workload': templates use that name",
        ),
        ("- {step: a, retry: 3}", "workflow[0].retry: `retry` needs a type: a step without one runs nothing"),
        ("- {step: a, type: route, data: {x: 1}}", "workflow[0].data: `data` needs a type"),
        ("- {step: a, code: x}", "workflow[0].code: `code` is only for steps of type python"),
    ],
)
def test_fault_of_a_step_is_refused_by_name(step: str, message: str) -> None:
    assert message_of(step).startswith(message)


def test_job_of_a_step_has_defaults() -> None:
    task = task_of(f"- {{step: a, {CODE}}}")
    assert (task.queue, task.priority, task.retry, task.dependency) == ("default", 0, None, None)


def test_job_of_a_step_is_queued_as_it_says() -> None:
    task = task_of(
        f"- {{step: a, {CODE}, queue: q.1, priority: -5, timeout: 2m, dependency: payments-api, desc: x}}"
    )
    assert (task.queue, task.priority, task.dependency) == ("q.1", -5, "payments-api")
    assert task.attempt_timeout == timedelta(minutes=2)


@pytest.mark.parametrize(
    ("retry", "policy"),
    [
        ("true", RetryPolicy()),
        ("5", RetryPolicy(max_attempts=5)),
        ("{}", RetryPolicy()),
        ("{initial_delay: 500ms}", RetryPolicy(initial_delay=timedelta(milliseconds=500))),
        ("false", None),
        ("0", None),
        ("null", None),
    ],
)
@pytest.mark.parametrize(
    "fields",
    [
        "type: python, code: x",
        "type: http, url: x",
        "type: duckdb, query: x",
        "type: postgres, query: x, auth: w",
    ],
)
def test_every_type_of_step_takes_every_form_of_retry(
    retry: str, policy: RetryPolicy | None, fields: str
) -> None:
    steps = f"- {{step: a, next: b}}\n- {{step: b, {fields}, retry: {retry}}}"
    task = parse(steps).steps[1].task
    assert task is not None
    assert task.retry == policy


def test_conditions_of_a_policy_are_kept_as_text() -> None:
    policy = task_of(
        f"- {{step: a, {CODE}, retry: {{retry_when: '{{{{ error != None }}}}', stop_when: false}}}}"
    ).retry
    assert policy == RetryPolicy(retry_when="{{ error != None }}", stop_when=False)


@pytest.mark.parametrize("kind", ["start", "end", "route"])
def test_types_that_run_nothing_make_routers(kind: str) -> None:
    assert parse(f"- {{step: a, type: {kind}}}").steps[0].is_router


def test_start_and_end_with_a_type_run() -> None:
    playbook = parse(f"- {{step: start, {CODE}, next: end}}\n- {{step: end, {CODE}}}")
    assert [step.is_router for step in playbook.steps] == [False, False]


def test_code_is_never_a_template() -> None:
    assert task_of("- {step: a, type: python, code: 'x = {{1: 2}}[1] # {% {{'}").fields["code"].node.value


TASK = "{name: t, type: python, code: x}"


@pytest.mark.parametrize(
    ("step", "workbook", "message"),
    [
        ("{step: a, type: workbook, name: nope}", TASK, "workflow[0].name: the workbook has no task 'nope'"),
        ("{step: a, type: workbook}", TASK, "workflow[0]: a step of type workbook needs `name`"),
        (
            "{step: a, type: workbook, name: t, code: x}",
            TASK,
            "workflow[0].code: `code` is only for steps of type python",
        ),
        ("{step: a}", "{type: python, code: x}", "workbook[0]: a task of the workbook needs a name"),
        ("{step: a}", "{name: t}", "workbook[0]: the task 't' needs a type"),
        (
            "{step: a}",
            "{name: t, type: workbook}",
            "workbook[0].type: a task of the workbook cannot be of type 'workbook'",
        ),
        (
            "{step: a}",
            "{name: t, type: route}",
            "workbook[0].type: a task of the workbook cannot be of type 'route'",
        ),
        (
            "{step: a}",
            "{name: t, type: iterator}",
            "workbook[0].type: the type 'iterator' is not supported yet",
        ),
        ("{step: a}", "{name: t, type: python, code: x, next: a}", "workbook[0].next: unknown key 'next'"),
        ("{step: a}", f"{TASK}, {TASK}", "workbook[1].name: there are two tasks named 't'"),
        (
            "{step: a}",
            "{name: t, type: python, code: x, assert: {expect: a}}",
            "workbook[0].assert.expect: unknown key",
        ),
        (
            "{step: a}",
            "{name: t, type: python, code: x, assert: {returns: {a: b}}}",
            "workbook[0].assert.returns: must be a list",
        ),
        (
            "{step: a}",
            "{name: t, type: http, url: '{{ 1 ** 2 }}'}",
            "workbook[0].url: powers (**) are not allowed",
        ),
    ],
)
def test_fault_of_the_workbook_is_refused_by_name(step: str, workbook: str, message: str) -> None:
    assert message_of(f"- {step}", f"workbook: [{workbook}]").startswith(message)


def test_workbook_step_runs_the_task_and_its_own_words_win() -> None:
    task = task_of(
        "- {step: a, type: workbook, name: t, priority: 7, retry: 2}",
        "workbook: [{name: t, type: http, url: u, queue: q, priority: 1, retry: 5, assert: {expects: x, returns: [y, z]}}]",
    )
    assert (task.kind, task.queue, task.priority, task.retry) == ("http", "q", 7, RetryPolicy(max_attempts=2))
    assert (task.expects, task.returns) == (("x",), ("y", "z"))


def test_workbook_task_keeps_its_retry_where_the_step_says_nothing() -> None:
    task = task_of(
        "- {step: a, type: workbook, name: t}", "workbook: [{name: t, type: python, code: x, retry: 5}]"
    )
    assert task.retry == RetryPolicy(max_attempts=5)


def test_workbook_step_can_switch_the_retries_of_its_task_off() -> None:
    step = "- {step: a, type: workbook, name: t, retry: false}"
    assert task_of(step, "workbook: [{name: t, type: python, code: x, retry: 5}]").retry is None


def test_step_of_an_unknown_type_tells_its_other_faults_too() -> None:
    step = "- {step: a, type: pythn, retry: {max_attempts: 0}, data: {n: '{{ 1 + }}'}, next: [nowhere]}"

    found = [fault.partition(": ")[2].partition(": ")[0] for fault in faults_in(step)]

    assert found == [
        "workflow[0].type",
        "workflow[0].retry.max_attempts",
        "workflow[0].data.n",
        "workflow[0].next[0]",
    ]
