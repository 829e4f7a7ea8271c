"""A user's terminal: the command `sparehive` of this checkout on PATH, bash, an empty directory, and nothing left behind."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parents[1]
REST_SECONDS = 0.1


def until(condition: Callable[[], object], seconds: float, what: Callable[[], str]) -> None:
    """AssertionError with `what()` where the condition does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"after {seconds:.0f} s not yet: {what()}"
        time.sleep(0.1)


class Job:
    """A script in the background; its output goes to a file. `prefix` stands before the command: where it runs."""

    def __init__(
        self, script: str, cwd: Path, environment: dict[str, str], log: Path, prefix: Sequence[str] = ()
    ) -> None:
        self.script, self.log = script, log
        with open(log, "wb") as output:
            self.process = subprocess.Popen(
                [*prefix, "bash", "-euc", script],
                cwd=cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def interrupt(self) -> None:
        """As Ctrl-C does it: SIGINT to the whole foreground group."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGINT)

    def ended(self, seconds: float = 30.0) -> int:
        """The exit status; who does not end in time is killed."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        return self.process.returncode

    def stop(self, seconds: float = 30.0) -> int:
        """`interrupt`, and how it `ended`."""
        self.interrupt()
        return self.ended(seconds)


class Terminal:
    """Runs scripts one after the other or in the background; a context manager that ends what it started."""

    def __init__(self, cwd: Path, **variables: str) -> None:
        self.cwd = cwd
        programs = cwd.with_name(cwd.name + "-bin")
        programs.mkdir(parents=True)
        cwd.mkdir(exist_ok=True)
        command = programs / "sparehive"
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m peers "$@"\n')
        command.chmod(0o755)
        self.environment = {
            **os.environ,
            **variables,
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
        }
        self.jobs: list[Job] = []

    def run(self, script: str, seconds: float = 120.0) -> str:
        """To its end; stdout. AssertionError where any command fails."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.cwd,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def start(self, script: str, prefix: Sequence[str] = ()) -> Job:
        job = Job(script, self.cwd, self.environment, self.cwd / f"job-{len(self.jobs)}.log", prefix)
        self.jobs.append(job)
        return job

    def rest(self, *directories: str, config: str = "") -> None:
        """Peers that are to be started there leave the two cores to the other tests: a pause after each step. `config`: more lines
        for their peer.toml."""
        for each in directories:
            (self.cwd / each).mkdir(parents=True, exist_ok=True)
            (self.cwd / each / "peer.toml").write_text(f"step_pause_seconds = {REST_SECONDS}\n{config}")

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for job in self.jobs:
            job.interrupt()
        for job in self.jobs:  # leaving takes seconds, of all at once
            job.ended()
