"""Volunteers on machines of their own (network namespaces): what one command does there, and what it says when it cannot be paid."""

import contextlib
import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import wan
from tests.terminal import Job, Terminal, until

LINE = wan.LineRate(up_bits=200e6, down_bits=200e6, round_trip_seconds=0.004)
SMALL = (
    "--set rounds.min_seated=2 --set model.fields.n_embd=32 --set model.fields.n_layer=1 --set model.fields.n_head=2 "
    "--set codec.part_values=4096 --set data.context=32"
)
DEAD = "/ip4/10.77.0.99/tcp/4001"
pytestmark = pytest.mark.timeout(300)


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

    def __init__(self, terminal: Terminal, places: list[wan.Place]) -> None:
        self.terminal, self.places = terminal, places
        terminal.run(f"sparehive run new run --preset demo {SMALL}")
        self.seed = self.start(0, "seed", "sparehive seed run")

    def start(self, place: int, name: str, command: str) -> Job:
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


@pytest.fixture
def swarm(program: Path, tmp_path: Path) -> Iterator[Swarm]:
    with wan.line(program, 3, LINE) as places, Terminal(tmp_path / "home") as terminal:
        yield Swarm(terminal, places)


def receipts(job: Job) -> int:
    found = re.findall(r"(\d+) receipts?", job.output())
    return int(found[-1]) if found else 0


def test_an_announced_address_that_answers_nobody_is_told_and_not_used(swarm: Swarm) -> None:
    """Both are reached at the addresses that their machines have, so both are paid all the same."""
    jobs = {name: swarm.join(place, name, f"--announce {DEAD}") for place, name in ((1, "alice"), (2, "bob"))}
    for name, job in jobs.items():
        swarm.wait(job, f"{name} is told", lambda job=job: f"note: {DEAD}, which --announce names" in job.output())
        swarm.wait(job, f"{name} is paid", lambda job=job: receipts(job) >= 2)
        assert all(DEAD not in address for address in swarm.status(name)["addresses"])


def test_two_that_nobody_reaches_are_told_that_they_cannot_be_paid(swarm: Swarm) -> None:
    """One listens nowhere, the other where only its own machine gets in."""
    jobs = {"alice": swarm.join(1, "alice", "--client"), "bob": swarm.join(2, "bob", "--host 127.0.0.1")}
    for name, job in jobs.items():
        swarm.wait(job, f"{name} is told", lambda job=job: "note: none of the 1 other peers can be" in job.output())
        assert "no-witness" in swarm.advice(name)
    assert swarm.status("bob")["reachable"] is False and "unreachable" in swarm.advice("bob")


def test_two_on_one_machine_that_no_other_reaches_pay_each_other(swarm: Swarm) -> None:
    """The seed, elsewhere, sees both from one address and tells each of the other."""
    jobs = [swarm.join(1, name, "--host 127.0.0.1") for name in ("alice", "bob")]
    for job in jobs:
        swarm.wait(job, "it is paid", lambda job=job: receipts(job) >= 2)


def test_who_is_alone_is_told_so_and_a_deaf_seed_mends_itself(swarm: Swarm) -> None:
    alice = swarm.join(1, "alice")
    swarm.wait(alice, "alice is told", lambda: "alone" in swarm.advice("alice"))
    first = swarm.status("seed")["pid"]
    ours = _listening(first)
    assert len(ours) == 1
    for path in ours:
        os.unlink(path)
    swarm.wait(swarm.seed, "the seed starts anew", lambda: swarm.status("seed").get("pid") not in (None, first), 40.0)
    assert "p2p daemon" in swarm.seed.output()
    bob = swarm.join(2, "bob")
    swarm.wait(bob, "bob, with the old invite, is paid", lambda: receipts(bob) >= 1)
    assert swarm.seed.process.poll() is None
    swarm.seed.process.send_signal(signal.SIGTERM)


def _listening(pid: int) -> list[str]:
    """Paths of the unix sockets at which process `pid` itself listens: where its p2p daemon hands over streams."""
    held = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            held.add(os.readlink(descriptor))
    rows = [line.split() for line in Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:]]
    return sorted({row[7] for row in rows if len(row) > 7 and row[5] == "01" and f"socket:[{row[6]}]" in held})


def test_a_joiner_is_told_whether_the_seed_is_silent_or_has_nothing(swarm: Swarm) -> None:
    """Said while it tries, not after minutes. The invite first leads to a machine where nobody listens."""
    swarm.wait(swarm.seed, "the seed serves", lambda: (swarm.terminal.cwd / "seed" / "ready.json").exists())
    swarm.seed.process.send_signal(signal.SIGTERM)
    swarm.seed.process.wait(30)
    early = swarm.start(1, "early", "sparehive join seed/invite.txt")
    swarm.wait(early, "it is told", lambda: "note: linked to nobody yet: " in early.output())
    assert re.search(r"/ip4/10\.77\.0\.1/tcp/\d+ does not answer", early.output())
    (swarm.terminal.cwd / "seed" / "ready.json").unlink()
    swarm.start(0, "seed", "sparehive seed run --announce " + DEAD)
    swarm.wait(early, "the seed is back at its old port", lambda: "training from" in early.output())
    seed = swarm.terminal.jobs[-1]
    swarm.wait(
        seed, "its operator is told", lambda: f"note: {DEAD}, which the invite names, answers none" in seed.output()
    )
