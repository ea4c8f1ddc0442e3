"""Which jobs need not wait: those of a queue that is empty, as far as can be told, and for which a stream has credits. Pure.

What is taken so overtakes nothing that this broker knows of: where anything may wait, or a lease statement looks that may not take all that
waits, other jobs wait too. Only a statement that fails leaves older jobs behind.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile

from broker.dispatcher.lanes import QueueLanes
from broker.dispatcher.plan import STREAMS_PER_STATEMENT, by_turns, taker_of, those_in_turn
from broker.dispatcher.stream import LeaseStream
from broker.job import NewJob, Taker
from broker.store.promote import Offer, QueueOffer


def match(
    jobs: Sequence[NewJob], hungry: Iterable[LeaseStream], queues: Mapping[str, QueueLanes]
) -> list[int | None]:
    """For each job the number of the stream that takes it, None where it waits; empty where all do.

    Streams are given in the order of their turns; one that polls takes nothing so, nor one that waits at an earlier queue of its own.
    """
    empty = {name for name in {job.queue for job in jobs} if (lanes := queues.get(name)) and lanes.is_empty}
    wanted: dict[str, list[int]] = {}
    for index, job in enumerate(jobs):
        if job.queue in empty and not job.delay_seconds and job.run_at is None:
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
        left.update((number, credit[number] - taken) for number, taken in Counter(turns).items())
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


def make_offer(
    hungry: Iterable[LeaseStream], queues: Mapping[str, QueueLanes], most: int, limit: int
) -> Offer:
    """The slots for what becomes due, whichever jobs those are: `most` or more, one at least for each queue at whose head streams wait, but
    never more than `limit` (both 1 or more).

    Streams are given in the order of their turns. Where all who share slots have the same queues, their slots are also for the queues
    behind the first; like `match`, for none that lies behind one where jobs may wait.
    """
    waiting: dict[str, list[LeaseStream]] = {}
    closed: set[str] = set()
    for stream in filter(_is_free, hungry):
        head = stream.queues[0]
        if head in waiting:
            waiting[head].append(stream)
        elif head not in closed:
            if queues[head].is_empty:
                waiting[head] = [stream]
            else:
                closed.add(head)
    offered: list[QueueOffer] = []
    slots: list[int] = []
    takers: list[Taker] = []
    spoken_for = set(waiting)
    for head, streams in waiting.items():
        first_slot = len(slots)
        room = min(max(1, most // len(waiting)), limit - first_slot)
        if room <= 0:
            break
        sharing = those_in_turn(streams, room)
        slots.extend(by_turns({stream.number: stream.credits for stream in sharing}, room))
        takers.extend(map(taker_of, sharing))
        share = [head]
        if all(stream.queues == sharing[0].queues for stream in sharing):
            behind = sharing[0].queues[1:room]  # of more queues than slots, the first
            share += takewhile(lambda name: queues[name].is_empty and name not in spoken_for, behind)
        spoken_for.update(share)
        quota = len(slots) - first_slot
        offered += [QueueOffer(name, first_slot, quota, rank) for rank, name in enumerate(share)]
    return Offer(offered, slots, takers)


def _is_free(stream: LeaseStream) -> bool:
    """Whether it may take what it did not look for: one that polls takes only what it finds."""
    return stream.credits > 0 and not stream.polls and not stream.is_full
