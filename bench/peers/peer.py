"""The peers that can be measured: how each is installed, and how its program is run and metered."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.measurement import Row
from bench.metering import Meter
from bench.report.medians import percentiles
from bench.testbed import ProcessFailed, checkpoint
from bench.workload import Site

_SOURCES = Path(__file__).parent
_INSTALL_SECONDS = 240
_RUN_SECONDS = 150


class NotToBeHad(Exception):
    """The peer cannot be installed here; the text says why."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One peer: its name, what to know beside its figures, how to install it into a folder, and how much it can take in some seconds."""

    name: str
    remark: str
    install: Callable[[Path], list[str]]  # gives the command of its program; raises NotToBeHad
    share_of_jobs: float = 1.0


@dataclass(frozen=True, slots=True)
class PeerTask:
    """What the program is told, but for its database."""

    figure: str
    jobs: int
    batch: int
    payload: str
    callers: int = 16
    spread_seconds: float = 0.0


def run(peer: Peer, command: list[str], site: Site, task: PeerTask) -> Iterator[Row]:
    """What the program measures; `site` is the peer's database. Raises ProcessFailed."""
    checkpoint(site.database_url)
    told = json.dumps({"database_url": site.database_url, **asdict(task)})
    with subprocess.Popen(
        [*command, told], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        meter = Meter(site, process.pid)
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            for line in process.stdout:
                message = json.loads(line)
                if "begin" in message:
                    meter.start()
                elif "end" in message:
                    values = meter.stop(message["jobs"])
                    process.stdin.write(
                        "\n"
                    )  # it waits for that: of a process that has gone no CPU time can be read
                    process.stdin.flush()
                    yield Row(message["end"], peer.name, _setting(task), values, peer.remark)
                else:
                    yield Row(
                        message["waits"], peer.name, "", percentiles(message["milliseconds"]), peer.remark
                    )
            code = process.wait(_RUN_SECONDS)
        finally:
            process.kill()
        if code != 0:
            raise ProcessFailed(f"{peer.name} ended with code {code}:\n{process.stderr.read()[-2000:]}")


def _setting(task: PeerTask) -> str:
    return f"{task.callers} connections" if task.figure == "one by one" else f"batches of {task.batch}"


def _install(command: list[str | Path], folder: Path) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=False, timeout=_INSTALL_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotToBeHad(str(error)) from error
    if done.returncode != 0:
        raise NotToBeHad((done.stderr.strip() or done.stdout.strip()).splitlines()[-1])


def _copied(name: str, folder: Path) -> Path:
    """The peer's sources in a folder where its packages may come too."""
    target = folder.absolute() / name
    shutil.copytree(_SOURCES / name, target, dirs_exist_ok=True)
    return target


def _go(name: str) -> Callable[[Path], list[str]]:
    def install(folder: Path) -> list[str]:
        if shutil.which("go") is None:
            raise NotToBeHad("no Go here")
        sources = _copied(name, folder)
        _install(["go", "build", "-o", "program", "."], sources)
        return [str(sources / "program")]

    return install


def _python(name: str) -> Callable[[Path], list[str]]:
    def install(folder: Path) -> list[str]:
        sources = _copied(name, folder)
        _install([sys.executable, "-m", "venv", ".venv"], sources)
        python = sources / ".venv" / "bin" / "python"
        _install(
            [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r", "requirements.txt"],
            sources,
        )
        return [str(python), str(sources / "program.py")]

    return install


def _node(name: str) -> Callable[[Path], list[str]]:
    def install(folder: Path) -> list[str]:
        if shutil.which("npm") is None:
            raise NotToBeHad("no npm here")
        sources = _copied(name, folder)
        _install(["npm", "ci", "--no-audit", "--no-fund"], sources)
        return [str(sources / "node_modules" / ".bin" / "node"), str(sources / "program.js")]

    return install


PEERS: Mapping[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer("River", "no server, no event log", _go("river")),
        Peer("PgQueuer", "no server, three log rows", _python("pgqueuer")),
        Peer("graphile-worker", "no server, no history", _node("graphile_worker")),
        Peer("Procrastinate", "no server, three log rows", _python("procrastinate"), 0.05),
    )
}
