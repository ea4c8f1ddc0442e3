"""Which new jobs need not wait: those of an empty queue for which a stream has credits."""

from datetime import UTC, datetime

from broker.dispatcher.lanes import Floor, QueueLanes
from broker.dispatcher.match import match
from broker.dispatcher.plan import STREAMS_PER_STATEMENT
from broker.dispatcher.stream import LeaseStream
from broker.job import NewJob


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
