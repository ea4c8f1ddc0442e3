"""Which new jobs need not wait: those of a queue that is empty, as far as can be told, and for which a stream has credits. Pure.

What is put in so overtakes nothing that this broker knows of: where anything may wait, or a lease statement looks, new jobs wait too.
"""

from collections.abc import Iterable, Mapping, Sequence

from broker.dispatcher.lanes import QueueLanes
from broker.dispatcher.plan import STREAMS_PER_STATEMENT, by_turns
from broker.dispatcher.stream import LeaseStream
from broker.job import NewJob


def match(
    jobs: Sequence[NewJob], hungry: Iterable[LeaseStream], queues: Mapping[str, QueueLanes]
) -> list[int | None]:
    """For each job the number of the stream that takes it, None where it waits; empty where all do.

    Streams are given in the order of their turns; one that polls takes nothing so, nor one that waits at an earlier queue of its own.
    """
    wanted: dict[str, list[int]] = {}
    for index, job in enumerate(jobs):
        lanes = queues.get(job.queue)
        if lanes is not None and lanes.is_empty and not job.delay_seconds and job.run_at is None:
            wanted.setdefault(job.queue, []).append(index)
    slots: list[int | None] = []
    left: dict[int, int] = {}  # credits of streams that take from several queues
    for queue, streams in _streams_of(wanted, hungry, queues).items():
        if not slots:
            slots = [None] * len(jobs)
        indices = wanted[queue]
        credit = {
            stream.number: most for stream in streams if (most := left.get(stream.number, stream.credits)) > 0
        }
        turns = by_turns(credit, len(indices))
        if len(turns) < len(indices):
            indices.sort(key=lambda index: -jobs[index].priority)
        for index, number in zip(indices, turns, strict=False):
            slots[index] = number
            left[number] = left.get(number, credit[number]) - 1
    return slots


def _streams_of(
    wanted: Mapping[str, Sequence[int]], hungry: Iterable[LeaseStream], queues: Mapping[str, QueueLanes]
) -> dict[str, list[LeaseStream]]:
    """The streams for each queue, no more than it has jobs for, nor than are enough to take them by turns."""
    found: dict[str, list[LeaseStream]] = {}
    missing = {queue: len(indices) for queue, indices in wanted.items()}  # jobs without a credit
    for stream in hungry:
        if not missing:
            break
        if stream.credits <= 0 or stream.polls or stream.is_full:
            continue
        for queue in stream.queues:
            if queue in missing:
                sharing = found.setdefault(queue, [])
                sharing.append(stream)
                missing[queue] -= stream.credits
                if missing[queue] <= 0 and len(sharing) >= min(len(wanted[queue]), STREAMS_PER_STATEMENT):
                    del missing[queue]
            if not queues[queue].is_empty:
                break
    return found
