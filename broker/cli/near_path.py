"""Which playbook was probably meant by a path that is not registered.

Must not guess for the user: it only tells.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches

from reprise.v1.playbook_service_pb2 import ListPlaybooksRequest

from broker.cli.connection import Broker
from broker.cli.refusal import CallFailed

_PATHS_LOOKED_AT = 1000


@contextmanager
def telling_near_path(broker: Broker, path: str) -> Iterator[None]:
    """Within it, a refusal of `path` as unknown names the registered path that is most like it, if one is."""
    try:
        yield
    except CallFailed as refusal:
        near = _find_near(broker, path) if refusal.reason == "PLAYBOOK_NOT_FOUND" else None
        if near is None:
            raise
        raise CallFailed([f"no playbook '{path}': did you mean '{near}'?"]) from refusal


def _find_near(broker: Broker, path: str) -> str | None:
    """None also where the path is known, and only its version is not, or where there are too many to know."""
    try:
        answer = broker.call(broker.playbooks.ListPlaybooks, ListPlaybooksRequest(page_size=_PATHS_LOOKED_AT))
    except CallFailed:
        return None
    if answer.next_page_token:
        return None
    paths = [playbook.path for playbook in answer.playbooks]
    near = get_close_matches(path, paths, n=1)
    return near[0] if near and path not in paths else None
