"""One part as a child process: its log file, the line that says it is ready, its end."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from broker.embedded.identity import Identity, launch_command

_READY_SECONDS = 60.0
_LINES_SHOWN = 12


class ChildFailed(Exception):
    """A part did not become ready. The text begins with the error that the part gave, or else ends with the last lines of its log."""


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """How to run a part. `ready` is what its log says once it works; `environment` is added to ours, None removes a variable.

    `on_parent_death` is what the part gets when this process is killed. `stop_seconds`: how long it may take to end.
    """

    name: str
    command: Sequence[str]
    log: Path
    ready: str
    environment: Mapping[str, str | None]
    on_parent_death: signal.Signals
    stop_seconds: float


class Child:
    """A started part. Its output is appended to its log file."""

    def __init__(self, spec: ChildSpec) -> None:
        self.spec = spec
        self._log_start = spec.log.stat().st_size if spec.log.exists() else 0
        changed = {**os.environ, **spec.environment}
        with spec.log.open("ab") as log:
            # A session of its own: Ctrl-C in a terminal reaches this process alone, which stops the parts in their order.
            self._process = subprocess.Popen(  # noqa: S603
                launch_command(Identity.OWN, spec.command, on_parent_death=spec.on_parent_death),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={name: value for name, value in changed.items() if value is not None},
                start_new_session=True,
            )

    @property
    def exit_code(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._process.poll()

    def wait_until_ready(self) -> str:
        """The rest of the line after `ready`. Raises ChildFailed when the part ends instead, or says nothing for a minute."""
        give_up_at = time.monotonic() + _READY_SECONDS
        while True:
            ended = self.exit_code is not None
            written = self._written()
            _, found, rest = written.partition(self.spec.ready)
            if found and "\n" in rest:
                return rest.partition("\n")[0].strip()
            if ended or time.monotonic() > give_up_at:
                how = f"ended with code {self.exit_code}" if ended else "is not ready after a minute"
                raise ChildFailed(self._explain(how, written))
            time.sleep(0.02)

    def _explain(self, how: str, written: str) -> str:
        """What a command of ours says last, after "Error: ", is what people need; what it logged before that is in its log."""
        where = f"the {self.spec.name} {how}, see {self.spec.log}"
        _, found, error = f"\n{written}".rpartition("\nError: ")
        lines = error.splitlines()[:_LINES_SHOWN] if found else written.splitlines()[-_LINES_SHOWN:]
        return "\n".join([*lines, where] if found else [f"{where}:", *lines])

    def stop(self) -> None:
        """Asks the part to end, and kills it when it takes too long."""
        self._process.terminate()
        try:
            self._process.wait(self.spec.stop_seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _written(self) -> str:
        with self.spec.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")
