"""Who may take how many from where: queues strictly in a stream's order, streams at one queue by turns."""

import pytest

from broker.dispatcher.lanes import Floor, QueueLanes
from broker.dispatcher.plan import (
    LEASES_PER_STATEMENT,
    STREAMS_PER_STATEMENT,
    Plan,
    Share,
    by_turns,
    make_plan,
    pause_after,
)
from broker.dispatcher.stream import LeaseStream


def stream(number: int, *queues: str, credit: int = 10) -> LeaseStream:
    return LeaseStream(number, f"worker-{number}", queues, 30.0, credits=credit)


def queue(name: str, *priorities: int, jobs: bool = True, deep: bool = False) -> QueueLanes:
    floors = {priority: Floor(priority + 1000) for priority in priorities}
    return QueueLanes(name, floors, may_have_jobs=jobs, filled_a_share=deep)


def known(name: str, waiting: int) -> QueueLanes:
    """A queue in which so many jobs wait."""
    return QueueLanes(name, {0: Floor()}, explored=True, waiting=waiting)


def shallow(*names: str) -> list[QueueLanes]:
    """Queues that lately did not fill a share."""
    return [queue(name, 0) for name in names]


def plan_for(streams: list[LeaseStream], *queues: QueueLanes) -> Plan | None:
    giving = {lanes.name for lanes in queues if lanes.may_give}
    return make_plan(streams, {lanes.name: lanes for lanes in queues}, giving)


def planned(streams: list[LeaseStream], *queues: QueueLanes) -> Plan:
    plan = plan_for(streams, *queues)
    assert plan is not None
    return plan


@pytest.mark.parametrize(
    ("credit", "room", "slots"),
    [
        ({}, 5, []),
        ({1: 3}, 0, []),
        ({1: 3}, 2, [1, 1]),
        ({1: 3}, 5, [1, 1, 1]),
        ({1: 2, 2: 2}, 3, [1, 2, 1]),
        ({1: 1, 2: 3, 3: 2}, 10, [1, 2, 3, 2, 3, 2]),
        ({1: 1, 2: 3, 3: 2}, 4, [1, 2, 3, 2]),
        ({1: 9, 2: 9, 3: 9}, 2, [1, 2]),
    ],
)
def test_streams_are_named_in_turn_as_often_as_they_have_credits(
    credit: dict[int, int], room: int, slots: list[int]
) -> None:
    assert by_turns(credit, room) == slots


def test_nothing_is_planned_for_nobody() -> None:
    assert plan_for([], queue("q", 0)) is None


def test_nothing_is_planned_while_no_queue_may_have_jobs() -> None:
    assert plan_for([stream(1, "q")], queue("q", 0, jobs=False)) is None


def test_nothing_is_planned_while_no_lane_is_known() -> None:
    assert plan_for([stream(1, "q")], queue("q")) is None


def test_a_stream_waits_at_the_first_of_its_queues_that_may_have_jobs() -> None:
    plan = planned([stream(1, "a", "b", "c")], queue("a", 0, jobs=False), queue("b", 0), queue("c", 0))

    assert plan.shares == [Share(("b", "c"), 10)]


def test_every_known_priority_of_a_queue_is_looked_at_from_behind_its_floor() -> None:
    plan = planned([stream(1, "q", credit=3)], queue("q", 5, -5))

    assert [(lane.priority, lane.floor, lane.quota, lane.first_slot) for lane in plan.lanes] == [
        (5, 1005, 3, 0),
        (-5, 995, 3, 0),
    ]


def test_a_stream_takes_no_more_than_its_credits() -> None:
    plan = planned([stream(1, "q", credit=4)], queue("q", 0))

    assert plan.slots == [1, 1, 1, 1]
    assert plan.shares == [Share(("q",), 4)]


def test_streams_at_one_queue_take_turns_until_their_credits_are_used() -> None:
    plan = planned(
        [stream(2, "q", credit=1), stream(1, "q", credit=3), stream(3, "q", credit=2)], queue("q", 0)
    )

    assert plan.slots == [2, 1, 3, 1, 3, 1]


def test_of_a_crowd_of_streams_those_share_a_statement_whose_turn_it_is() -> None:
    crowd = [stream(number, "q", credit=10) for number in range(1000)]

    plan = planned(crowd, queue("q", 0))

    assert plan.slots == [*range(STREAMS_PER_STATEMENT)] * 10
    assert [taker.stream for taker in plan.takers] == [*range(STREAMS_PER_STATEMENT)]


def test_each_queue_has_slots_of_its_own() -> None:
    plan = planned([stream(1, "a", credit=2), stream(2, "b", credit=3)], queue("a", 0), queue("b", 0))

    assert plan.slots == [1, 1, 2, 2, 2]
    assert {lane.queue: (lane.first_slot, lane.quota) for lane in plan.lanes} == {"a": (0, 2), "b": (2, 3)}


def test_the_takers_are_those_streams_that_have_slots_to_take() -> None:
    plan = planned([stream(1, "a"), stream(2, "b")], queue("a", 0), queue("b", 0, jobs=False))

    assert [(taker.stream, taker.worker_id, taker.lease_seconds) for taker in plan.takers] == [
        (1, "worker-1", 30.0)
    ]


@pytest.mark.parametrize("streams", [1, 2, 7, LEASES_PER_STATEMENT, LEASES_PER_STATEMENT + 100])
def test_a_statement_is_bounded_however_many_want(streams: int) -> None:
    plan = planned([stream(number, "q", credit=10_000) for number in range(streams)], queue("q", 0))

    assert len(plan.slots) == LEASES_PER_STATEMENT


def test_where_there_are_more_streams_than_slots_those_in_front_go_first() -> None:
    streams = [stream(number, "q", credit=1) for number in range(LEASES_PER_STATEMENT + 5)]

    assert planned(streams, queue("q", 0)).slots == list(range(LEASES_PER_STATEMENT))


def test_a_queue_for_which_no_slot_is_left_waits_for_the_next_statement() -> None:
    plan = planned(
        [stream(1, "a", credit=LEASES_PER_STATEMENT), stream(2, "b")], queue("a", 0), queue("b", 0)
    )

    assert plan.shares == [Share(("a",), LEASES_PER_STATEMENT)]


def test_a_stream_takes_from_the_next_of_its_queues_what_the_first_may_lack() -> None:
    plan = planned([stream(1, "a", "b", "c", credit=3)], *shallow("a", "b", "c"))

    assert plan.shares == [Share(("a", "b", "c"), 3)]
    assert plan.slots == [1, 1, 1]
    assert [(lane.queue, lane.quota, lane.first_slot, lane.rank) for lane in plan.lanes] == [
        ("a", 3, 0, 0),
        ("b", 3, 0, 1),
        ("c", 3, 0, 2),
    ]


def test_a_queue_that_filled_a_share_alone_is_the_last_of_the_next_one() -> None:
    plan = planned([stream(1, "a", "deep", "c")], *shallow("a", "c"), queue("deep", 0, deep=True))

    assert plan.shares == [Share(("a", "deep"), 10)]


def test_a_share_has_no_more_queues_than_jobs() -> None:
    plan = planned([stream(1, "a", "b", "c", credit=2)], *shallow("a", "b", "c"))

    assert plan.shares == [Share(("a", "b"), 2)]


def test_a_share_passes_over_queues_without_jobs() -> None:
    plan = planned([stream(1, "a", "b", "c")], *shallow("a", "c"), queue("b", 0, jobs=False))

    assert plan.shares == [Share(("a", "c"), 10)]


def test_no_two_shares_have_a_queue_in_common() -> None:
    plan = planned([stream(1, "a", "b", "c"), stream(2, "b", "c")], *shallow("a", "b", "c"))

    assert plan.shares == [Share(("a",), 10), Share(("b", "c"), 10)]


def test_streams_with_the_same_queues_share_all_of_them_by_turns() -> None:
    plan = planned(
        [stream(1, "a", "b", credit=2), stream(2, "a", "b", credit=2)],
        *shallow("a", "b"),
    )

    assert plan.shares == [Share(("a", "b"), 4)]
    assert plan.slots == [1, 2, 1, 2]


def test_streams_with_different_queues_share_only_the_one_at_which_they_meet() -> None:
    plan = planned([stream(1, "a", "b"), stream(2, "a", "c")], *shallow("a", "b", "c"))

    assert plan.shares == [Share(("a",), 20)]


def test_known_jobs_have_a_slot_each_and_one_more_that_shows_whether_they_are_all() -> None:
    plan = planned([stream(1, "q"), stream(2, "q")], known("q", 3))

    assert plan.shares == [Share(("q",), 4, covers=True)]
    assert plan.slots == [1, 2, 1, 2]


def test_known_jobs_for_which_there_are_too_few_credits_are_not_covered() -> None:
    assert planned([stream(1, "q", credit=4)], known("q", 3)).shares == [Share(("q",), 4, covers=True)]
    assert planned([stream(1, "q", credit=3)], known("q", 3)).shares == [Share(("q",), 3, covers=False)]
    assert planned([stream(1, "q", credit=2)], known("q", 3)).shares == [Share(("q",), 2, covers=False)]


def test_a_share_has_slots_for_the_known_jobs_of_all_its_queues() -> None:
    plan = planned([stream(1, "a", "b", "c")], known("a", 2), known("b", 3), known("c", 1))

    assert plan.shares == [Share(("a", "b", "c"), 7, covers=True)]


def test_all_credits_are_used_where_a_queue_of_the_share_may_have_any_number() -> None:
    plan = planned([stream(1, "a", "b")], known("a", 2), *shallow("b"))

    assert plan.shares == [Share(("a", "b"), 10)]


def test_no_more_streams_wait_at_a_queue_than_it_has_known_jobs_the_others_go_on_to_their_next() -> None:
    streams = [stream(1, "a", "b"), stream(2, "a", "b"), stream(3, "a", "b"), stream(4, "a")]

    plan = planned(streams, known("a", 2), known("b", 5))

    assert plan.shares == [Share(("a",), 3, covers=True), Share(("b",), 6, covers=True)]
    assert plan.slots == [1, 2, 1, *[3] * 6]


def test_no_stream_goes_on_to_its_next_queue_where_there_are_too_few_slots_for_all() -> None:
    streams = [stream(1, "b", credit=1), stream(2, "a", credit=1), stream(3, "a", credit=1)]
    passing = stream(4, "a", "b", credit=1)
    queues = {lanes.name: lanes for lanes in (known("a", 2), known("b", 5))}

    plan = make_plan([*streams, passing], queues, set(queues), most=2)

    assert plan is not None
    assert plan.slots == [1, 2]


def test_the_only_broker_covers_known_jobs_by_as_many_slots() -> None:
    plan = make_plan([stream(1, "q", credit=3)], {"q": known("q", 3)}, {"q"}, alone=True)

    assert plan is not None
    assert plan.shares == [Share(("q",), 3, covers=True)]


@pytest.mark.parametrize(
    ("slots", "took_seconds", "busy_seconds", "seconds"),
    [
        (500, 0.004, 0.004, 0.0),  # a full one
        (250, 0.004, 0.004, 0.004),
        (250, 0.004, 0.003, 0.002),
        (250, 0.004, 0.005, 0.005),  # by two threads
        (5, 0.001, 0.001, 0.00198),
        (5, 0.004, 0.001, 0.0),  # the broker was idle for longer
        (5, 4.0, 4.0, 0.01),  # however long a statement was held up
    ],
)
def test_a_small_statement_of_a_busy_broker_has_the_next_one_wait(
    slots: int, took_seconds: float, busy_seconds: float, seconds: float
) -> None:
    waits = pause_after(slots=slots, most=500, took_seconds=took_seconds, busy_seconds=busy_seconds)

    assert waits == pytest.approx(seconds)
