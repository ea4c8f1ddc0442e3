"""Runs the `code` of a python step in this process: its `main` is called, what that returns is the result."""

import json
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NoReturn

from worker.child.entry import end_process, give_failure, give_result, take_job

CODE_NAME = "<step>"  # the file name in tracebacks
HAS_KWARGS = 0x08  # inspect.CO_VARKEYWORDS; inspect itself is slow to import
# What a step may use without importing it (the reference's globals). Loaded only where the code names it.
_GIVEN_MODULES = ("os", "json", "datetime", "uuid")
# What a warm parent imports before it forks: what steps mostly use. More would make every fork slower.
WARM = (*_GIVEN_MODULES, "asyncio", "inspect", "linecache", "random", "re", "tempfile", "worker.failure")


def main(lifeline: int, answer: int) -> NoReturn:
    """Takes the job, runs it, answers, ends the process: whatever the step does is the answer."""
    given = json.loads(take_job(lifeline, answer))
    sys.argv = [CODE_NAME]
    try:
        give_result(answer, run(given["code"], given["data"], given["context"]))
    except BaseException as error:  # SystemExit and KeyboardInterrupt, too, are a failed attempt
        give_failure(answer, _shown(error, given["code"]))
    end_process()


def run(code: str, data: Any, context: Mapping[str, Any]) -> Any:
    """What `main` of the code returns, awaited where it is a coroutine function."""
    # One dictionary is both globals and locals: what the module's level imports is visible inside main.
    module = ModuleType("step")
    sys.modules["step"] = module
    module.__dict__.update(context=context)
    for name in _GIVEN_MODULES:
        if name in code:
            module.__dict__[name] = __import__(name)
    exec(compile(code, CODE_NAME, "exec"), module.__dict__)  # noqa: S102 - running code is what this step is for
    called = module.__dict__.get("main")
    if not callable(called):
        from worker.failure import JobFailed

        raise JobFailed("the code defines no function main", type="main_missing", stack_trace="")
    result = called(**arguments_for(called, data, context))
    if hasattr(result, "__await__"):
        import asyncio

        return asyncio.run(_awaited(result))
    return result


def arguments_for(called: Callable[..., Any], data: Any, context: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that `main` asks for by its parameters.

    None: nothing. `input_data` alone: one dictionary of everything. `**kwargs`: the context and all data.
    Else each by its name; one that is nowhere is left out, and calling raises TypeError unless it has a
    default.
    """
    names, takes_all = _parameters(called)
    fields = data if isinstance(data, dict) else {"data": data}
    everything = {"context": context, "with": data, **fields}
    if names == ["input_data"] and not takes_all:
        return {"input_data": everything}
    available = {"context": context, **fields}
    if takes_all:
        return available | ({"input_data": everything} if "input_data" in names else {})
    available.setdefault("input_data", everything)
    return {name: available[name] for name in names if name in available}


def _parameters(called: Callable[..., Any]) -> tuple[list[str], bool]:
    code = getattr(called, "__code__", None)
    if code is None or hasattr(called, "__wrapped__"):
        import inspect

        kinds = {name: one.kind for name, one in inspect.signature(called).parameters.items()}
        variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        names = [name for name, kind in kinds.items() if kind not in variable]
        return names, inspect.Parameter.VAR_KEYWORD in kinds.values()
    count = code.co_argcount + code.co_kwonlyargcount
    return list(code.co_varnames[:count]), bool(code.co_flags & HAS_KWARGS)


async def _awaited(coroutine: Any) -> Any:
    return await coroutine


def _shown(error: BaseException, code: str) -> BaseException:
    """The error as the step's author should see it: its own lines, with their text, without ours."""
    import linecache

    from worker.failure import RESULT_NOT_JSON, JobFailed
    from worker.json_result import ResultNotJson

    if isinstance(error, ResultNotJson):
        return JobFailed(str(error), type=RESULT_NOT_JSON, stack_trace="")
    linecache.cache[CODE_NAME] = len(code), None, code.splitlines(keepends=True), CODE_NAME
    trace = error.__traceback__
    while trace and trace.tb_frame.f_code.co_filename != CODE_NAME:
        trace = trace.tb_next
    return error.with_traceback(trace)
