"""One execution with the test as its worker: every line of a test is one thing that a worker or an operator does."""

from typing import Any, NamedTuple

from google.protobuf import json_format
from reprise.v1 import job_pb2
from reprise.v1 import playbook_service_pb2 as pb

from tests.contract.client import DEAD, OK, RETRY, Client
from tests.contract.playbooks.catalog import PATH, PlaybookClient
from tests.contract.tables import Tables
from tests.fixtures_database import MoveClock


class ToldEvent(NamedTuple):
    """One row of noetl.event, as a reader of the history sees it."""

    event_type: str
    step: str | None
    attempt: int
    job_id: int
    result: Any


class Run:
    """An execution that was started: works on its steps, and looks at what became of it."""

    def __init__(self, playbooks: PlaybookClient, client: Client, tables: Tables, execution_id: int) -> None:
        self.playbooks = playbooks
        self.client = client
        self.tables = tables
        self.execution_id = execution_id

    async def lease(self, step: str, **asked: Any) -> job_pb2.Lease:
        """The lease of the step that waits, which must be this one."""
        lease = await self.client.lease(**asked)
        assert (lease.execution_id, lease.step) == (self.execution_id, step)
        return lease

    async def lease_all(self, *steps: str, **asked: Any) -> dict[str, job_pb2.Lease]:
        """The leases of these steps, by step; nothing else may wait."""
        leases: dict[str, job_pb2.Lease] = {}
        while len(leases) < len(steps):
            lease = await self.client.lease(**asked)
            leases[lease.step] = lease
        assert leases.keys() == set(steps)
        return leases

    async def complete(self, step: str, result_json: str = "null") -> None:
        """Runs the step that waits, well."""
        assert await self.client.complete((await self.lease(step)).lease_token, result_json=result_json) == OK

    async def fail(self, step: str, message: str = "boom", **failure: Any) -> job_pb2.Decision:
        """Runs the step that waits, in vain; what the broker decides."""
        failed = await self.client.fail((await self.lease(step)).lease_token, message, **failure)
        assert failed.outcome == OK
        return failed.decision

    async def fail_until_dead(self, step: str, move_clock: MoveClock) -> list[float]:
        """Fails every attempt of the step; the waits between them, in seconds."""
        waits: list[float] = []
        while (decision := await self.fail(step, "Test retry")).verdict == RETRY:
            waits.append(decision.delay.ToTimedelta().total_seconds())
            await move_clock(waits[-1])
        assert decision.verdict == DEAD
        return waits

    async def look(self, *, full: bool = False) -> pb.Execution:
        """The execution as it stands."""
        return await self.playbooks.execution(self.execution_id, full=full)

    async def status(self) -> str:
        """RUNNING, COMPLETED, FAILED or CANCELLED."""
        return pb.ExecutionStatus.Name((await self.look()).status).removeprefix("EXECUTION_STATUS_")

    async def result(self) -> Any:
        """The result, as JSON has it."""
        return json_format.MessageToDict((await self.look(full=True)).result)

    async def steps(self) -> list[str]:
        """The steps in the order they started, each with its standing: "task retry 1/3"; of a router the name alone."""
        return [
            f"{step.step} {job_pb2.JobStatus.Name(step.status).removeprefix('JOB_STATUS_').lower()} "
            f"{step.attempts}/{step.max_attempts}"
            if step.job_id
            else step.step
            for step in (await self.look()).steps
        ]

    async def standing(self, step: str) -> str:
        """A step's status and attempts in one text: "retry 1/3"."""
        (row,) = await self.tables.rows(
            "SELECT queue_id FROM noetl.queue WHERE execution_id = %s AND node_name = %s",
            self.execution_id,
            step,
        )
        return await self.tables.standing(row[0])

    async def events(self, *event_types: str) -> list[ToldEvent]:
        """The execution's events, oldest first; of all types unless some are named."""
        rows = await self.tables.rows(
            """SELECT event_type, node_name, attempt, job_id, result FROM noetl.event
            WHERE execution_id = %s AND (%s::text[] = '{}' OR event_type = ANY(%s)) ORDER BY event_id""",
            self.execution_id,
            list(event_types),
            list(event_types),
        )
        return [ToldEvent._make(row) for row in rows]

    async def story(self) -> list[str]:
        """The execution's events, oldest first: "step_started task", "execution_completed"."""
        return [" ".join(filter(None, (event.event_type, event.step))) for event in await self.events()]


class Starter:
    """Registers and starts playbooks, and gives a Run for each."""

    def __init__(self, playbooks: PlaybookClient, client: Client, tables: Tables) -> None:
        self.playbooks = playbooks
        self._client = client
        self._tables = tables

    async def __call__(self, text: str, **workload: Any) -> Run:
        """A run of this playbook."""
        registered = await self.playbooks.register(text)
        return await self.again(registered.playbook.path, **workload)

    async def again(self, path: str = PATH, **workload: Any) -> Run:
        """A further run of a playbook that is there."""
        started = await self.playbooks.start(path, workload=workload)
        return Run(self.playbooks, self._client, self._tables, started.execution_id)
