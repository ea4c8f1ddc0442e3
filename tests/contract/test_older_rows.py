"""What brokers wrote before a migration reads as what they write today."""

import grpc
import pytest
from reprise.v1 import queue_service_pb2 as pb
from reprise.v1.job_pb2 import JOB_STATUS_DEAD, JOB_STATUS_RETRY

from tests.contract.queue_client import FAILURE, QueueClient
from tests.contract.tables import Tables
from tests.fixtures_database import MoveClock


@pytest.fixture
def client(channel: grpc.aio.Channel) -> QueueClient:
    return QueueClient(channel)


async def test_a_failure_in_two_rows_reads_as_one_in_one_row(
    client: QueueClient, tables: Tables, move_clock: MoveClock
) -> None:
    jobs = await client.in_every_status()

    async def seen() -> list[object]:
        return [
            [await client.job(job_id, full=True) for job_id in jobs.values()],
            [await client.queues.ListEvents(pb.ListEventsRequest(job_id=job_id)) for job_id in jobs.values()],
            await client.list_jobs(pb.JobFilter(failure_type=FAILURE.type)),
            await client.list_jobs(pb.JobFilter(statuses=[JOB_STATUS_DEAD])),
            await tables.rows("SELECT * FROM noetl.event"),
        ]

    in_one_row = await seen()
    rows = await tables.value("SELECT count(*) FROM noetl.event_log")
    await tables.write_errors_apart()

    assert await seen() == in_one_row
    assert await tables.value("SELECT count(*) FROM noetl.event_log") == rows + 2
    await move_clock(5)
    leases = {lease.job_id: lease for lease in await client.lease(count=2)}
    assert leases[jobs[JOB_STATUS_RETRY]].last_failure == FAILURE
