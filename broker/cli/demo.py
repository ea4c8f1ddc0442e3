"""`demo`: the whole thing once, to look at: a step fails, the broker decides, it runs again, it ends dead.

Owns what is shown and in which order; the calls, the watching and the tables are those of the other commands. It alone of the
command line reads the database itself, to show that users can.
"""

import json
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import click
import psycopg
from reprise.v1.playbook_service_pb2 import Execution, RegisterPlaybookRequest, StartExecutionRequest

from broker.cli.connection import Broker
from broker.cli.output import Column, Span, print_line, print_table, words_for
from broker.cli.watching import show_live
from broker.cli.wording import STATUS_STYLES
from broker.embedded import BinariesNotFound, PostgresFailed
from broker.supervisor import ChildFailed, LogsInUse, Stack, StackConfig

# From the seed, word for word.
_QUERIES = (
    """\
SELECT queue_id, status, attempts, max_attempts, available_at
FROM noetl.queue
WHERE execution_id = <ID>;""",
    """\
SELECT event_type, node_name, result
FROM noetl.event
WHERE execution_id = <ID>
AND event_type IN ('action_started', 'action_error', 'action_retry', 'action_completed');""",
)
_DEV_ADDRESS = "127.0.0.1:50051"


@click.command()
@click.argument(
    "playbook", default="examples/retry.yaml", type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option(
    "--data",
    envvar="REPRISE_DEMO_DATA",
    show_envvar=True,
    default=".reprise/demo",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where its database and its logs are kept from run to run.",
)
@click.option(
    "--database-url",
    envvar="REPRISE_DATABASE_URL",
    show_envvar=True,
    metavar="URL",
    help="Use this PostgreSQL instead of starting one.",
)
def demo(playbook: Path, data: Path, database_url: str | None) -> None:
    """Start everything, run PLAYBOOK (examples/retry.yaml), show what happens and where it is kept, stop everything."""
    # Told to end, it stops its parts first, as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.monotonic()
    _heading("Starting PostgreSQL, a broker and a worker")
    try:
        with Stack(StackConfig(data, data / "logs", "127.0.0.1:0", database_url)) as stack:
            print_line(
                Span(f"ready in {words_for(round(time.monotonic() - began, 1))}: broker on {stack.address}")
            )
            broker = Broker(stack.address)
            execution = _run(broker, playbook)
            _show_tables(stack.database_url, execution.execution_id)
    except LogsInUse as error:
        raise click.ClickException(f"{error}: stop that one, or choose another folder with --data") from error
    except (BinariesNotFound, PostgresFailed, ChildFailed, OSError) as error:
        raise click.ClickException(str(error)) from error
    _show_how_to_repeat(playbook, data, execution)


def _run(broker: Broker, playbook: Path) -> Execution:
    """The execution, which has ended."""
    _heading(f"Running {playbook}")
    request = RegisterPlaybookRequest(yaml=playbook.read_text(encoding="utf-8"))
    registered = broker.call(broker.playbooks.RegisterPlaybook, request).playbook
    started = broker.call(broker.playbooks.StartExecution, StartExecutionRequest(path=registered.path))
    print_line(Span("execution "), Span(str(started.execution_id), "bold"), Span(f" of {registered.path}"))
    return show_live(broker, started.execution_id)


def _show_tables(database_url: str, execution_id: int) -> None:
    _heading("What the database says")
    with psycopg.connect(database_url) as connection:
        for query in _QUERIES:
            filled = query.replace("<ID>", str(execution_id))
            for line in filled.splitlines():
                print_line(Span(line, "cyan"))
            cursor = connection.execute(filled.encode())
            names = [column.name for column in cursor.description or ()]
            print_table([Column(name) for name in names], _fitted([_spans(row) for row in cursor]))
            print_line()


def _spans(row: Sequence[object]) -> list[Span]:
    return [_span(value) for value in row]


def _fitted(rows: list[list[Span]]) -> list[list[Span]]:
    """The rows with their last column cut to what a terminal has room for; whole in a pipe."""
    if not sys.stdout.isatty() or not rows:
        return rows
    taken = sum(max(len(row[place].text) for row in rows) + 2 for place in range(len(rows[0]) - 1))
    room = max(shutil.get_terminal_size().columns - taken - 2, 20)
    return [[*row[:-1], replace(row[-1], text=_cut(row[-1].text, room))] for row in rows]


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _span(value: object) -> Span:
    match value:
        case None:
            return Span("")
        case dict() | list():
            return Span(json.dumps(value, ensure_ascii=False))
        case datetime():
            return Span(value.isoformat(sep=" ", timespec="milliseconds"))
        case _:
            return Span(str(value), STATUS_STYLES.get(str(value), ""))


def _show_how_to_repeat(playbook: Path, data: Path, execution: Execution) -> None:
    """Lines to copy, for whichever client is at hand: `buf` comes with a development environment, grpcurl is what people have."""
    read = "import json, sys; print(json.dumps({'yaml': sys.stdin.read()}))"
    yaml_as_json = f'{_program("python3")} -c "{read}" < {shlex.quote(str(playbook))}'
    _heading("The same by hand, with any gRPC client")
    _copyable(
        "all parts again, with what you have just seen, in one terminal",
        f"{_program('reprise')} dev --data {shlex.quote(str(data))}",
    )
    _copyable("register the playbook, in another", f"{yaml_as_json} | {_call('RegisterPlaybook', '@-')}")
    _copyable(
        "run it: prints the id of the execution",
        _call("StartExecution", json.dumps({"path": execution.path})),
    )
    _copyable(
        "see an execution, from its first event to its end (this one has ended)",
        _call("WatchExecution", json.dumps({"execution_id": str(execution.execution_id)})),
    )


def _copyable(purpose: str, line: str) -> None:
    print_line(Span(f"# {purpose}", "dim"))
    print_line(Span(line, "bold"))


def _call(method: str, data: str) -> str:
    procedure = f"reprise.v1.PlaybookService/{method}"
    buf = _program("buf")
    if buf == "buf":
        return f"grpcurl -plaintext -d {shlex.quote(data.removesuffix('-'))} {_DEV_ADDRESS} {procedure}"
    options = "--protocol grpc --http2-prior-knowledge"
    return f"{buf} curl {options} -d {shlex.quote(data)} http://{_DEV_ADDRESS}/{procedure}"


def _program(name: str) -> str:
    """How to call a program of this environment from here; its bare name where this environment does not have it."""
    program = Path(sys.prefix) / "bin" / name
    if not program.exists():
        return name
    here = Path.cwd()
    return shlex.quote(str(program.relative_to(here) if program.is_relative_to(here) else program))


def _heading(text: str) -> None:
    print_line()
    print_line(Span(f"── {text}", "bold blue"))
