"""`register` and `playbooks`: YAML in, versions and YAML out.

Must not judge a playbook: the broker does.
"""

import re
from pathlib import Path

import click
from reprise.v1.playbook_service_pb2 import (
    GetPlaybookRequest,
    ListPlaybooksRequest,
    Playbook,
    RegisterPlaybookRequest,
    RegisterPlaybookResponse,
)

from broker.cli import options
from broker.cli.connection import Broker, take, with_broker
from broker.cli.near_path import telling_near_path
from broker.cli.output import (
    Column,
    Span,
    as_json,
    instant,
    note,
    note_more,
    one_line,
    print_json,
    print_table,
    print_text,
)
from broker.cli.refusal import CallFailed
from broker.errors import Violation

_PLACE = re.compile(r"line (\d+), column (\d+): (.*)", re.DOTALL)


class _NotReadable(Exception):
    """What keeps a file from being read."""


@click.command()
@click.argument("files", metavar="FILE…", nargs=-1, required=True, type=click.Path())
@click.option("--json", "json_wanted", is_flag=True, help="Print the registered playbooks as a JSON array.")
@with_broker
def register(broker: Broker, files: tuple[str, ...], json_wanted: bool) -> None:
    """Register playbooks from YAML files.

    A text that differs from the newest version of its path becomes a new version. Faults are printed one per
    line as FILE:LINE:COLUMN: message, a file that cannot be read as FILE: message; the other files are registered
    all the same.
    """
    registered: list[RegisterPlaybookResponse] = []
    failed = False
    for file in files:
        try:
            registered.append(_register_file(broker, file))
        except _NotReadable as error:
            failed = True
            note(f"{file}: {error}")
        except CallFailed as refusal:
            if not refusal.faults:
                raise
            failed = True
            for fault in refusal.faults:
                note(_locate(file, fault))
    if json_wanted:
        print_json([as_json(answer) for answer in registered])
    elif registered:
        columns = (Column("path"), Column("version", number=True), Column(""))
        print_table(columns, [_registered_row(answer) for answer in registered])
    if failed:
        raise click.exceptions.Exit(1)


@click.command()
@click.argument("path", required=False)
@click.option("--version", type=click.IntRange(min=1), help="Show this version instead of the newest.")
@options.limit
@options.json_wanted
@with_broker
def playbooks(broker: Broker, path: str | None, version: int | None, limit: int, json_wanted: bool) -> None:
    """List playbooks, or show the YAML of PATH as it was registered."""
    if path is None:
        if version is not None:
            raise click.UsageError("--version needs a PATH")
        _list_playbooks(broker, limit, json_wanted)
        return
    request = GetPlaybookRequest(path=path, version=version or 0)
    with telling_near_path(broker, path):
        playbook = broker.call(broker.playbooks.GetPlaybook, request).playbook
    if json_wanted:
        print_json(as_json(playbook))
    else:
        print_text(playbook.yaml)


def _register_file(broker: Broker, file: str) -> RegisterPlaybookResponse:
    """Raises _NotReadable, CallFailed."""
    try:
        text = Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise _NotReadable(error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise _NotReadable(f"is no UTF-8 text: byte {error.start} is wrong") from error
    return broker.call(broker.playbooks.RegisterPlaybook, RegisterPlaybookRequest(yaml=text))


def _locate(file: str, fault: Violation) -> str:
    """ "FILE:LINE:COLUMN: message", as compilers write it, where the fault has a place."""
    placed = _PLACE.match(fault.description)
    if placed is None:
        return f"{file}: {fault.description}"
    line, column, message = placed.groups()
    return f"{file}:{line}:{column}: {message}"


def _registered_row(answer: RegisterPlaybookResponse) -> tuple[Span, Span, Span]:
    outcome = Span("created", "green") if answer.created else Span("unchanged", "dim")
    return Span(answer.playbook.path, "bold"), Span(str(answer.playbook.version)), outcome


def _list_playbooks(broker: Broker, limit: int, json_wanted: bool) -> None:
    def fetch(size: int, token: str) -> tuple[list[Playbook], str]:
        request = ListPlaybooksRequest(page_size=size, page_token=token)
        answer = broker.call(broker.playbooks.ListPlaybooks, request)
        return list(answer.playbooks), answer.next_page_token

    found, more = take(limit, fetch)
    if json_wanted:
        print_json([as_json(playbook) for playbook in found])
    else:
        columns = (Column("path"), Column("version", number=True), Column("registered_at"), Column("name"))
        print_table(
            columns,
            [
                (
                    Span(one.path, "bold"),
                    Span(str(one.version)),
                    Span(instant(one.created_at)),
                    Span(one_line(one.name)),
                )
                for one in found
            ],
        )
    note_more(more)
