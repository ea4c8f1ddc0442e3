"""Whether calls can be served now, as the standard gRPC health protocol says it: while the database is away they cannot.

`grpc.health.v1.Health` itself serves as long as the process does: ask for that one to find out whether a broker must be restarted.
"""

from collections.abc import Sequence

from grpc_health.v1 import health_pb2
from grpc_health.v1._async import HealthServicer

_LIVENESS = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name


class Health:
    """The state of all services together, and of the whole, which has no name."""

    def __init__(self, services: Sequence[str]) -> None:
        self.servicer = HealthServicer()
        self._services = ("", *services)

    async def serves(self, *, now: bool) -> None:
        """Whether calls can be served from now on."""
        status = health_pb2.HealthCheckResponse.SERVING if now else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in self._services:
            await self.servicer.set(service, status)
        await self.servicer.set(_LIVENESS, health_pb2.HealthCheckResponse.SERVING)

    async def close(self) -> None:
        """Nothing is served any more, whatever is said later."""
        await self.servicer.enter_graceful_shutdown()
