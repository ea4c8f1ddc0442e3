"""Expressions that are meant to hurt, and a program that measures what each costs.

Run as a program it writes one JSON line per bomb: CPU seconds and peak bytes, for compiling and for evaluating. It runs
in a process of its own, so that a bomb which goes off ends this process and not the suite's.
"""

import gc
import itertools
import json
import resource
import sys
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import NamedTuple

from broker.policy.decision import FailedAttempt, Failure, decide
from broker.policy.expression import ExpressionError, ExpressionInvalid, compile_condition
from broker.policy.retry_policy import RetryPolicy
from broker.policy.template import compile_template, render_value

MEBIBYTE = 1_048_576
ADDRESS_SPACE = 1 << 30
CPU_SECONDS = 60
CPU_CONTROL = "control: CPU"
MEMORY_CONTROL = "control: memory"


def _repeated(item: str) -> str:
    """A JSON list of one item, as long as a result may be."""
    return "[" + ",".join([item] * ((MEBIBYTE - 2) // (len(item) + 1))) + "]"


# Everything here is within the limits of a job's result: 1 MiB of JSON.
RESULTS = {
    "text": '"' + "a" * (MEBIBYTE - 2) + '"',
    "wide": '"' + "é" * 100_000 + "😀" * 100_000 + '"',
    "chunk": '"' + "😀" * 262_144 + '"',
    "sharp": '"' + "ΐ" * 262_144 + '"',
    "invisible": '"' + "\U000e0001" * 262_144 + '"',
    "blank": '"' + " " * (MEBIBYTE - 2) + '"',
    "numbers": _repeated("1"),
    "fractions": _repeated("1.5"),
    "giants": _repeated("9" * 4300),
    "words": _repeated('"ab"'),
    "lists": _repeated("[]"),
    "objects": _repeated("{}"),
    "records": _repeated('{"a":1}'),
    "keys": "{" + ",".join(f'"k{number}":0' for number in range(90_000)) + "}",
    "deep": "[" * 500 + "]" * 500,
    "some": _repeated('{"id":7,"name":"someone"}')[:200_000].rsplit(",{", 1)[0] + "]",
    "piece": '"' + "ab" * 100_000 + '"',
}

# The table of research into Jinja2's own sandbox: what hung it, filled its memory or got through.
_OF_THE_SANDBOX = [
    "{{ 'a' * 10**9 }}",
    "{{ 'a' * 10000000000 }}",
    "{{ [0] * 10000000 }}",
    "{{ [0] * 1000000000 }}",
    "{{ 2 ** (2 ** 28) }}",
    "{{ 2 ** (2 ** 30) }}",
    "{{ (10 ** 7) ** (10 ** 6) }}",
    "{{ 9 ** 9 ** 9 }}",
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% macro f(n) %}{{ f(n - 1) }}{{ f(n - 1) }}{% endmacro %}{{ f(99) }}",
    "{% set ns = namespace(s='a') %}{% for i in range(30) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    "{% filter upper %}{{ text }}{% endfilter %}",
    "{% include 'x' %}",
    "{% raw %}{{ 'a' * 10**9 }}{% endraw %}",
    "{# 'a' * 10**9 #}{{ text }}",
    "{{ '%1000000000d' | format(1) }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '%*d' % (1000000000, 1) }}",
    "{{ '{:>1000000000}'.format(1) }}",
    "{{ [1, 2] | slice(100000000) | list }}",
    "{{ [1, 2] | batch(1000000000, 0) | list }}",
    "{{ 'a'.ljust(1000000000) }}",
    "{{ 'a'.center(1000000000) }}",
    "{{ 'a'.zfill(1000000000) }}",
    "{{ 'a' | center(1000000000) }}",
    "{{ 'a' | center(200000000) }}",
    "{{ 'a' | indent(1000000000) }}",
    "{{ 'ab'.replace('a', text) }}",
    "{{ lipsum(n=100000) }}",
    "{{ text | wordwrap(1) }}",
    "{{ range(10 ** 9) | list }}",
    "{{ text | tojson(indent=100000000) }}",
    "{{ some | tojson(100000000) }}",
    "{{ numbers | join(text) }}",
    "{{ text | list | join(text) }}",
    "{{ ''.__class__.__mro__ }}",
    "{{ ''['__class__'] }}",
    "{{ text.upper() }}",
    "{{ some.append(1) }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ " + " ~ ".join(["text"] * 120) + " }}",
    "{{ " + "(" * 200 + "1" + ")" * 200 + " }}",
    "{{ " + "[" * 1200 + "]" * 1200 + " }}",
    "{{ " + "not " * 1000 + "1 }}",
    "{{ " + "-" * 4000 + "1 }}",
    "{{ " + "1+" * 2000 + "1 }}",
    "{{ x" + ".a" * 2000 + " }}",
    "{{ x" + "[0]" * 1300 + " }}",
    "{{ x" + "|lower" * 600 + " }}",
    "{{ " + "1 if 1 else " * 300 + "1 }}",
    "{{ " + "0 < " * 900 + "1 }}",
]

_OF_NUMBERS = [
    "{{ 1e999 }}",
    "{{ 1e308 * 10 }}",
    "{{ " + "9" * 4000 + " }}",
    "{{ 0x" + "f" * 4000 + " }}",
    "{{ " + "1_" * 2000 + "1 }}",
    "{{ " + "1" * 2000 + "e" + "1" * 2000 + " }}",
    "{{ " + " * ".join(["9999999999"] * 120) + " }}",
    "{{ (" + " * ".join(["9999999999"] * 30) + ") ~ '' }}",
    "{{ " + " * ".join(["giants[0]"] * 120) + " }}",
    "{{ giants[0] + 1 }}",
    "{{ giants[0] % 7 }}",
    "{{ giants[0] == giants[1] }}",
    "{{ giants | string }}",
    "{{ [giants, giants, giants, giants] | string }}",
    "{{ [giants, giants, giants, giants] | tojson }}",
    "{{ giants | join }}",
    "{{ 5 | round(1000000000) }}",
    "{{ 5 | round(-1000000000) }}",
    "{{ giants[0] | round(-4000) }}",
    "{{ 1.5 | round(100000) }}",
    "{{ ('9' ~ piece) | int }}",
    "{{ text | float }}",
    "{{ blank | int }}",
    "{{ 7 % 0 }}",
]

_OF_LARGE_VALUES = [
    f"{{{{ {expression} }}}}"
    for name in sorted(RESULTS.keys() - {"blank", "chunk", "fractions", "lists", "piece", "words"})
    for expression in (
        name,
        f"{name} | tojson",
        f"{name} | string",
        f"{name} ~ {name}",
        f"{name} | b64encode",
        f"{name} | lower | upper | trim",
        f"{name} | join(',')",
        f"{name} == {name}",
        f"{name} + {name}",
        f"{name}[1:] == {name}[:-1]",
        f"{name} < {name}",
        f"{name} in [{name}, {name}]",
        f"'b' in {name}",
        "[" + ", ".join([name] * 120) + "] | tojson",
        "[" + ", ".join([name] * 120) + "] | string",
        "[" + ", ".join([name] * 120) + "] | join",
        "[" + ", ".join([name] * 120) + "]",
        "[" + ", ".join([f"({name} | upper)"] * 60) + "]",
        "[" + ", ".join([f"({name} | tojson)"] * 60) + "]",
        "[" + ", ".join([f"{name}[:65536]"] * 40) + "] | length",
        " or ".join([f"{name}[1:] == {name}[:-1]"] * 20),
        " or ".join([f"'ba' in {name}"] * 60),
        " or ".join([f"[{name}] == [{name}]"] * 40) + " and false",
        " and ".join([f"{name} == {name}"] * 80),
        "{" + ", ".join(f"'{key}': {name}" for key in range(80)) + "} == {}",
    )
]

_OF_SEARCHES = [
    "{{ " + " or ".join([f"'{'a' * 4}b' in text"] * 60) + " }}",
    "{{ " + " or ".join([f"'{'a' * 30}b' in text"] * 60) + " }}",
    "{{ " + " or ".join([f"'b{'a' * 30}' in text"] * 60) + " }}",
    "{{ (piece ~ 'b') in text }}",
    "{{ " + " or ".join(["piece in text"] * 80) + " }}",
    "{{ " + " or ".join(["'x' in words"] * 80) + " }}",
    "{{ " + " or ".join(["[] in objects"] * 80) + " }}",
    "{{ " + " or ".join(["records in [records, records]"] * 40) + " }}",
    "{{ lists in lists }}",
    "{{ {} in keys }}",
    "{{ keys in {'a': 1} }}",
    "{{ {1: 2, 'a': 3} | tojson }}",
    "{{ {piece: 1} | string }}",
    "{{ text[::-1] }}",
    "{{ text[:: 10 ** 9] }}",
    "{{ numbers[::-1] }}",
    "{{ numbers[-999999999999999999999:999999999999999999999] }}",
    "{{ text['a':] }}",
    "{{ '" + "\\x41" * 1000 + "' }}",
    "{{ '" + "\\N{GREEK SMALL LETTER ALPHA}" * 140 + "' }}",
    "{{ '" + "a" * 4000,
    "{{ " + "'a' " * 900 + " }}",
    "{{ " + "{" * 400 + " }}",
    "{{ {" + ", ".join(f"'{key}': text" for key in range(100)) + "} }}",
]

CONDITIONS = [*_OF_THE_SANDBOX, *_OF_NUMBERS, *_OF_LARGE_VALUES, *_OF_SEARCHES]
TEMPLATES = [
    *_OF_THE_SANDBOX,
    *[f"{{{{ [{name}, {name}] }}}} and {{{{ {name} }}}}" for name in RESULTS],
    *["{{ [" + ", ".join([name] * 120) + "] }}" for name in RESULTS],
    "{{ piece }}" * 1000,
    "{{ text }}" * 4000,
    "{{ a }}" * 9000,
    "x" * 65_000 + "{{ text }}",
    "x" * MEBIBYTE + "{{ text }}",
    "{" * 65_000,
    "{{" * 30_000,
    "{#" * 30_000,
    "{%" * 30_000,
    "{{ '" * 16_000,
    "{{ " + "1" * 65_000 + " }}",
    "{{ " + "1_" * 32_000 + " }}",
    "{{ " + " " * 65_000 + " }}",
    "{{ " + "\n" * 65_000 + " }}",
    "{{ " + "a." * 32_000 + "b }}",
    "{% raw %}" * 7_000,
    "\r" * 60_000 + "{{ 1 }}",
    "{{ chunk }}{{ chunk }}",
    "{{ invisible }}{{ [invisible] }}",
]
STRUCTURES: dict[str, object] = {
    "a thousand copies of a result": [f"{{{{ {name} }}}}" for name in RESULTS] * 60,
    "a thousand copies of lists": ["{{ lists }}"] * 1000,
    "a thousand copies of objects": ["{{ objects }}"] * 1000,
    "texts that grow": ["{{ piece ~ piece[:50000] }}"] * 200,
    "deep": json.loads("[" * 900 + '"{{ text }}"' + "]" * 900),
}


class Cost(NamedTuple):
    """What a bomb costs: CPU seconds and peak bytes."""

    cpu: float
    peak: int


class Measured(NamedTuple):
    """One measured bomb; `outcome` is what came of it, for the reader of a failing test."""

    name: str
    compiled: Cost
    evaluated: Cost
    outcome: str


def measure(work: Callable[[], object]) -> tuple[Cost, str]:
    """The cost of work that may be refused: the better CPU time of two runs, and the peak of a third."""
    outcome = ""

    def run() -> object:
        nonlocal outcome
        try:
            made = work()
        except (ExpressionError, ExpressionInvalid) as refusal:
            outcome = f"refused: {refusal}"[:120]
            return None
        outcome = f"{type(made).__name__}"
        return made

    seconds = []
    for _ in range(2):
        start = time.process_time()
        made = run()
        seconds.append(time.process_time() - start)
        del made
        if seconds[0] < 0.02:
            break
    tracemalloc.start()
    made = run()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    del made
    return Cost(min(seconds), peak), outcome


def _measure_text(kind: str, text: str, context: dict[str, object]) -> Measured:
    blanks = itertools.count(1)

    def compile_anew() -> Callable[[], object]:
        """Compile past the cache: blanks inside an expression mean nothing but make another text."""
        fresh = text.replace("{{", "{{" + " " * next(blanks), 1)
        if kind == "condition":
            condition = compile_condition(fresh, None)
            return lambda: condition.evaluate(context)
        template = compile_template(fresh)
        return lambda: template.render(context)

    compiled, outcome = measure(compile_anew)
    evaluated = Cost(0, 0)
    if not outcome.startswith("refused"):
        evaluated, outcome = measure(compile_anew())
    return Measured(f"{kind} {shorten(text)}", compiled, evaluated, outcome)


def _measure_work(name: str, work: Callable[[], object]) -> Measured:
    cost, outcome = measure(work)
    return Measured(name, Cost(0, 0), cost, outcome)


def list_names() -> list[str]:
    """The name of every bomb, as `Measured` has it."""
    return [
        *[f"condition {shorten(text)}" for text in CONDITIONS],
        *[f"template {shorten(text)}" for text in TEMPLATES],
        *[f"structure {name}" for name in STRUCTURES],
        *[f"decision on {name}" for name in RESULTS],
    ]


def measure_all() -> Iterator[Measured]:
    """Every bomb, measured in turn, after the two controls that must be seen to cost too much."""
    context: dict[str, object] = {name: json.loads(text) for name, text in RESULTS.items()}
    gc.freeze()
    compile_condition("{{ 1 }}", None)
    yield _measure_work(MEMORY_CONTROL, lambda: bytes(11_000_000))
    yield _measure_work(CPU_CONTROL, lambda: all(itertools.repeat(True, 30_000_000)))
    for text in CONDITIONS:
        yield _measure_text("condition", text, context)
    for text in TEMPLATES:
        yield _measure_text("template", text, context)
    for name, structure in STRUCTURES.items():
        yield _measure_work(f"structure {name}", partial(render_value, structure, context))
    policy = RetryPolicy(retry_when="{{ data.x == 1 }}", stop_when="{{ result | tojson | length > 3 }}")
    for name, result in RESULTS.items():
        failed = FailedAttempt(1, 3, timedelta(), "q", "k", Failure("e", "t", result_json=result))
        yield _measure_work(f"decision on {name}", partial(decide, policy, failed, 0.5))


def shorten(text: str) -> str:
    """A text short enough to name a test, and still its own."""
    if len(text) <= 90:
        return text
    return f"{text[:60]}… {len(text)} characters, {zlib.crc32(text.encode()):08x}"


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    for measured in measure_all():
        sys.stdout.write(json.dumps(measured) + "\n")
        sys.stdout.flush()
