"""What RegisterPlaybook, GetPlaybook and ListPlaybooks promise."""

import asyncio
from typing import Any

import grpc
import pytest
from reprise.v1 import playbook_service_pb2 as pb

from tests.contract.client import Refusal
from tests.contract.playbooks.catalog import (
    ONE_STEP,
    PATH,
    PlaybookClient,
    faults_of,
    playbook,
    python_step,
)

FAULTY = """
metadata: {name: faulty, path: tests/faulty}
workflow:
  - step: start
    next: [tusk]
  - step: task
    type: python
    code: "def main(): pass"
    retry:
      max_atempts: 3
      retry_when: "{{ eror != None }}"
      stop_when: "{{ error == }}"
"""


async def test_first_registration_is_version_one_and_shows_the_playbook_as_it_was_sent(
    playbooks: PlaybookClient,
) -> None:
    registered = await playbooks.register(ONE_STEP)

    assert registered.created
    assert (registered.playbook.path, registered.playbook.name) == (PATH, "flow")
    assert (registered.playbook.version, registered.playbook.yaml) == (1, ONE_STEP)
    assert registered.playbook.HasField("created_at")


async def test_same_text_again_is_the_newest_version_and_another_text_a_new_one(
    playbooks: PlaybookClient,
) -> None:
    other = ONE_STEP + "# changed\n"

    answers = [await playbooks.register(text) for text in (ONE_STEP, ONE_STEP, other, other, ONE_STEP)]

    assert [(answer.playbook.version, answer.created) for answer in answers] == [
        (1, True), (1, False), (2, True), (2, False), (3, True),
    ]  # fmt: skip
    assert answers[0].playbook == answers[1].playbook


async def test_every_fault_comes_at_once_with_its_line_and_column(playbooks: PlaybookClient) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await playbooks.register(FAULTY)

    refusal = Refusal(refused.value)
    assert (refusal.code, refusal.domain) == ("INVALID_ARGUMENT", "reprise")
    assert set(refusal.fields) == {"yaml"}
    described = [description.partition(": ") for description in faults_of(refused.value)]
    assert [place for place, _, _ in described] == [
        "line 5, column 12",
        "line 10, column 7",
        "line 11, column 23",
        "line 12, column 31",
    ]
    for (_, _, text), word in zip(described, ("tusk", "max_atempts", "eror", "stop_when"), strict=True):
        assert word in text


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("workflow: [", "line 2, column 1"),
        ("- a list", "line 1, column 1"),
        ("a: \0", "line 1"),
        ("", "line 1, column 1"),
        (ONE_STEP + "---\nmore: 1\n", "line 4"),
        ("metadata: {name: x}\nworkflow:\n  - {step: a, next: [b]}\n  - {step: b, next: [a]}", "line 4"),
    ],
)
async def test_text_that_is_no_playbook_is_refused_with_its_place(
    playbooks: PlaybookClient, text: str, place: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await playbooks.register(text)

    refusal = Refusal(refused.value)
    assert refusal.code == "INVALID_ARGUMENT"
    assert any(description.startswith(place) for description in faults_of(refused.value))


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (
            "- {step: a, type: iterator}",
            "line 3, column 15: workflow[0].type: the type 'iterator' is not supported yet",
        ),
        *(
            (
                f"- {{step: a, type: python, code: 'def main(): pass', retry: {{max_attempts: 2, {key}: {value}}}}}",
                f"line 3, column 80: workflow[0].retry.{key}: `{key}` is not supported yet",
            )
            for key, value in (
                ("delays", "[1, 2]"),
                ("deadline", "1h"),
                ("rules", "[]"),
                ("max_crashes", "3"),
                ("honor_retry_after", "true"),
            )
        ),
    ],
)
async def test_what_has_not_come_yet_is_refused_by_name(
    playbooks: PlaybookClient, step: str, told: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await playbooks.register(playbook(step))

    refusal = Refusal(refused.value)
    assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "NOT_SUPPORTED_YET")
    assert refusal.violations == {"yaml": ("NOT_SUPPORTED_YET", told)}


async def test_thousand_faults_still_fit_in_what_a_client_takes(playbooks: PlaybookClient) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await playbooks.register(playbook("".join(f"- {{step: s{n}, tpye: python}}\n" for n in range(1000))))

    refusal = Refusal(refused.value)
    assert refusal.code == "INVALID_ARGUMENT"
    assert len(faults_of(refused.value)) > 10
    assert faults_of(refused.value)[-1].startswith("and ")


async def test_text_of_more_than_one_mebibyte_is_refused(playbooks: PlaybookClient) -> None:
    limit = 1024 * 1024
    fits = ONE_STEP + "#" * (limit - len(ONE_STEP))
    assert (await playbooks.register(fits)).created

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await playbooks.register(fits + "ä")

    refusal = Refusal(refused.value)
    assert (refusal.code, refusal.fields) == ("INVALID_ARGUMENT", ["yaml"])


async def test_registrations_at_once_at_two_brokers_lose_none(
    playbooks: PlaybookClient, second_channel: grpc.aio.Channel
) -> None:
    others = PlaybookClient(second_channel)
    texts = [f"{ONE_STEP}# {number}\n" for number in range(10)]

    answers = await asyncio.gather(
        *(client.register(text) for text in texts for client in (playbooks, others))
    )

    versions = {answer.playbook.version: answer.playbook.yaml for answer in answers if answer.created}
    assert sorted(versions) == list(range(1, len(versions) + 1))
    assert set(versions.values()) == set(texts)
    for version, text in versions.items():
        assert (await playbooks.get(version=version)).yaml == text


async def test_each_version_can_be_had_and_zero_is_the_newest(playbooks: PlaybookClient) -> None:
    first, second = ONE_STEP, ONE_STEP + "# second\n"
    await playbooks.register(first)
    await playbooks.register(second)

    found = [await playbooks.get(version=version) for version in (0, 1, 2)]

    assert [(each.version, each.yaml) for each in found] == [(2, second), (1, first), (2, second)]


@pytest.mark.parametrize(("path", "version"), [("tests/other", 0), (PATH, 3), (PATH, -1)])
async def test_playbook_that_is_not_there_is_not_found(
    playbooks: PlaybookClient, path: str, version: int
) -> None:
    await playbooks.register(ONE_STEP)

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await playbooks.get(path, version)

    assert (Refusal(refused.value).code, Refusal(refused.value).reason) == ("NOT_FOUND", "PLAYBOOK_NOT_FOUND")


@pytest.mark.parametrize("path", ["", "a\0b"])
async def test_path_that_cannot_be_one_is_refused(playbooks: PlaybookClient, path: str) -> None:
    for call in (playbooks.get(path), playbooks.start(path)):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call

        refusal = Refusal(refused.value)
        assert (refusal.code, refusal.fields) == ("INVALID_ARGUMENT", ["path"])


@pytest.mark.parametrize("page_size", [1, 2, 3, 0])
async def test_newest_version_of_each_playbook_is_listed_by_path_page_by_page(
    playbooks: PlaybookClient, page_size: int
) -> None:
    for path in ("c", "a/b", "Z"):
        await playbooks.register(playbook(python_step("task"), path=path))
    await playbooks.register(playbook(python_step("renamed"), path="a/b"))
    request = pb.ListPlaybooksRequest(page_size=page_size)
    found: list[pb.Playbook] = []

    while True:
        page = await playbooks.stub.ListPlaybooks(request)
        assert len(page.playbooks) <= (page_size or 3)
        found += page.playbooks
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token

    assert [(each.path, each.version, each.yaml) for each in found] == [
        ("Z", 1, ""),
        ("a/b", 2, ""),
        ("c", 1, ""),
    ]


@pytest.mark.parametrize("wrong", [{"page_size": -1}, {"page_token": "made up"}])
async def test_page_that_cannot_be_is_refused(playbooks: PlaybookClient, wrong: dict[str, Any]) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await playbooks.stub.ListPlaybooks(pb.ListPlaybooksRequest(**wrong))

    refusal = Refusal(refused.value)
    assert (refusal.code, refusal.fields) == ("INVALID_ARGUMENT", list(wrong))
