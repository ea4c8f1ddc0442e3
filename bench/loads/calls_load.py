"""One job per call from many connections: gives a client written in Go its request, and says what it got at what cost in CPU time.

Python could not drive a server of its own speed from one process. The rate counts calls answered within the time measured; CPU time is that
of all calls, those of the warm-up too.
"""

import base64
import json
import subprocess

from reprise.v1 import broker_service_pb2 as pb
from reprise.v1 import job_pb2, retry_pb2

from bench.measurement import Row, tell
from bench.metering import Meter
from bench.workload import KIND, MAX_ATTEMPTS, Figure, Task

_METHOD = "/reprise.v1.BrokerService/Enqueue"
_WARM_UP_SECONDS = 1.0
_SECONDS = 5.0


def measure(task: Task) -> Row:
    """Calls per second of one method, each with one job."""
    job = job_pb2.NewJob(
        queue=task.queue,
        kind=KIND,
        input_json=task.load.input_json,
        retry=retry_pb2.RetryPolicy(max_attempts=MAX_ATTEMPTS),
    )
    told = {
        "address": task.site.address,
        "method": _METHOD,
        "request": base64.b64encode(pb.EnqueueRequest(jobs=[job]).SerializeToString()).decode(),
        "connections": task.load.callers,
        "warm_up_seconds": _WARM_UP_SECONDS,
        "seconds": _SECONDS,
    }
    meter = Meter(task.site)
    outcome = json.loads(subprocess.check_output([task.program, json.dumps(told)]))
    values = {
        **meter.stop(outcome["total"]),
        "per_second": outcome["calls"] / outcome["seconds"],
        "p50_ms": outcome["p50_ms"],
        "p99_ms": outcome["p99_ms"],
    }
    return Row(Figure.ONE_BY_ONE, "reprise", f"{task.load.callers} connections", values)


if __name__ == "__main__":
    tell([measure(Task.from_command_line())])
