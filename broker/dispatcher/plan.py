"""Who may take how many from where in the next lease statement, and when that is due. Pure.

Queues of a stream strictly in their order: a stream waits at the first of its queues that may have jobs, but for those whose jobs, as far
as they are known, go to the streams before it. Streams at one queue share it by turns, one slot each, round after round. Where all of
them have the same queues, their share goes on to the queues behind it, so that a stream of many queues with few jobs each is not served
one job at a time.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
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
# After a statement that was not full the next one waits: this factor, times how much longer the broker was busy than idle meanwhile, times
# the share of slots that it left unused. With looks that are rarer, too, that gives 1.35 times the rate over 10 000 queues; in batches of
# 10 it gives 1.1 times the mixed lifecycles. 4 gives no more; if idle time is ignored, a few credits that go round lose a fifth (measured
# 2026-11).
_PAUSE_FACTOR = 2.0
_LONGEST_PAUSE_SECONDS = 0.01  # about as long as a full statement takes


class Share(NamedTuple):
    """What some streams take together: `quota` leases of `queues`, strictly in this order."""

    queues: tuple[str, ...]
    quota: int
    covers: bool = False
    """Whether that takes all that waits there, as far as can be known."""


class Plan(NamedTuple):
    """One lease statement: its lanes, its slots in order, the streams behind them, and what is taken from which queues."""

    lanes: list[Lane]
    slots: list[int]
    takers: list[Taker]
    shares: list[Share]


def pause_after(*, slots: int, most: int, took_seconds: float, busy_seconds: float) -> float:
    """Seconds, from its end, that the next statement waits after one of so many slots, where `most` were possible.

    So credits and jobs that come in one by one share a statement, and a message to each stream. `busy_seconds`: CPU time of the broker
    while it ran. A broker that was mostly idle does not wait, nor one whose statements are full.
    """
    idle_seconds = max(0.0, took_seconds - busy_seconds)
    seconds = _PAUSE_FACTOR * (busy_seconds - idle_seconds) * (1 - slots / most)
    return min(max(0.0, seconds), _LONGEST_PAUSE_SECONDS)


def make_plan(
    hungry: Iterable[LeaseStream],
    queues: Mapping[str, QueueLanes],
    giving: Set[str],
    most: int = LEASES_PER_STATEMENT,
    *,
    alone: bool = False,
) -> Plan | None:
    """The next statement, of at most `most` leases, for streams with credits, given in the order of their turns.

    `giving` are those of `queues` that may give. None where no queue may have jobs. A stream whose client does not read what it was sent
    is passed over. `alone`: no other broker puts jobs in, so that those that are known are all.
    """
    streams = list(hungry)
    plan = _plan_for(_streams_at(streams, queues, giving), queues, giving, most, alone)
    if plan is not None and len(plan.slots) >= most:
        # A queue may have fewer slots than known jobs: no stream goes on to its next one.
        plan = _plan_for(_streams_at(streams, queues, giving, strictly=True), queues, giving, most, alone)
    return plan


def _plan_for(
    waiting: Mapping[str, Sequence[LeaseStream]],
    queues: Mapping[str, QueueLanes],
    giving: Set[str],
    most: int,
    alone: bool,
) -> Plan | None:
    lanes: list[Lane] = []
    slots: list[int] = []
    takers: dict[int, Taker] = {}
    shares: list[Share] = []
    spoken_for = set(waiting)
    for queue, streams in waiting.items():
        first_slot = len(slots)
        room = most - first_slot
        if room <= 0:
            break
        sharing = those_in_turn(streams, room)
        turns = by_turns({stream.number: stream.credits for stream in sharing}, room)
        names = (queue, *_queues_behind(queue, sharing, queues, giving, spoken_for, len(turns) - 1))
        known = _known_to_wait(names, queues)
        covers = known is not None and known < len(turns) + alone
        if known is not None:
            # One slot more shows whether that was all. Other credits are left to jobs that come in meanwhile.
            del turns[known + 1 :]
        slots.extend(turns)
        quota = len(turns)
        share = Share(names, quota, covers)
        spoken_for.update(share.queues)
        shares.append(share)
        for rank, name in enumerate(share.queues):
            for priority, floor in queues[name].floors.items():
                lanes.append(Lane(name, priority, floor.start, quota, first_slot, rank))
        for stream in sharing:
            takers[stream.number] = taker_of(stream)
    return Plan(lanes, slots, list(takers.values()), shares) if lanes else None


def _streams_at(
    hungry: Iterable[LeaseStream],
    queues: Mapping[str, QueueLanes],
    giving: Set[str],
    *,
    strictly: bool = False,
) -> dict[str, list[LeaseStream]]:
    """The streams that wait at each queue: unless `strictly`, no more than jobs are known to wait there, as each takes one at least."""
    waiting: dict[str, list[LeaseStream]] = {}
    for stream in hungry:
        if stream.credits <= 0 or stream.is_full:
            continue
        for queue in filter(giving.__contains__, stream.queues):
            known = queues[queue].waiting
            if strictly or known is None or len(waiting.get(queue, ())) < known:
                waiting.setdefault(queue, []).append(stream)
                break
    return waiting


def _known_to_wait(names: Iterable[str], queues: Mapping[str, QueueLanes]) -> int | None:
    """How many jobs wait in these queues together, None where that of one cannot be told."""
    known = 0
    for name in names:
        if (waiting := queues[name].waiting) is None:
            return None
        known += waiting
    return known


def _queues_behind(
    head: str,
    sharing: Sequence[LeaseStream],
    queues: Mapping[str, QueueLanes],
    giving: Set[str],
    spoken_for: Set[str],
    most: int,
) -> list[str]:
    """Where those who share `head` take the rest of their quota: the next queues of all of them, at most `most`.

    None lies behind a queue that lately filled a share alone, nor behind one that others take from.
    """
    order = sharing[0].queues
    if any(stream.queues != order for stream in sharing):
        return []
    behind: list[str] = []
    last = head
    for name in order[order.index(head) + 1 :]:
        if len(behind) >= most or queues[last].filled_a_share:
            break
        if name not in giving:
            continue
        if name in spoken_for:
            break
        behind.append(name)
        last = name
    return behind


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
    slots: list[int] = []
    left = dict(credit)
    while left and len(slots) < room:
        numbers = list(left)
        rounds = min(*left.values(), (room - len(slots)) // len(numbers))
        if not rounds:
            return slots + numbers[: room - len(slots)]
        slots += numbers * rounds
        left = {number: most - rounds for number, most in left.items() if most > rounds}
    return slots
