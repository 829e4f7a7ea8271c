"""Machines of their own (network namespaces) for a seed and volunteers; a plugin of the test modules that use its fixtures."""

import contextlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import wan
from tests.terminal import Job, Terminal, until

LINE = wan.LineRate(up_bits=200e6, down_bits=200e6, round_trip_seconds=0.004)
SMALL = (
    "--set rounds.min_seated=2 --set task.model.fields.n_embd=32 --set task.model.fields.n_layer=1 --set task.model.fields.n_head=2 "
    "--set codec.part_values=4096 --set task.data.context=32 --set inner.steps_per_unit=1 "
    "--set inner.total_units=1000000"  # nobody is to reach the run's end
)
DEAD, DEAD6 = "/ip4/10.77.0.99/tcp/4001", "/ip6/fd77::63/tcp/4001"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        program = wan.build(tmp_path_factory.mktemp("wan"))
        with wan.line(program, 2, LINE):
            return program
    except wan.WanUnavailable as error:
        pytest.skip(f"no network namespaces here: {error}")


class Swarm:
    """A seed on the first machine, and volunteers on others."""

    def __init__(self, terminal: Terminal, places: list[wan.Place], run: Path) -> None:
        self.terminal, self.places = terminal, places
        shutil.copytree(run, terminal.cwd / "run")
        self.seed = self.start(0, "seed", "sparehive seed run")

    def start(self, place: int, name: str, command: str) -> Job:
        if not (self.terminal.cwd / name).exists():
            self.terminal.rest(name)
        return self.terminal.start(f"exec {command} --dir {name}", self.places[place].prefix)

    def join(self, place: int, name: str, options: str = "") -> Job:
        self.wait(self.seed, "the seed serves", lambda: (self.terminal.cwd / "seed" / "ready.json").exists())
        return self.start(place, name, f"sparehive join seed/invite.txt {options}")

    def status(self, name: str) -> dict[str, Any]:
        with contextlib.suppress(OSError, ValueError):
            found = json.loads((self.terminal.cwd / name / "status.json").read_text())
            assert isinstance(found, dict)
            return found
        return {}

    def advice(self, name: str) -> dict[str, str]:
        return {each["code"]: each["text"] for each in self.status(name).get("advice", [])}

    def wait(self, job: Job, what: str, holds: Callable[[], object], seconds: float = 120.0) -> None:
        until(lambda: holds() or job.process.poll() is not None, seconds, lambda: f"{what}: {job.output()}")
        assert holds(), job.output()


@pytest.fixture(scope="module")
def made(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of their own for each swarm, from one that was made once."""
    with Terminal(tmp_path_factory.mktemp("made") / "home") as terminal:
        terminal.run(f"sparehive run new run --preset demo {SMALL}")
        return terminal.cwd / "run"


@pytest.fixture
def swarm(program: Path, made: Path, tmp_path: Path) -> Iterator[Swarm]:
    with wan.line(program, 3, LINE) as places, Terminal(tmp_path / "home") as terminal:
        yield Swarm(terminal, places, made)


@pytest.fixture
def swarm6(program: Path, made: Path, tmp_path: Path) -> Iterator[Swarm]:
    """Machines without an IPv4 address."""
    with contextlib.ExitStack() as stack:
        try:
            places = stack.enter_context(wan.line(program, 3, LINE, ip_version=6))
        except wan.WanUnavailable as error:
            pytest.skip(f"no IPv6 here: {error}")
        yield Swarm(stack.enter_context(Terminal(tmp_path / "home")), places, made)


def receipts(job: Job) -> int:
    found = re.findall(r"(\d+) receipts?", job.output())
    return int(found[-1]) if found else 0
