"""The `reprise` command: what people type.

An ordinary synchronous client of the broker's gRPC API. It owns arguments, output and exit codes (0 done,
1 the thing failed, 2 wrong use); it must not reach into the store or the lifecycle, and imports nothing heavy
before a command needs it.
"""

import os


def main() -> None:
    """Runs the command line of this process; ends it with the exit code."""
    from broker.cli.app import reprise

    # gRPC's own remarks ("Got goaway") would stand between our lines; what matters comes back as an error.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    reprise(prog_name="reprise")
