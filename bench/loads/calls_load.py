"""One job per call by a client written in Go: tells it its request, and says what it got.

From many connections as fast as they can: Python could not drive a server of its own speed from one process. The rate counts calls answered
within the time measured; CPU time is that of all calls, those of the warm-up too. And one job at a time, from the call of Enqueue to the
lease on a stream that waits for it: so the client takes little of the wait that is measured.
"""

import json
import subprocess

from google.protobuf.duration_pb2 import Duration
from reprise.v1 import broker_service_pb2 as pb
from reprise.v1 import job_pb2, retry_pb2

from bench.go_client import as_base64
from bench.measurement import Row, tell
from bench.metering import Meter
from bench.workload import KIND, MAX_ATTEMPTS, Figure, Task

_METHOD = "/reprise.v1.BrokerService/Enqueue"
_WARM_UP_SECONDS = 1.0
_SECONDS = 5.0
_LEASE = Duration(seconds=600)  # none expires within a run


def measure(task: Task) -> list[Row]:
    """The one figure asked for; without any, calls per second of one method."""
    return [_start_each(task) if Figure.ENQUEUE_TO_START in task.figures else _call_all(task)]


def _call_all(task: Task) -> Row:
    meter = Meter(task.site)
    outcome = _run(
        task,
        {
            "connections": task.load.callers,
            "warm_up_seconds": _WARM_UP_SECONDS,
            "seconds": _SECONDS,
        },
    )
    values = {
        **meter.stop(int(outcome["total"])),
        "per_second": outcome["calls"] / outcome["seconds"],
        "p50_ms": outcome["p50_ms"],
        "p99_ms": outcome["p99_ms"],
    }
    return Row(Figure.ONE_BY_ONE, "reprise", f"{task.load.callers} connections", values)


def _start_each(task: Task) -> Row:
    subscription = pb.LeaseRequest(
        queues=[task.queue], credits=task.load.jobs, worker_id="bench-start", lease_duration=_LEASE
    )
    outcome = _run(
        task,
        {
            "leasing": task.site.lease_address or task.site.address,
            "subscribe": as_base64(subscription),
            "jobs": task.load.jobs,
        },
    )
    setting = "two brokers, client in Go" if task.site.lease_address else "client in Go"
    values = {name: outcome[name] for name in ("p50_ms", "p99_ms")}
    return Row(Figure.ENQUEUE_TO_START, "reprise", setting, values)


def _run(task: Task, told: dict[str, object]) -> dict[str, float]:
    """What the client says at its end."""
    job = job_pb2.NewJob(
        queue=task.queue,
        kind=KIND,
        input_json=task.load.input_json(),
        retry=retry_pb2.RetryPolicy(max_attempts=MAX_ATTEMPTS),
    )
    told |= {
        "address": task.site.address,
        "method": _METHOD,
        "request": as_base64(pb.EnqueueRequest(jobs=[job])),
    }
    outcome: dict[str, float] = json.loads(
        subprocess.check_output([task.program], input=f"{json.dumps(told)}\n", text=True)
    )
    return outcome


if __name__ == "__main__":
    tell(measure(Task.from_command_line()))
