"""Which jobs need not wait: those of an empty queue for which a stream has credits."""

from datetime import UTC, datetime

from broker.dispatcher.lanes import Floor, QueueLanes
from broker.dispatcher.match import make_offer, match
from broker.dispatcher.plan import STREAMS_PER_STATEMENT
from broker.dispatcher.stream import LeaseStream
from broker.job import NewJob
from broker.store.promote import Offer, QueueOffer


def stream(number: int, *queues: str, credit: int = 10) -> LeaseStream:
    return LeaseStream(number, f"worker-{number}", queues, 30.0, credits=credit)


def job(queue: str = "q", priority: int = 0) -> NewJob:
    return NewJob(queue, "task", "{}", priority=priority)


def empty(name: str) -> QueueLanes:
    return QueueLanes(name, {0: Floor()}, may_have_jobs=False, explored=True)


def matched(jobs: list[NewJob], streams: list[LeaseStream], *queues: QueueLanes) -> list[int | None]:
    return match(jobs, streams, {lanes.name: lanes for lanes in queues or (empty("q"),)})


def test_a_job_for_which_a_stream_waits_is_taken() -> None:
    assert matched([job()], [stream(1, "q")]) == [1]


def test_a_job_waits_where_nobody_subscribes_to_its_queue() -> None:
    assert matched([job("other")], [stream(1, "q")]) == []
    assert matched([job("b")], [stream(1, "a")], empty("a"), empty("b")) == []


def test_a_job_overtakes_none_that_may_wait() -> None:
    waiting = QueueLanes("q", {0: Floor()}, may_have_jobs=True, explored=True)
    assert matched([job()], [stream(1, "q")], waiting) == []


def test_a_job_overtakes_none_in_a_queue_that_was_not_looked_at() -> None:
    unknown = QueueLanes("q", may_have_jobs=False)
    assert matched([job()], [stream(1, "q")], unknown) == []


def test_a_job_overtakes_none_that_a_statement_may_find() -> None:
    in_flight = empty("q")
    in_flight.in_flight = True
    assert matched([job()], [stream(1, "q")], in_flight) == []


def test_a_job_need_not_wait_for_a_statement_that_takes_all_that_waits() -> None:
    emptied = empty("q")
    emptied.in_flight = emptied.covered = True
    assert matched([job()], [stream(1, "q")], emptied) == [1]


def test_a_job_for_a_later_time_waits() -> None:
    later = [job()._replace(delay_seconds=5.0), job()._replace(run_at=datetime(2030, 1, 1, tzinfo=UTC))]
    assert matched(later, [stream(1, "q")]) == []
    assert matched([*later, job()], [stream(1, "q")]) == [None, None, 1]


def test_a_delay_of_nothing_is_no_delay() -> None:
    assert matched([job()._replace(delay_seconds=0.0)], [stream(1, "q")]) == [1]


def test_a_stream_takes_no_more_than_its_credits() -> None:
    assert matched([job()] * 3, [stream(1, "q", credit=2)]) == [1, 1, None]
    assert matched([job()], [stream(1, "q", credit=0)]) == []


def test_the_credits_of_a_stream_are_spent_once_whatever_the_queues() -> None:
    both = stream(1, "a", "b", credit=1)
    assert matched([job("a"), job("b")], [both], empty("a"), empty("b")) == [1, None]


def test_where_credits_are_short_the_highest_priority_goes_first_then_the_first() -> None:
    jobs = [job(priority=0), job(priority=5), job(priority=5), job(priority=9)]
    assert matched(jobs, [stream(1, "q", credit=2)]) == [None, 1, None, 1]


def test_streams_take_by_turns() -> None:
    assert matched([job()] * 5, [stream(1, "q", credit=1), stream(2, "q"), stream(3, "q")]) == [1, 2, 3, 2, 3]


def test_a_crowd_of_streams_takes_a_batch_in_handfuls() -> None:
    crowd = [stream(number, "q", credit=10) for number in range(1000)]
    assert matched([job()] * 500, crowd) == [*range(STREAMS_PER_STATEMENT)] * 10


def test_streams_of_few_credits_are_as_many_as_it_takes() -> None:
    crowd = [stream(number, "q", credit=1) for number in range(1000)]
    assert matched([job()] * 500, crowd) == [*range(500)]


def test_few_jobs_go_to_a_stream_each() -> None:
    crowd = [stream(number, "q", credit=10) for number in range(1000)]
    assert matched([job()] * 20, crowd) == [*range(20)]


def test_a_stream_waits_at_the_first_of_its_queues_that_may_have_jobs() -> None:
    waiting = QueueLanes("a", {0: Floor()}, may_have_jobs=True, explored=True)
    assert matched([job("b")], [stream(1, "a", "b")], waiting, empty("b")) == []
    assert matched([job("b")], [stream(1, "b", "a")], waiting, empty("b")) == [1]


def test_a_stream_that_polls_takes_only_what_waits() -> None:
    polling = stream(1, "q")
    polling.polls = True
    assert matched([job()], [polling]) == []


def test_a_stream_whose_client_does_not_read_takes_nothing() -> None:
    full = stream(1, "q")
    full.unsent_bytes = 1 << 30
    assert matched([job()], [full]) == []


def offered(streams: list[LeaseStream], *queues: QueueLanes, most: int = 4, limit: int = 500) -> Offer:
    return make_offer(streams, {lanes.name: lanes for lanes in queues or (empty("q"),)}, most, limit)


def test_slots_for_what_becomes_due_go_by_turns_to_those_who_wait() -> None:
    offer = offered([stream(1, "q"), stream(2, "q", credit=1)])
    assert offer.queues == [QueueOffer("q", first_slot=0, quota=4, rank=0)]
    assert offer.slots == [1, 2, 1, 1]
    assert [taker.worker_id for taker in offer.takers] == ["worker-1", "worker-2"]


def test_there_are_no_slots_for_a_queue_where_jobs_may_wait_nor_for_those_behind_it() -> None:
    waiting = QueueLanes("b", {0: Floor()}, may_have_jobs=True, explored=True)
    assert offered([stream(1, "b", "a")], empty("a"), waiting).queues == []
    offer = offered([stream(1, "a", "b", "c")], empty("a"), waiting, empty("c"))
    assert [queue.queue for queue in offer.queues] == ["a"]


def test_those_who_cannot_take_at_once_have_no_slots() -> None:
    polling = stream(1, "q")
    polling.polls = True
    full = stream(2, "q")
    full.unsent_bytes = 1 << 30
    assert offered([polling, full, stream(3, "q", credit=0)]) == Offer([], [], [])


def test_streams_with_the_same_queues_share_slots_for_all_of_them() -> None:
    offer = offered([stream(1, "a", "b"), stream(2, "a", "b")], empty("a"), empty("b"))
    assert offer.queues == [QueueOffer("a", 0, 4, rank=0), QueueOffer("b", 0, 4, rank=1)]
    assert offer.slots == [1, 2, 1, 2]


def test_the_slots_of_a_queue_are_of_those_who_wait_there_first() -> None:
    offer = offered([stream(1, "a", "b"), stream(2, "b")], empty("a"), empty("b"))
    assert offer.queues == [QueueOffer("a", 0, 2, 0), QueueOffer("b", 2, 2, 0)]
    assert offer.slots == [1, 1, 2, 2]


def test_streams_with_other_queues_behind_share_slots_only_for_the_first() -> None:
    offer = offered([stream(1, "a", "b"), stream(2, "a", "c")], empty("a"), empty("b"), empty("c"))
    assert offer.queues == [QueueOffer("a", 0, 4, 0)]


def test_each_queue_that_is_waited_at_has_a_slot_however_many_wait_elsewhere() -> None:
    crowd = [stream(number, "a") for number in range(100)]
    offer = offered([*crowd, stream(200, "b")], empty("a"), empty("b"))
    assert [queue.queue for queue in offer.queues] == ["a", "b"]
    assert 200 in offer.slots


def test_there_are_no_more_slots_than_may_be() -> None:
    crowd = [stream(number, f"q{number}") for number in range(1, 101)]
    queues = [empty(f"q{number}") for number in range(1, 101)]
    assert len(offered(crowd, *queues, most=4).slots) == 100
    limited = offered(crowd, *queues, most=4, limit=10)
    assert len(limited.slots) == len(limited.queues) == len(limited.takers) == 10


def test_there_are_no_more_queues_than_slots() -> None:
    many = [f"q{number}" for number in range(10)]
    offer = offered([stream(1, *many)], *map(empty, many))
    assert [queue.queue for queue in offer.queues] == many[:4]
