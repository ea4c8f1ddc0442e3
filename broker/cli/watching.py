"""An execution as it happens: its events from the first one on, until it has ended.

Owns the stream and its repairs: a broker that restarts is waited for. Must not decide what an event means.
"""

import json
import time
from collections.abc import Iterator
from itertools import count

import grpc
from reprise.v1.playbook_service_pb2 import Execution, WatchExecutionRequest, WatchExecutionResponse

from broker.cli.connection import Broker
from broker.cli.narrative import Narrator
from broker.cli.output import Span, as_json, note, print_json_line, print_line
from broker.cli.refusal import failure_of, retry_delay
from broker.cli.wording import cut, outcome_of

_PAUSE_SECONDS = 0.5
# 30 s in all are more than a few restarts.
_PAUSES = 60
_GONE = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}


def updates(broker: Broker, execution_id: int) -> Iterator[WatchExecutionResponse]:
    """Each event of the execution once, then the execution when it has ended.

    A stream that breaks is opened again, with 30 s of pauses in all. Raises CallFailed where the broker refuses
    or stays away.
    """
    seen: set[int] = set()
    for pauses in count():
        try:
            for update in broker.playbooks.WatchExecution(WatchExecutionRequest(execution_id=execution_id)):
                if update.HasField("execution"):
                    yield update
                    return
                if update.event.event_id not in seen:
                    seen.add(update.event.event_id)
                    yield update
        except grpc.RpcError as error:
            if not _may_pass(error, begun=bool(seen)) or pauses == _PAUSES:
                raise failure_of(error, broker.address) from error
            if pauses == 0:
                note(f"the watch of execution {execution_id} broke off, trying again")
        time.sleep(_PAUSE_SECONDS)


def _may_pass(error: grpc.RpcError, *, begun: bool) -> bool:
    """Whether another watch may succeed: the broker says so, or it was there and is gone."""
    return retry_delay(error) is not None or (begun and error.code() in _GONE)


def show_live(broker: Broker, execution_id: int) -> Execution:
    """Prints each event in words, then the outcome and, cut to a line, the result; returns the ended execution."""
    narrator = Narrator()
    for update in updates(broker, execution_id):
        if update.HasField("execution"):
            print_line(*outcome_of(update.execution))
            if update.execution.HasField("result"):
                result = as_json(update.execution)["result"]
                print_line(Span("result  ", "dim"), Span(cut(json.dumps(result, ensure_ascii=False))))
            return update.execution
        print_line(*narrator.line(update.event))
    raise AssertionError("a watch ends with the execution")


def show_live_json(broker: Broker, execution_id: int) -> Execution:
    """Prints a line of JSON per update, {"event": …} and at last {"execution": …}; returns the execution."""
    for update in updates(broker, execution_id):
        print_json_line(as_json(update))
        if update.HasField("execution"):
            return update.execution
    raise AssertionError("a watch ends with the execution")
