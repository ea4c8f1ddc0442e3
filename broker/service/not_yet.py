"""Calls of the contract whose turn has not come: refused by name, never ignored."""

from typing import Any, NoReturn

from broker.errors import NotSupportedYet
from broker.service.status import reports_errors


def refused(rpc: str) -> Any:
    """A servicer's method that answers UNIMPLEMENTED with the reason NOT_SUPPORTED_YET."""

    @reports_errors
    async def refuse(servicer: object, request: object, context: object) -> NoReturn:
        raise NotSupportedYet(f"{rpc} is not supported yet")

    return refuse
