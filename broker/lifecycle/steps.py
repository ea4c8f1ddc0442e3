"""What the end of a step's attempt means: complete, fail, release, give back and expire for the jobs of executions.

Apart from the verbs of plain jobs, so that rendering never holds those up; what follows in the execution commits with the verb.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from broker.batching import Shared
from broker.errors import RepriseError
from broker.job import Delivery, Outcome
from broker.lifecycle.action_rows import failure_json
from broker.lifecycle.complete import Result, completed_before, ends_of, weigh_results
from broker.lifecycle.fail import FailAnswer, FailedResult, announce, answer_again, answers_of, weigh_failures
from broker.lifecycle.judge import Judge, Judged, Reported, expiry_of, undeliverable
from broker.lifecycle.release import BY_BREAK, BY_WORKER, RETURNS_UNTIL_DECIDED, unreceived
from broker.lifecycle.signals import Signals
from broker.lifecycle.tokens import LeaseRef
from broker.lifecycle.turns import Turn, Turns, TurnTooLong
from broker.policy.decision import Failure, Verdict
from broker.store import executions as store
from broker.store.cancel import cancel_waiting
from broker.store.events import EventKind
from broker.store.executions import StepEvent
from broker.store.finish import Completion, Ended, Facts, complete, facts, fail, release

_log = logging.getLogger(__name__)
_ITEMS_PER_TRANSACTION = 200

_Call = TypeVar("_Call")
_Answer = TypeVar("_Answer")


class Steps:
    """The verbs; calls that come while the session is busy share the next transaction."""

    def __init__(self, turns: Turns, judge: Judge, signals: Signals) -> None:
        self._turns = turns
        self._session = turns.session
        self._judge = judge
        self._signals = signals
        self._complete: Shared[Sequence[Result], list[Outcome]] = Shared(
            [_one_bad_alone(self._complete_all)], weigh_results, _ITEMS_PER_TRANSACTION
        )
        self._fail: Shared[Sequence[FailedResult], list[FailAnswer]] = Shared(
            [_one_bad_alone(self._fail_all)], weigh_failures, _ITEMS_PER_TRANSACTION
        )

    async def complete(self, results: Sequence[Result]) -> list[Outcome]:
        """OK or LOST for each; what follows in the execution commits with it. Raises Unavailable, LimitExceeded."""
        return [outcome for portion in _portions(results) for outcome in await self._complete(portion)]

    async def fail(self, failed: Sequence[FailedResult]) -> list[FailAnswer]:
        """The decision on each; what a dead step means for its execution commits with it.

        Raises Unavailable, LimitExceeded.
        """
        return [answer for portion in _portions(failed) for answer in await self._fail(portion)]

    async def release(self, leases: Sequence[LeaseRef]) -> list[Outcome]:
        """OK or LOST for each; in a cancelled execution the job is dead instead of available.

        Raises Unavailable, LimitExceeded.
        """
        return [
            outcome
            for portion in _portions(leases)
            for outcome in await self._turns.carry_through(self._release(portion))
        ]

    async def give_back(self, grants: Sequence[Delivery]) -> None:
        """Takes back what was delivered and not received; the third time in a row is a failure.

        Raises Unavailable, LimitExceeded.
        """
        for portion in _portions(grants):
            await _each_alone_on_error(self._give_back, portion)

    async def expire(self, leases: Sequence[Facts]) -> None:
        """Ends those of the leases that are still expired, as failures. Raises Unavailable, LimitExceeded."""
        for portion in _portions(leases):
            await _each_alone_on_error(self._expire, portion)

    async def close(self) -> None:
        """Returns when the calls that wait are answered."""
        await self._complete.close()
        await self._fail.close()

    async def _release(self, leases: Sequence[LeaseRef]) -> list[Outcome]:
        async with self._turns.holding(lease.job_id for lease in leases) as turn:
            known = await facts(self._session, [lease.lease_id for lease in leases])
            taken = await self._take_back(turn, known, BY_WORKER)
            before = await ends_of(self._session, (lease for lease in leases if lease.lease_id not in taken))
        ended = (EventKind.LEASE_RELEASED,)
        taken |= {lease_id for lease_id, events in before.items() if any(e.kind in ended for e in events)}
        return [Outcome.OK if lease.lease_id in taken else Outcome.LOST for lease in leases]

    async def _give_back(self, grants: Sequence[Delivery]) -> None:
        async with self._turns.holding(grant.job_id for grant in grants) as turn:
            known = await unreceived(self._session, grants)
            await self._take_back(turn, known, BY_BREAK, undelivered=True)

    async def _expire(self, leases: Sequence[Facts]) -> None:
        async with self._turns.holding(lease.job_id for lease in leases) as turn:
            known = await facts(self._session, [lease.lease_id for lease in leases])
            failures = {lease.lease_id: expiry_of(lease) for lease in known.values()}
            _, ended = await self._end_failed(turn, known, failures, only_expired=True)
            turn.after_commit.append(lambda: self._signals.lost(ended))

    async def _complete_all(self, calls: Sequence[Sequence[Result]]) -> list[list[Outcome] | Exception]:
        first: dict[int, Result] = {}
        for call in calls:
            for result in call:
                first.setdefault(result.lease.lease_id, result)
        async with self._turns.holding(result.lease.job_id for result in first.values()) as turn:
            known = await facts(self._session, list(first))
            done = await complete(
                self._session,
                [
                    Completion(lease.lease_id, first[lease.lease_id].result, lease.execution_id, lease.step)
                    for lease in known.values()
                ],
            )
            await store.record(
                self._session,
                [
                    _step_event(lease, EventKind.STEP_COMPLETED)
                    for lease_id, lease in known.items()
                    if lease_id in done and lease.execution_id not in turn.cancelled
                ],
            )
            turn.ended_steps |= {known[lease_id].execution_id or 0 for lease_id in done}
            turn.after_commit.append(lambda: self._signals.ended(known))
            again = (result.lease for lease_id, result in first.items() if lease_id not in done)
            done = done | await completed_before(self._session, again)
        return [[Outcome.OK if r.lease.lease_id in done else Outcome.LOST for r in call] for call in calls]

    async def _fail_all(self, calls: Sequence[Sequence[FailedResult]]) -> list[list[FailAnswer] | Exception]:
        first: dict[int, FailedResult] = {}
        for call in calls:
            for failed in call:
                first.setdefault(failed.lease.lease_id, failed)
        async with self._turns.holding(failed.lease.job_id for failed in first.values()) as turn:
            known = await facts(self._session, list(first))
            failures = {lease_id: failed.reported for lease_id, failed in first.items()}
            judged, ended = await self._end_failed(turn, known, failures)
            answers = answers_of(judged, ended)
            again = await ends_of(
                self._session, (failed.lease for lease_id, failed in first.items() if lease_id not in ended)
            )
            answers.update({lease_id: answer_again(events) for lease_id, events in again.items()})
            turn.after_commit.append(lambda: self._signals.ended(ended))
        lost = FailAnswer(Outcome.LOST)
        return [[answers.get(failed.lease.lease_id, lost) for failed in call] for call in calls]

    async def _end_failed(
        self,
        turn: Turn,
        known: Mapping[int, Facts],
        failures: Mapping[int, Reported],
        *,
        only_expired: bool = False,
        undelivered: bool = False,
    ) -> tuple[dict[int, Judged], dict[int, Ended]]:
        """Decides on failed leases and ends them; where a job is dead, its step has failed."""
        if not known:
            return {}, {}
        judged = await self._judge.judge(
            self._session, list(known.values()), failures, cancelled=turn.cancelled
        )
        ended = await fail(
            self._session,
            [verdict.stored for verdict in judged.values()],
            only_expired=only_expired,
            granted_until=[lease.expires_at for lease in known.values()] if undelivered else None,
        )
        dead = [lease_id for lease_id in ended if judged[lease_id].decision.verdict is Verdict.DEAD]
        await store.record(
            self._session,
            [
                _step_event(known[lease_id], EventKind.STEP_FAILED, failures[lease_id].failure)
                for lease_id in dead
                if known[lease_id].execution_id not in turn.cancelled
            ],
        )
        turn.ended_steps |= {known[lease_id].execution_id or 0 for lease_id in dead}
        turn.after_commit.append(lambda: announce(self._signals, judged, ended))
        return judged, ended

    async def _take_back(
        self, turn: Turn, known: Mapping[int, Facts], why: str, *, undelivered: bool = False
    ) -> set[int]:
        """Makes the jobs available again; dead where the execution is cancelled, a failure where they were returned too often."""
        too_often = {
            id_: lease
            for id_, lease in known.items()
            if undelivered
            and lease.execution_id not in turn.cancelled
            and lease.returns + 1 >= RETURNS_UNTIL_DECIDED
        }
        failures = {id_: undeliverable() for id_ in too_often}
        _, ended = await self._end_failed(turn, too_often, failures, undelivered=undelivered)
        others = {id_: lease for id_, lease in known.items() if id_ not in too_often}
        granted_until = [lease.expires_at for lease in others.values()] if undelivered else None
        arrivals = (
            await release(self._session, list(others), why, granted_until=granted_until) if others else {}
        )
        reasons = {others[id_].execution_id: others[id_].cancelled for id_ in arrivals}
        for execution_id in sorted(turn.cancelled & reasons.keys()):
            await cancel_waiting(self._session, execution_id, reasons[execution_id] or why)
        turn.after_commit.append(lambda: self._signals.arrived(arrivals.values()))
        turn.after_commit.append(lambda: self._signals.ended([*arrivals, *ended]))
        return {*arrivals, *ended}


def _step_event(lease: Facts, kind: EventKind, failure: Failure | None = None) -> StepEvent:
    return StepEvent(
        lease.execution_id or 0, kind, lease.step, None if failure is None else failure_json(failure)
    )


async def _each_alone_on_error(
    run: Callable[[Sequence[_Call]], Awaitable[None]], items: Sequence[_Call]
) -> None:
    """Runs all together; where that fails for a reason that nobody foresaw, each by itself: one bad execution stops no other."""
    try:
        await run(items)
    except Exception as error:
        if _is_everybodys(error):
            raise
        for item in items:
            try:
                await run([item])
            except Exception as alone:
                if _is_everybodys(alone):
                    raise
                _log.exception("a lease of an execution cannot be ended")


def _one_bad_alone(
    run: Callable[[Sequence[_Call]], Awaitable[list[_Answer | Exception]]],
) -> Callable[[Sequence[_Call]], Awaitable[list[_Answer | Exception]]]:
    """`run`, and where many calls fail together for a reason that nobody foresaw, each again by itself: one fails alone."""

    async def each_alone(calls: Sequence[_Call]) -> list[_Answer | Exception]:
        answers: list[_Answer | Exception] = []
        for call in calls:
            try:
                answers.extend(await run([call]))
            except Exception as error:
                answers.append(error)
        return answers

    async def together(calls: Sequence[_Call]) -> list[_Answer | Exception]:
        try:
            return await run(calls)
        except Exception as error:
            if len(calls) == 1 or _is_everybodys(error):
                raise
            return await each_alone(calls)

    return together


def _is_everybodys(error: Exception) -> bool:
    """Whether it is no fault of what was done together: each alone would have met it too."""
    return isinstance(error, RepriseError) and not isinstance(error, TurnTooLong)


def _portions(items: Sequence[_Call]) -> list[Sequence[_Call]]:
    """The items in portions of what one transaction takes."""
    starts = range(0, len(items), _ITEMS_PER_TRANSACTION)
    return [items[start : start + _ITEMS_PER_TRANSACTION] for start in starts]
