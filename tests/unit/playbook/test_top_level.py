"""The top level of a playbook: its catalog path, its constants, and faults that only the whole shows."""

import pytest

from broker.playbook.document import FAULTS_LIMIT
from broker.playbook.parse import STEPS_LIMIT, parse_playbook
from tests.unit.playbook.playbooks import faults_in, faults_of, parse, python_step

STEPS = "workflow: [{step: start}]"


@pytest.mark.parametrize(
    ("head", "path", "name"),
    [
        ("metadata: {path: a/b, name: n}\npath: c\nname: d", "a/b", "n"),
        ("metadata: {name: n}\npath: c\nname: d", "c", "n"),
        ("metadata: {name: n}\nname: d", "n", "n"),
        ("name: d", "d", "d"),
        ("metadata: {path: a/b}", "a/b", "a/b"),
        ("path: c\nname: d", "c", "d"),
    ],
)
def test_catalog_path_is_the_first_of_four(head: str, path: str, name: str) -> None:
    playbook = parse_playbook(f"{head}\n{STEPS}")
    assert (playbook.path, playbook.name) == (path, name)


def test_playbook_without_path_and_name_is_refused() -> None:
    """The reference would file it under "unknown", where the next nameless one replaces it."""
    assert faults_of(f"metadata: {{description: x}}\n{STEPS}") == [
        "line 1, column 1: a playbook needs metadata.path or metadata.name, its key in the catalog"
    ]


def test_other_keys_of_metadata_are_kept_out_of_the_way() -> None:
    assert parse_playbook(f"metadata: {{name: n, owner: {{team: x}}, labels: [1]}}\n{STEPS}").name == "n"


@pytest.mark.parametrize(
    ("head", "fault"),
    [
        ("apiVersion: noetl.io/v2", "line 2, column 13: apiVersion: must be noetl.io/v1"),
        ("kind: Credential", "line 2, column 7: kind: must be Playbook"),
        ("name2: x", "line 2, column 1: name2: unknown key 'name2': did you mean 'name'?"),
        ("metadata: [x]", "line 2, column 11: metadata: must be a mapping, not a list"),
        ("workload: 5", "line 2, column 11: workload: must be a mapping, not the number 5"),
        ("workbook: {a: b}", "line 2, column 11: workbook: must be a list, not a mapping"),
        ("path: 5", "line 2, column 7: path: must be text, not the number 5; quote it"),
        ("path: ''", "line 2, column 7: path: must not be blank"),
        ("steps: []", "line 1, column 1: `steps` is another name for `workflow`: give one"),
    ],
)
def test_fault_of_the_top_level_is_refused_by_name(head: str, fault: str) -> None:
    assert faults_of(f"name: p\n{head}\n{STEPS}") == [fault]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("name: p", "line 1, column 1: a playbook needs a workflow"),
        ("name: p\nworkflow: []", "line 2, column 11: workflow: must have 1 to 1000 steps, not 0"),
        ("name: p\nworkflow: {a: 1}", "line 2, column 11: workflow: must be a list, not a mapping"),
        ("name: p\nworkflow: [a]", "line 2, column 12: workflow[0]: must be a mapping, not text"),
        ("- a", "line 1, column 1: must be a mapping, not a list"),
        ("just text", "line 1, column 1: must be a mapping, not text"),
    ],
)
def test_playbook_without_steps_is_refused(text: str, fault: str) -> None:
    assert faults_of(text) == [fault]


def test_constants_may_be_left_out_and_steps_is_an_alias() -> None:
    playbook = parse_playbook("name: p\nsteps: [{name: a, next: b}, {step: b}]")
    assert [step.name for step in playbook.steps] == ["a", "b"]


def test_workload_is_kept_with_native_types() -> None:
    playbook = parse("- step: start", "workload: {n: 1, f: 1.5, t: yes, l: [null, true], day: 2026-11-23}")
    assert playbook.workload == {"n": 1, "f": 1.5, "t": "yes", "l": [None, True], "day": "2026-11-23"}


def test_all_faults_come_at_once_in_the_order_of_the_text() -> None:
    found = faults_of(
        "kind: Playbok\n"
        "metadata: {name: 5}\n"
        "workbook: [{name: t, type: python}]\n"
        "workflow:\n"
        "- {step: a, type: python, cod: x, retry: {max_attempts: 0}, next: [nowhere]}\n"
        "- {step: b, type: iterator}\n"
        "- {step: a, type: http, url: '{{ x | nope }}'}\n"
        "extra: 1\n"
    )
    assert [fault.split(": ")[1] for fault in found] == [
        "kind",
        "metadata.name",
        "workbook[0]",
        "workflow[0]",
        "workflow[0].cod",
        "workflow[0].retry.max_attempts",
        "workflow[0].next[0]",
        "workflow[1].type",
        "workflow[2]",
        "workflow[2].url",
        "extra",
    ]
    assert all(fault.startswith("line ") for fault in found)


def test_no_more_faults_are_told_than_anyone_reads() -> None:
    assert len(faults_in("".join(f"- {{step: s{n}, type: nope}}\n" for n in range(300)))) == FAULTS_LIMIT


def test_steps_are_bounded() -> None:
    steps = "".join(python_step(f"s{n}") for n in range(STEPS_LIMIT + 1))
    assert faults_in(steps) == ["line 3, column 3: workflow: must have 1 to 1000 steps, not 1001"]
