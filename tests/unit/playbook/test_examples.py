"""The examples can be registered, and their executions go the way that their comments say."""

from pathlib import Path

import pytest

from broker.playbook.parse import parse_playbook
from broker.playbook.progress import CompleteExecution, FailExecution, PassRouter, StartStep
from tests.unit.playbook.playbooks import Execution

EXAMPLES = Path(__file__).parents[3] / "examples"


def example(name: str) -> Execution:
    return Execution(parse_playbook((EXAMPLES / name).read_text()))


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_example_can_be_registered(path: Path) -> None:
    assert parse_playbook(path.read_text()).steps


def test_retry_example_enqueues_the_failing_step_with_its_policy() -> None:
    execution = example("retry.yaml")
    assert execution.playbook.path == "tests/retry/verify"
    start, fail_task = execution.actions
    assert start == PassRouter("start", None)
    assert isinstance(fail_task, StartStep)
    assert fail_task.retry is not None
    assert (fail_task.retry.max_attempts, fail_task.retry.retry_when) == (3, "{{ error != None }}")
    [failed] = execution.bury("fail_task", "Test retry")
    assert isinstance(failed, FailExecution)
    assert failed.failed_step == "fail_task"


def test_recovery_example_goes_on_after_the_retries() -> None:
    execution = example("recovery.yaml")
    execution.complete("call_flaky", {"greeting": "Hello Ada", "attempts": 3})
    execution.complete("shout", "HELLO ADA")
    assert execution.last == CompleteExecution({"said": "HELLO ADA", "attempts": 3})


def test_fan_out_example_joins_and_branches() -> None:
    execution = example("fan_out.yaml")
    assert execution.running == {"add_up", "find_largest"}
    execution.complete("find_largest", {"value": 9})
    execution.complete("add_up", {"value": 31})
    assert execution.data_of("compare") == {"sum": 31, "largest": 9}
    execution.complete("compare", {"sum": 31, "share": 0.29})
    assert execution.last == CompleteExecution("31 is over the limit of 30")


def test_sources_example_goes_through_every_type() -> None:
    execution = example("sources.yaml")
    execution.complete("fetch", {"status_code": 200, "data": [{"name": "a", "amount": 5}]})
    assert execution.data_of("sum_up") == {"orders": '[{"name": "a", "amount": 5}]'}
    execution.complete("sum_up", {"command_0": {"rows": [{"orders": 1, "total": 5.0}]}})
    assert execution.data_of("store") == {"orders": 1, "total": 5.0}
    execution.complete("store", {})
    assert execution.last == CompleteExecution({"orders": 1, "stored": True})


def test_sources_example_stores_nothing_where_there_is_nothing() -> None:
    execution = example("sources.yaml")
    execution.complete("fetch", {"status_code": 200, "data": []})
    execution.complete("sum_up", {"command_0": {"rows": [{"orders": 0, "total": 0.0}]}})
    assert execution.last == CompleteExecution({"stored": False})
