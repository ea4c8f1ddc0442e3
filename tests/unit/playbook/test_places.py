"""Faults in templates and conditions point at the character in the YAML text, however the text is written."""

import pytest

from tests.unit.playbook.playbooks import faults_in, faults_of

HEAD = "name: p\nworkflow:\n- step: a\n  type: python\n  code: x\n"


def place_of_fault(field: str) -> str:
    [fault] = faults_of(HEAD + field)
    return fault.split(": ")[0]


@pytest.mark.parametrize(
    ("field", "place"),
    [
        ('  data: {x: "{{ 1 ** 2 }}"}', "line 6, column 17"),
        ("  data: {x: '{{ 1 ** 2 }}'}", "line 6, column 17"),
        ("  data:\n    x: a {{ 1 ** 2 }}", "line 7, column 13"),
        ("  data:\n    é: é {{ 1 ** 2 }}", "line 7, column 13"),
        ("  data:\n    x: |\n      one\n      {{ 1 ** 2 }}\n", "line 9, column 10"),
        ("  data:\n    x: |2-\n       {{ 1 ** 2 }}\n", "line 8, column 11"),
        ("  data:\n    x: >-\n      {{ 1 ** 2 }}\n", "line 8, column 10"),
        # Where escapes or folding moved the characters, the value's own place is given.
        ('  data: {x: "\\t{{ 1 ** 2 }}"}', "line 6, column 13"),
        ("  data:\n    x: >-\n      one\n      {{ 1 ** 2 }}\n", "line 7, column 8"),
        ("  data:\n    x: one\n      {{ 1 ** 2 }}\n", "line 7, column 8"),
    ],
)
def test_template_fault_is_placed_in_the_document(field: str, place: str) -> None:
    assert place_of_fault(field) == place


@pytest.mark.parametrize(
    ("field", "fault"),
    [
        (
            '  retry: {retry_when: "{{ eror != None }}"}',
            "line 6, column 27: workflow[0].retry.retry_when: unknown name 'eror': did you mean 'error'?",
        ),
        (
            "  retry:\n    stop_when: |\n      {{ attempt >\n         }}\n",
            "line 9, column 10: workflow[0].retry.stop_when: unexpected 'end of print statement'",
        ),
        (
            "  retry:\n    retry_when: error != None",
            "line 7, column 17: workflow[0].retry.retry_when: a condition is true, false or exactly one {{ … }}",
        ),
        (
            "  retry:\n    max_atempts: 3",
            "line 7, column 5: workflow[0].retry.max_atempts: unknown key: did you mean 'max_attempts'?",
        ),
        (
            "  retry:\n    max_attempts: 0",
            "line 7, column 5: workflow[0].retry.max_attempts: must be from 1 to 1000, not 0",
        ),
        (
            "  retry: sometimes",
            "line 6, column 10: workflow[0].retry: must be true, false, a number of attempts or a mapping, not 'sometimes'",
        ),
    ],
)
def test_fault_of_a_retry_policy_is_placed_in_the_document(field: str, fault: str) -> None:
    assert faults_of(HEAD + field) == [fault]


def test_faults_of_one_policy_come_all_at_once() -> None:
    found = faults_of(
        HEAD + "  retry: {max_attempts: -1, max_delay: soon, jitter: maybe, retry_when: '{{ x }}'}"
    )
    assert [fault.split(": ")[1].rpartition(".")[2] for fault in found] == [
        "max_attempts",
        "max_delay",
        "jitter",
        "retry_when",
    ]


def test_when_is_placed_in_the_document() -> None:
    [fault] = faults_in("- {step: a, next: [{step: b, when: '{{ a.x = 1 }}'}]}\n- {step: b}")
    assert fault.startswith("line 3, column 46: workflow[0].next[0].when: ")
