"""The Python of a new playbook: what cannot work is refused with its line, and nothing of it is run."""

import pytest

from broker.playbook.code import CHECKED_CHARACTERS
from broker.playbook.parse import PlaybookInvalid, parse_playbook
from tests.unit.playbook.playbooks import workflow


def faults_of_code(code: str) -> list[str]:
    lines = "".join(f"    {line}\n" for line in code.splitlines())
    try:
        parse_playbook(workflow(f"- step: a\n  type: python\n  code: |\n{lines}"), is_new=True)
    except PlaybookInvalid as refused:
        return [str(fault) for fault in refused.faults]
    return []


def test_code_that_is_no_python_is_refused_where_it_stands() -> None:
    [fault] = faults_of_code("def main(:\n    pass")

    assert fault.startswith("line 6, column 16: workflow[0].code: the code is no Python: ")


def test_task_of_the_workbook_is_checked_too() -> None:
    text = workflow("- {step: a}", "workbook: [{name: t, type: python, code: 'def run(): pass'}]")

    with pytest.raises(PlaybookInvalid, match="no function main"):
        parse_playbook(text, is_new=True)


@pytest.mark.parametrize("code", ["def run(): pass", "import domain", "'the main thing'"])
def test_code_without_main_is_refused(code: str) -> None:
    [fault] = faults_of_code(code)

    assert fault.endswith("workflow[0].code: the code defines no function main, which is what a step runs")


@pytest.mark.parametrize(
    "code",
    [
        "async def main(): pass",
        "from tasks import main",
        "from tasks import *",
        "import tasks as main",
        "if True:\n    main = lambda: 1",
        "globals()['main'] = print",
        r"def main(): return '\d'",
    ],
)
def test_main_may_be_bound_in_any_way(code: str) -> None:
    assert faults_of_code(code) == []


def test_checking_runs_nothing() -> None:
    assert faults_of_code("raise SystemExit(1)\ndef main(): pass") == []


@pytest.mark.parametrize(
    "bomb", ["-" * 16_000 + "1", "a" + ".b" * 8_000, "f" + "()" * 8_000, "(" * 90 + ")" * 90]
)
def test_code_too_deep_for_the_parser_is_left_to_the_worker(bomb: str) -> None:
    assert faults_of_code(f"main = {bomb}") == []


def test_code_too_long_to_look_at_is_left_to_the_worker() -> None:
    assert faults_of_code("x = 1\n" * CHECKED_CHARACTERS) == []


def test_playbook_that_is_registered_already_is_read_as_it_is() -> None:
    assert parse_playbook(workflow("- {step: a, type: python, code: 'print 1'}")).steps
