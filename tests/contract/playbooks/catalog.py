"""A program as PlaybookService sees it, and short texts of playbooks."""

from textwrap import dedent, indent
from typing import Any

import grpc
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct
from google.rpc import error_details_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status
from reprise.v1 import job_pb2
from reprise.v1 import playbook_service_pb2 as pb
from reprise.v1.playbook_service_pb2_grpc import PlaybookServiceStub

PATH = "tests/flow"


def playbook(steps: str, *, path: str = PATH, top: str = "") -> str:
    """The text of a playbook with these steps; `top` are further keys of its top level."""
    return f"metadata: {{name: flow, path: {path}}}\n{dedent(top)}workflow:\n{indent(dedent(steps).strip(), '  ')}\n"


def python_step(name: str, following: str = "[]", more: str = "") -> str:
    """One step that runs, on a line of its own; `more` are further keys, each after a comma."""
    return f"- {{step: {name}, type: python, code: 'def main(): pass', next: {following}{more}}}\n"


ONE_STEP = playbook(python_step("task"))
IN_A_ROW = playbook(python_step("first", "[second]") + python_step("second", "[end]") + "- step: end")
RETRIED = playbook(python_step("task", more=", retry: {max_attempts: 3, initial_delay: 1}"))


def faults_of(error: grpc.RpcError) -> list[str]:
    """What is wrong, as the error tells it fault by fault."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    assert status is not None
    bad_request = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad_request) for detail in status.details)
    return [violation.description for violation in bad_request.field_violations]


class PlaybookClient:
    """One client of PlaybookService, with the limits that a channel has by default."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.stub = PlaybookServiceStub(channel)

    async def register(self, text: str) -> pb.RegisterPlaybookResponse:
        """The answer to one registration."""
        response: pb.RegisterPlaybookResponse = await self.stub.RegisterPlaybook(
            pb.RegisterPlaybookRequest(yaml=text)
        )
        return response

    async def get(self, path: str = PATH, version: int = 0) -> pb.Playbook:
        """One version of a playbook."""
        response: pb.GetPlaybookResponse = await self.stub.GetPlaybook(
            pb.GetPlaybookRequest(path=path, version=version)
        )
        return response.playbook

    async def start(
        self, path: str = PATH, *, version: int = 0, workload: dict[str, Any] | None = None, key: str = ""
    ) -> pb.StartExecutionResponse:
        """The answer to one start."""
        response: pb.StartExecutionResponse = await self.stub.StartExecution(
            pb.StartExecutionRequest(
                path=path,
                version=version,
                workload=None if workload is None else json_format.ParseDict(workload, Struct()),
                idempotency_key=key,
            )
        )
        return response

    async def execution(self, execution_id: int, *, full: bool = False) -> pb.Execution:
        """One execution; with workload and result where `full`."""
        response: pb.GetExecutionResponse = await self.stub.GetExecution(
            pb.GetExecutionRequest(
                execution_id=execution_id, view=job_pb2.JOB_VIEW_FULL if full else job_pb2.JOB_VIEW_BASIC
            )
        )
        return response.execution

    async def list_all(self, **filters: Any) -> list[pb.Execution]:
        """The executions of all pages, in their order."""
        request = pb.ListExecutionsRequest(**filters)
        found: list[pb.Execution] = []
        while True:
            page: pb.ListExecutionsResponse = await self.stub.ListExecutions(request)
            found += page.executions
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    async def cancel(self, execution_id: int, reason: str = "") -> None:
        """Cancels an execution."""
        await self.stub.CancelExecution(pb.CancelExecutionRequest(execution_id=execution_id, reason=reason))

    def watch(self, execution_id: int) -> Any:
        """The call that follows an execution."""
        return self.stub.WatchExecution(pb.WatchExecutionRequest(execution_id=execution_id))
