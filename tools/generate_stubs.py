"""Writes the Python stubs and their type stubs beside the .proto files.

Owns how the contract is generated; a test runs it into a scratch folder and compares, so the checked-in stubs
are never stale. Must not be imported by the product.
"""

import os
import sys
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

REPOSITORY = Path(__file__).resolve().parent.parent
PROTO = REPOSITORY / "proto"


def generate(output: Path) -> None:
    """Generates the stubs of every file in proto/reprise/v1 below `output`. Raises RuntimeError when protoc refuses."""
    sources = sorted(str(path.relative_to(PROTO)) for path in PROTO.glob("reprise/v1/*.proto"))
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    arguments = [
        "protoc",
        f"--proto_path={PROTO}",
        f"--proto_path={well_known}",
        f"--python_out={output}",
        f"--grpc_python_out={output}",
        f"--mypy_out=quiet:{output}",
        f"--mypy_grpc_out=quiet:{output}",
        *sources,
    ]
    # The plugins stand beside this interpreter, whether its environment is activated or not.
    os.environ["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    if protoc.main(arguments) != 0:
        raise RuntimeError("protoc refused the contract, see its messages above")


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else PROTO)
