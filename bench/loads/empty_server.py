"""A server like the broker's that answers every unary call with nothing: what gRPC alone takes on this machine.

It prints its address, and serves until it is terminated.
"""

from __future__ import annotations  # what is generic in the stubs is not so in grpc

import asyncio

import grpc

from broker.server import _OPTIONS as SERVER_OPTIONS


class Empty(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """Takes any method's bytes and returns none."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        """The one handler, for every method."""
        return grpc.unary_unary_rpc_method_handler(_answer)


async def _answer(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
    return b""


async def serve() -> None:
    """Serves on a free port of the loopback interface."""
    server = grpc.aio.server(options=SERVER_OPTIONS)
    server.add_generic_rpc_handlers((Empty(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"ready listen=127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve())
