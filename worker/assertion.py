"""The `assert` of a workbook task, which the broker hands over in a job's input. Pure."""

from collections.abc import Mapping
from typing import Any

from worker.failure import ASSERTION_FAILED, JobFailed


def check_returns(given: Mapping[str, Any], result: Any) -> None:
    """Raises JobFailed "assertion_failed", with the result, where `assert.returns` names a key that the
    result's data lacks.

    The data are `result["data"]` where there is one, else the result itself. A name with dots reaches into
    it.
    """
    match given.get("assert"):
        case {"returns": str(name)}:
            names: list[Any] = [name]
        case {"returns": list(names)}:
            pass
        case _:
            return
    data = result["data"] if isinstance(result, dict) and "data" in result else result
    if missing := [str(name) for name in names if not _has(data, str(name).split("."))]:
        raise JobFailed(
            f"assert.returns: the result has no {', '.join(missing)}", type=ASSERTION_FAILED, result=result
        )


def _has(data: Any, path: list[str]) -> bool:
    for key in path:
        if not isinstance(data, dict) or key not in data:
            return False
        data = data[key]
    return True
