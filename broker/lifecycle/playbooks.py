"""Playbooks as they run: parsed from what is stored, and kept, since a version never changes."""

import asyncio

from broker.errors import NotFound, WrongState
from broker.playbook.document import PlaybookInvalid
from broker.playbook.model import Playbook
from broker.playbook.parse import parse_playbook
from broker.store.executions import playbook
from broker.store.session import Session

_PLAYBOOKS_KEPT = 500


class Playbooks:
    """Playbooks by path and version, read once: a version never changes."""

    def __init__(self) -> None:
        self._parsed: dict[tuple[str, int], Playbook] = {}

    async def of(self, session: Session, path: str, version: int) -> tuple[int, Playbook]:
        """The version asked for, 0 for the newest, and its playbook.

        Raises NotFound, WrongState when this broker does not take what an earlier one has registered, Unavailable.
        """
        if (path, version) in self._parsed:
            return version, self._parsed[path, version]
        stored = await playbook(session, path, version)
        if stored is None:
            wanted = f"version {version} of playbook" if version else "playbook"
            raise NotFound(f"no {wanted} {path!r}", "PLAYBOOK_NOT_FOUND")
        key = (path, stored.version)
        if key not in self._parsed:
            if len(self._parsed) >= _PLAYBOOKS_KEPT:
                self._parsed.clear()
            try:
                self._parsed[key] = await asyncio.to_thread(parse_playbook, stored.body)
            except PlaybookInvalid as error:
                raise WrongState(
                    f"playbook {path!r} version {stored.version}: cannot be read any more: {error}",
                    "PLAYBOOK_UNREADABLE",
                ) from error
        return stored.version, self._parsed[key]
