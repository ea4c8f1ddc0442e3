"""Floors: no job is passed over for long, and no lease statement starts at the head of the lane without need."""

import pytest

from broker.dispatcher.lanes import Floor, QueueLanes
from broker.job import Arrival

MILLISECOND = 1 << 22


def lanes(**floors: int) -> QueueLanes:
    """A queue whose lanes are known: `p5=100` is priority 5 leased up to seq 100."""
    return QueueLanes("q", {int(name[1:]): Floor(seq) for name, seq in floors.items()})


def land(floor: Floor, *, exhausted: bool = True, settled: int = 0) -> None:
    """The statement in flight is back."""
    floor.landed(exhausted=exhausted, settled=settled)


def test_a_floor_rises_to_what_was_leased_and_never_sinks_by_it() -> None:
    floor = Floor()

    floor.passed(10)
    floor.passed(7)
    land(floor)

    assert floor.seq == 10


def test_a_job_that_arrives_behind_the_floor_lowers_it_to_just_before_that_job() -> None:
    queue = lanes(p0=100)

    queue.arrive(Arrival("q", 0, 40))

    assert queue.floors[0].seq == 39


def test_a_job_that_arrives_ahead_of_the_floor_leaves_it() -> None:
    queue = lanes(p0=100)

    queue.arrive(Arrival("q", 0, 200))

    assert queue.floors[0].seq == 100


def test_a_job_that_arrives_while_a_statement_is_in_flight_is_still_ahead_once_it_lands() -> None:
    queue = lanes(p0=100)
    queue.in_flight = True
    queue.arrive(Arrival("q", 0, 150))
    queue.arrive(Arrival("q", 0, 120))

    queue.floors[0].passed(200)  # the statement could not see 120 and 150
    land(queue.floors[0])

    assert queue.floors[0].seq == 119


def test_what_arrived_in_flight_is_forgotten_after_the_landing() -> None:
    floor = Floor(100)
    floor.arrive(120, in_flight=True)
    land(floor)

    floor.passed(300)
    land(floor)

    assert floor.seq == 300


def test_an_arrival_in_an_unknown_priority_opens_its_lane_from_the_head() -> None:
    queue = lanes(p0=100)

    queue.arrive(Arrival("q", 7, 500))

    assert queue.floors[7].seq == 0


def test_an_arrival_says_that_there_may_be_jobs() -> None:
    queue = QueueLanes("q", may_have_jobs=False)

    queue.arrive(Arrival("q", 0, 1))

    assert queue.may_have_jobs


def test_one_statement_reads_from_further_back_by_time() -> None:
    queue = lanes(p0=1000 * MILLISECOND, p1=100 * MILLISECOND)

    queue.set_back(500)

    assert {priority: floor.start for priority, floor in queue.floors.items()} == {0: 500 * MILLISECOND, 1: 0}


def test_a_floor_does_not_sink_however_often_an_idle_lane_is_looked_at() -> None:
    queue = lanes(p0=1000 * MILLISECOND)

    for _ in range(300):
        queue.set_back(500)
        land(queue.floors[0])

    assert queue.floors[0].start == 1000 * MILLISECOND


def test_an_exhausted_lane_rises_to_where_nothing_commits_any_more() -> None:
    floor = Floor(7)

    land(floor, settled=900)

    assert floor.start == 900


def test_a_statement_that_stopped_at_its_quota_goes_on_from_there() -> None:
    floor = Floor(1000)
    floor.set_back(0, in_flight=False)

    floor.passed(300)
    land(floor, exhausted=False, settled=900)

    assert floor.start == 300


def test_a_full_rewind_starts_at_the_head_of_every_lane() -> None:
    queue = lanes(p0=1000 * MILLISECOND, p1=7)

    queue.set_back(None)

    assert {floor.start for floor in queue.floors.values()} == {0}


@pytest.mark.parametrize("in_flight", [False, True])
def test_what_was_passed_over_is_read_again_at_the_next_two_rewinds_and_not_after_them(
    in_flight: bool,
) -> None:
    queue = lanes(p0=100)
    for _ in range(2):
        queue.reach_back()
        land(queue.floors[0])
    queue.floors[0].passed(900)
    land(queue.floors[0])

    starts = []
    for _ in range(3):
        queue.in_flight = in_flight
        queue.reach_back()
        if in_flight:
            land(queue.floors[0])
        starts.append(queue.floors[0].start)
        land(queue.floors[0])

    assert starts == [100, 100, 900]
    assert queue.floors[0].seq == 900


def test_a_lane_that_has_just_become_known_is_not_read_from_its_head_again() -> None:
    queue = lanes(p0=0)
    queue.floors[0].passed(900)
    land(queue.floors[0])

    queue.reach_back()

    assert queue.floors[0].start == 900


@pytest.mark.parametrize(
    ("news", "start"),
    [
        ("none", 900 * MILLISECOND),
        ("a job has come in", 0),
        ("it is to be looked at again", 0),
    ],
)
def test_what_was_looked_at_in_vain_is_not_read_again_unless_there_is_news(news: str, start: int) -> None:
    queue = lanes(p0=100 * MILLISECOND)
    queue.may_have_jobs, queue.explored = False, True
    queue.set_back(None)
    if news == "a job has come in":
        queue.arrive(Arrival("q", 0, 200 * MILLISECOND))
    elif news == "it is to be looked at again":
        queue.explored = False

    queue.found_empty(900 * MILLISECOND)

    assert queue.starts() == [("q", 0, start)]


def test_all_priorities_are_one_gap_while_no_lane_is_known() -> None:
    assert QueueLanes("q").gaps() == [("q", -101, 101)]


def test_gaps_leave_out_every_known_lane() -> None:
    assert lanes(p0=0, p1=0, p50=0).gaps() == [("q", -101, 0), ("q", 1, 50), ("q", 50, 101)]


def test_the_outermost_priorities_leave_no_gap_beyond_them() -> None:
    queue = QueueLanes("q", {-100: Floor(), 100: Floor()})

    assert queue.gaps() == [("q", -100, 100)]


def test_a_rewind_outlasts_the_statement_that_was_in_flight() -> None:
    queue = lanes(p0=1000 * MILLISECOND)
    queue.in_flight = True
    queue.set_back(500)

    queue.floors[0].passed(1100 * MILLISECOND)
    land(queue.floors[0])

    assert queue.floors[0].start == 500 * MILLISECOND


def test_a_queue_promises_jobs_until_it_was_looked_at() -> None:
    assert QueueLanes("q").promises
    assert not QueueLanes("q", explored=True).promises
    assert QueueLanes("q", {0: Floor()}, explored=True).promises
    assert not QueueLanes("q", {0: Floor()}, explored=True, may_have_jobs=False).promises


def looked_at() -> QueueLanes:
    """A queue in which nothing waits, as far as can be told."""
    return QueueLanes("q", {0: Floor()}, may_have_jobs=False, explored=True)


def arrived(queue: QueueLanes, jobs: int | None) -> QueueLanes:
    queue.arrive(Arrival("q", 0, 100, jobs))
    return queue


def test_jobs_that_come_to_an_empty_queue_are_counted() -> None:
    queue = arrived(looked_at(), 3)

    assert arrived(queue, 4).waiting == 7


@pytest.mark.parametrize(
    "queue",
    [
        arrived(lanes(p0=0), 3),
        arrived(arrived(looked_at(), 3), None),
        arrived(arrived(looked_at(), None), 3),
    ],
    ids=["not looked at", "then others", "others before"],
)
def test_what_waits_cannot_be_told_where_others_may_wait(queue: QueueLanes) -> None:
    assert queue.waiting is None


def test_what_waits_cannot_be_told_once_it_is_to_be_looked_at_again() -> None:
    queue = arrived(looked_at(), 3)

    queue.set_back(500)

    assert queue.waiting is None


def test_what_a_statement_leaves_waits_with_what_has_come_in_meanwhile() -> None:
    queue = arrived(looked_at(), 10)
    queue.depart(covered=False)
    arrived(queue, 2)

    queue.land(0, taken=6, exhausted=False)

    assert (queue.waiting, queue.promises) == (6, True)


def test_nothing_waits_once_a_statement_has_shown_that_it_took_all() -> None:
    queue = arrived(looked_at(), 10)
    queue.depart(covered=True)

    queue.land(0, taken=10, exhausted=True)

    assert (queue.waiting, queue.promises) == (0, False)


def test_nothing_waits_once_the_only_broker_has_taken_as_many_as_it_knew_of() -> None:
    queue = arrived(looked_at(), 10)
    queue.depart(covered=True)

    queue.land(0, taken=10, exhausted=False, alone=True)

    assert (queue.waiting, queue.promises) == (0, False)


@pytest.mark.parametrize("taken", [10, 11])
def test_where_a_statement_took_as_many_as_it_could_there_may_be_others_than_the_known(taken: int) -> None:
    queue = arrived(looked_at(), 10)
    queue.depart(covered=False)

    queue.land(0, taken=taken, exhausted=False)

    assert (queue.waiting, queue.promises) == (None, True)


def test_how_many_wait_cannot_be_told_where_another_broker_takes_some_at_the_same_time() -> None:
    queue = arrived(looked_at(), 10)
    queue.depart(covered=False)

    queue.land(0, taken=None, exhausted=False, alone=True)

    assert (queue.waiting, queue.promises) == (None, True)


def test_a_queue_of_which_a_statement_took_all_is_empty_but_for_what_has_come_in_meanwhile() -> None:
    queue = lanes(p0=0)
    queue.explored = True
    queue.depart(covered=False)
    arrived(queue, 2)

    queue.land(0, taken=5, exhausted=True)

    assert (queue.waiting, queue.promises) == (2, True)


def test_whatever_a_statement_that_failed_was_to_take_may_still_wait() -> None:
    queue = arrived(looked_at(), 10)
    queue.depart(covered=True)

    queue.crash()

    assert (queue.waiting, queue.promises, queue.is_empty) == (None, True, False)


@pytest.mark.parametrize("covered", [True, False])
def test_a_queue_is_empty_while_a_statement_takes_all_that_waits(covered: bool) -> None:
    queue = arrived(looked_at(), 10)

    queue.depart(covered=covered)

    assert queue.is_empty == covered
    assert not arrived(queue, 1).is_empty


def test_a_queue_is_among_those_that_give_just_while_it_may_give() -> None:
    queue = QueueLanes("q", explored=True)
    seen = [(queue.may_give, queue.giving == {"q"})]

    def note() -> None:
        seen.append((queue.may_give, queue.giving == {"q"}))

    queue.find(0)
    note()
    queue.depart(covered=True)
    note()
    queue.land(0, taken=5, exhausted=True)
    note()
    arrived(queue, 1)
    note()
    queue.depart(covered=False)
    queue.land(0, taken=1, exhausted=True)
    note()
    arrived(queue, 2)
    queue.depart(covered=False)
    queue.land(0, taken=1, exhausted=False)
    note()
    queue.depart(covered=False)
    queue.crash()
    note()

    assert [may_give for may_give, _ in seen] == [False, True, False, False, True, False, True, True]
    assert all(may_give == among for may_give, among in seen)
