"""Runs the command line against a peer over real gRPC."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from click.testing import CliRunner, Result

from broker.cli.app import reprise
from tests.unit.cli.peer import Peer, Reprise


@pytest.fixture
def peer() -> Iterator[Peer]:
    """A peer that listens on a free port of this machine."""
    peer = Peer()
    server = grpc.server(ThreadPoolExecutor(max_workers=2), handlers=[peer])
    peer.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield peer
    server.stop(None).wait()


@pytest.fixture
def run(peer: Peer) -> Reprise:
    """Runs `reprise` with these arguments against the peer, as in a pipe."""

    def run(*arguments: str, stdin: str = "") -> Result:
        result = CliRunner().invoke(reprise, ["--broker", peer.address, *arguments], input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run
