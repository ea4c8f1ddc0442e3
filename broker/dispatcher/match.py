"""Which jobs need not wait: those of a queue that is empty, as far as can be told, and for which a stream has credits. Pure.

What is taken so overtakes nothing that this broker knows of: where anything may wait, or a lease statement looks, other jobs wait too.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice, takewhile

from broker.dispatcher.lanes import QueueLanes
from broker.dispatcher.plan import STREAMS_PER_STATEMENT, by_turns, taker_of, those_in_turn
from broker.dispatcher.stream import LeaseStream
from broker.job import NewJob, Taker
from broker.store.promote import Offer, OfferedQueue


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
        if not _is_free(stream):
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


def make_offer(hungry: Iterable[LeaseStream], queues: Mapping[str, QueueLanes], most: int) -> Offer:
    """Who takes at once what becomes due, whichever jobs those are: `most` slots (1 or more), shared between the queues that are waited at.

    Streams are given in the order of their turns; no more than `most` take part. Each waits at its first queue, and takes from those
    behind it as long as all who wait there have them in the same order; like `match`, from none that lies behind one where jobs may wait.
    """
    waiting: dict[str, list[LeaseStream]] = {}
    open_to: dict[int, tuple[str, ...]] = {}  # by stream
    for stream in islice(filter(_is_free, hungry), most):
        if queues[stream.queues[0]].is_empty:
            open_to[stream.number] = tuple(takewhile(lambda name: queues[name].is_empty, stream.queues))
            waiting.setdefault(stream.queues[0], []).append(stream)
    offered: list[OfferedQueue] = []
    slots: list[int] = []
    takers: list[Taker] = []
    spoken_for = set(waiting)
    for head, streams in waiting.items():
        first_slot = len(slots)
        room = min(most - first_slot, max(1, most // len(waiting)))
        if room <= 0:
            break
        sharing = those_in_turn(streams, room)
        slots.extend(by_turns({stream.number: stream.credits for stream in sharing}, room))
        takers.extend(map(taker_of, sharing))
        order = open_to[sharing[0].number]
        behind: Iterable[str] = ()
        if all(open_to[stream.number] == order for stream in sharing):
            behind = takewhile(lambda name: name not in spoken_for, order[1:])
        share = (head, *behind)
        spoken_for.update(share)
        offered += [
            OfferedQueue(name, first_slot, len(slots) - first_slot, rank) for rank, name in enumerate(share)
        ]
    return Offer(offered, slots, takers)


def _is_free(stream: LeaseStream) -> bool:
    """Whether it may take what it did not look for: one that polls takes only what it finds."""
    return stream.credits > 0 and not stream.polls and not stream.is_full
