"""Who may take how many from where in the next lease statement. Pure.

Queues of a stream strictly in their order: a stream waits at the first of its queues that may have jobs. Streams at one queue share
it by turns, one slot each, round after round.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from broker.dispatcher.lanes import QueueLanes
from broker.dispatcher.stream import LeaseStream
from broker.job import Taker
from broker.store.grant import Lane

# Leases of one statement: at 500 its cost per lease is near its least, and it still takes only some 10 ms (measured 2026-11).
LEASES_PER_STATEMENT = 500
# Streams that share one statement at one queue, where these can take all that it gives; the others have their turn in the next ones. With a
# thousand streams in each, every lease was a message, and a Complete of its own: 500 lifecycles/s (measured 2026-11).
STREAMS_PER_STATEMENT = 50


class Plan(NamedTuple):
    """One lease statement: its lanes, its slots in order, the streams behind them, and how many each queue may give."""

    lanes: list[Lane]
    slots: list[int]
    takers: list[Taker]
    quotas: dict[str, int]


def make_plan(
    hungry: Iterable[LeaseStream], queues: Mapping[str, QueueLanes], most: int = LEASES_PER_STATEMENT
) -> Plan | None:
    """The next statement, of at most `most` leases, for streams with credits, given in the order of their turns.

    None where no queue may have jobs. A stream whose client does not read what it was sent is passed over.
    """
    waiting: dict[str, list[LeaseStream]] = {}
    for stream in hungry:
        if stream.is_full or stream.credits <= 0:
            continue
        for queue in stream.queues:
            if queues[queue].may_have_jobs and queues[queue].floors:
                waiting.setdefault(queue, []).append(stream)
                break
    lanes: list[Lane] = []
    slots: list[int] = []
    takers: dict[int, Taker] = {}
    quotas: dict[str, int] = {}
    for queue, streams in waiting.items():
        room = most - len(slots)
        if room <= 0:
            break
        first_slot = len(slots)
        sharing = those_in_turn(streams, room)
        slots.extend(by_turns({stream.number: stream.credits for stream in sharing}, room))
        quotas[queue] = len(slots) - first_slot
        for priority, floor in queues[queue].floors.items():
            lanes.append(Lane(queue, priority, floor.start, quotas[queue], first_slot))
        for stream in sharing:
            takers[stream.number] = taker_of(stream)
    return Plan(lanes, slots, list(takers.values()), quotas) if lanes else None


def taker_of(stream: LeaseStream) -> Taker:
    """The stream as a lease statement sees it."""
    return Taker(stream.number, stream.worker_id, stream.lease_seconds)


def those_in_turn(streams: Sequence[LeaseStream], room: int) -> Sequence[LeaseStream]:
    """The first of `streams` that share `room` slots: all of them, or as many as are enough and can use it up."""
    left = room
    for count, stream in enumerate(streams, 1):
        left -= stream.credits
        if left <= 0 and count >= STREAMS_PER_STATEMENT:
            return streams[:count]
    return streams


def by_turns(credit: Mapping[int, int], room: int) -> list[int]:
    """Stream numbers, one of each in turn, as often as it has credits (1 or more), at most `room`."""
    if len(credit) == 1:
        ((number, most),) = credit.items()
        return [number] * min(room, most)
    slots: list[int] = []
    credit_left = dict(credit)
    while credit_left and len(slots) < room:
        for number in list(credit_left)[: room - len(slots)]:
            slots.append(number)
            credit_left[number] -= 1
            if credit_left[number] == 0:
                del credit_left[number]
    return slots
