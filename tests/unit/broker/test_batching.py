"""Calls that come while a statement is in flight share the next one; one bad call fails alone."""

import asyncio
from collections.abc import Sequence
from functools import partial

import pytest

from broker.batching import Shared
from broker.errors import LimitExceeded, Unavailable


class Statements:
    """Stands for the database: each run waits until it is let through, and what it carried is kept."""

    def __init__(self) -> None:
        self.runs: list[list[int]] = []
        self.started = asyncio.Semaphore(0)
        self._gates: asyncio.Queue[None] = asyncio.Queue()

    async def run(self, calls: Sequence[int]) -> list[int | Exception]:
        self.runs.append(list(calls))
        self.started.release()
        await self._gates.get()
        if 666 in calls:
            raise Unavailable("the database is away")
        return [ValueError(f"bad {call}") if call < 0 else call * 10 for call in calls]

    def let_through(self, count: int = 1) -> None:
        for _ in range(count):
            self._gates.put_nowait(None)


def shared(
    statements: Statements, *, limit: int = 100, backlog: int = 1000, runs: int = 1
) -> Shared[int, int]:
    return Shared([partial(statements.run) for _ in range(runs)], lambda call: abs(call), limit, backlog)


async def in_flight(
    statements: Statements, actor: Shared[int, int], first: int, *later: int
) -> list[asyncio.Task[int]]:
    """`first` is in a statement, `later` wait for the next one."""
    tasks = [asyncio.create_task(actor(first))]
    await statements.started.acquire()
    for call in later:
        tasks.append(asyncio.create_task(actor(call)))
        await asyncio.sleep(0)
    return tasks


async def test_a_call_at_rest_goes_at_once_and_alone() -> None:
    statements = Statements()
    statements.let_through()

    assert await shared(statements)(1) == 10
    assert statements.runs == [[1]]


async def test_calls_made_meanwhile_share_the_next_statement_in_their_order() -> None:
    statements = Statements()
    tasks = await in_flight(statements, shared(statements), 1, 2, 3, 4)

    statements.let_through(2)

    assert await asyncio.gather(*tasks) == [10, 20, 30, 40]
    assert statements.runs == [[1], [2, 3, 4]]


async def _after(turns: int, actor: Shared[int, int], call: int) -> int:
    """A call that is on its way through so many turns of the loop."""
    for _ in range(turns):
        await asyncio.sleep(0)
    return await actor(call)


async def test_calls_still_on_their_way_when_a_statement_comes_back_share_the_next_one() -> None:
    statements = Statements()
    actor = shared(statements)
    tasks = await in_flight(statements, actor, 1, 2)

    statements.let_through(2)
    tasks += [asyncio.create_task(_after(turns, actor, call)) for turns, call in ((8, 3), (16, 4), (24, 5))]
    await asyncio.gather(*tasks)

    assert statements.runs == [[1], [2, 3, 4, 5]]


async def test_a_statement_waits_for_no_more_calls_when_enough_are_together() -> None:
    statements = Statements()
    actor = shared(statements, limit=1000)
    tasks = await in_flight(statements, actor, 1, 99, 1)

    statements.let_through(3)
    tasks.append(asyncio.create_task(_after(8, actor, 2)))
    await asyncio.gather(*tasks)

    assert statements.runs == [[1], [99, 1], [2]]


async def test_who_is_woken_by_a_statement_has_his_turn_before_the_next_one_begins() -> None:
    order: list[str] = []
    woken = asyncio.Event()

    async def run(calls: Sequence[int]) -> list[int | Exception]:
        order.append(f"statement of {calls[0]}")
        await asyncio.sleep(0)
        woken.set()
        return list(calls)

    async def wait() -> None:
        await woken.wait()
        order.append("woken")

    actor = Shared[int, int]([run], abs, limit=100)
    await asyncio.gather(wait(), actor(99), actor(100))

    assert order == ["statement of 99", "woken", "statement of 100"]


async def test_a_statement_carries_no_more_than_its_limit() -> None:
    statements = Statements()
    tasks = await in_flight(statements, shared(statements, limit=10), 1, 6, 4, 1)

    statements.let_through(3)
    await asyncio.gather(*tasks)

    assert statements.runs == [[1], [6, 4], [1]]


async def test_a_call_heavier_than_the_limit_goes_alone() -> None:
    statements = Statements()
    tasks = await in_flight(statements, shared(statements, limit=10), 1, 50, 2)

    statements.let_through(3)
    await asyncio.gather(*tasks)

    assert statements.runs == [[1], [50], [2]]


async def test_of_two_runs_the_second_starts_beside_the_first_only_for_a_whole_statement() -> None:
    statements = Statements()
    actor = shared(statements, limit=1000, runs=2)
    tasks = await in_flight(statements, actor, 1, 60)

    assert statements.runs == [[1]]

    tasks += [asyncio.create_task(actor(40))]
    await statements.started.acquire()

    assert statements.runs == [[1], [60, 40]]

    tasks += [asyncio.create_task(actor(200))]
    await asyncio.sleep(0)
    statements.let_through(3)

    assert await asyncio.gather(*tasks) == [10, 600, 400, 2000]
    assert statements.runs == [[1], [60, 40], [200]]


async def test_what_is_left_to_the_other_run_is_run_by_it() -> None:
    statements = Statements()
    actor = shared(statements, limit=1000, runs=2)
    tasks = await in_flight(statements, actor, 1, 100)
    await statements.started.acquire()
    tasks.append(asyncio.create_task(actor(2)))
    await asyncio.sleep(0)

    statements.let_through()
    await tasks[0]
    assert statements.runs == [[1], [100]]

    statements.let_through(2)
    assert await asyncio.gather(*tasks) == [10, 1000, 20]


async def test_an_answer_that_is_an_exception_is_raised_for_its_call_alone() -> None:
    statements = Statements()
    tasks = await in_flight(statements, shared(statements), 1, 2, -3, 4)

    statements.let_through(2)
    answers = await asyncio.gather(*tasks, return_exceptions=True)

    assert [answers[0], answers[1], answers[3]] == [10, 20, 40]
    assert isinstance(answers[2], ValueError)


async def test_a_statement_that_fails_fails_its_own_calls_and_no_later_ones() -> None:
    statements = Statements()
    tasks = await in_flight(statements, shared(statements, limit=700), 1, 666, 2, 99)

    statements.let_through(3)
    answers = await asyncio.gather(*tasks, return_exceptions=True)

    assert statements.runs == [[1], [666, 2], [99]]
    assert [type(answer) for answer in answers] == [int, Unavailable, Unavailable, int]


async def test_a_caller_that_has_gone_before_the_statement_is_not_in_it() -> None:
    statements = Statements()
    tasks = await in_flight(statements, shared(statements), 1, 2, 3)
    tasks[1].cancel()
    await asyncio.sleep(0)

    statements.let_through(2)

    assert [await tasks[0], await tasks[2]] == [10, 30]
    assert statements.runs == [[1], [3]]


async def test_a_caller_that_goes_during_the_statement_takes_nobody_with_it() -> None:
    statements = Statements()
    actor = shared(statements)
    tasks = await in_flight(statements, actor, 1, 2, 3)
    statements.let_through()
    await statements.started.acquire()
    tasks[1].cancel()

    statements.let_through()

    assert await tasks[2] == 30


async def test_too_large_a_backlog_is_refused_with_the_time_to_come_again() -> None:
    statements = Statements()
    actor = shared(statements, backlog=10)
    tasks = await in_flight(statements, actor, 1, 6, 4)

    with pytest.raises(LimitExceeded) as refused:
        await actor(1)

    assert refused.value.retry_after.total_seconds() > 0
    statements.let_through(2)
    assert await asyncio.gather(*tasks) == [10, 60, 40]


async def test_one_call_is_taken_however_heavy_when_nothing_waits() -> None:
    statements = Statements()
    statements.let_through()

    assert await shared(statements, backlog=10)(500) == 5000


async def test_closing_answers_what_waits_and_refuses_what_comes() -> None:
    statements = Statements()
    actor = shared(statements)
    tasks = await in_flight(statements, actor, 1, 2)
    closing = asyncio.create_task(actor.close())
    await asyncio.sleep(0)

    with pytest.raises(Unavailable):
        await actor(3)
    statements.let_through(2)
    await closing

    assert [task.result() for task in tasks] == [10, 20]


async def test_after_a_pause_it_runs_again() -> None:
    statements = Statements()
    actor = shared(statements)
    statements.let_through(2)

    assert (await actor(1), await actor(2)) == (10, 20)
