"""The two systems behind one interface: started as their users start them, each process in its place, ended by id."""

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.wan import Place
from benchmarks.workload import CHECKOUT, Workload
from peers.directory import PeerDirectory
from peers.watching import read_events

START_SECONDS = 240.0
STOP_SECONDS = 20.0


class SwarmFailed(Exception):
    """A process ended early or did not come up; the text has its last words."""


@dataclass(frozen=True)
class Counters:
    """What a peer says of itself. Seconds of wall clock, since it could train."""

    inner_steps: int
    inner_seconds: float
    rest_seconds: float
    training_seconds: float

    def since(self, earlier: "Counters") -> "Counters":
        return Counters(
            self.inner_steps - earlier.inner_steps,
            self.inner_seconds - earlier.inner_seconds,
            self.rest_seconds - earlier.rest_seconds,
            self.training_seconds - earlier.training_seconds,
        )

    @property
    def utilisation(self) -> float:
        """Share of time in inner steps; the rest after a step stands for a part of it."""
        return (self.inner_seconds + self.rest_seconds) / max(1e-9, self.training_seconds)

    @property
    def steps_per_second(self) -> float:
        return self.inner_steps / max(1e-9, self.training_seconds)


def loss_at(known: list[tuple[int, float]], units: int) -> float:
    """The loss after `units`, between the two neighbours in `known` (units, loss; ascending); the last one beyond them."""
    before = known[0]
    for at, loss in known:
        if at >= units:
            share = (units - before[0]) / (at - before[0]) if at > before[0] else 1.0
            return before[1] + share * (loss - before[1])
        before = (at, loss)
    return before[1]


ZERO = Counters(0, 0.0, 0.0, 0.0)


def read_json(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, json.JSONDecodeError):
        return dict(json.loads(path.read_text(encoding="utf-8")))
    return {}


@dataclass
class Swarm:
    """One swarm. `places[0]` is the bootstrap's or seed's, the others the peers'."""

    root: Path
    run: Path
    work: Workload
    places: list[Place]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    ends_at: float = math.inf  # monotonic: not ready by then has failed
    cancelled: threading.Event = field(default_factory=threading.Event)  # set from outside: end at once

    # -- for each system ----------------------------------------------------------------------------------------------
    def start(self) -> None:
        """Start everything and wait until all peers are ready to train."""
        raise NotImplementedError

    def go(self) -> None:
        """Let them train, if they wait for it."""

    def finished(self) -> bool:
        raise NotImplementedError

    def epochs(self) -> int:
        raise NotImplementedError

    def samples(self) -> int:
        raise NotImplementedError

    def loss(self) -> float | None:
        """Held-out, after `samples()`; None: not known yet."""
        raise NotImplementedError

    # -- for both -----------------------------------------------------------------------------------------------------
    def spawn(self, name: str, place: Place, *module: str) -> Path:
        """A Python module in a place; its directory."""
        directory = self.root / name
        directory.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "TOKENIZERS_PARALLELISM": "false"}
        with open(self.root / f"{name}.log", "wb") as log:
            self.processes.append(
                subprocess.Popen(
                    place.command(sys.executable, "-m", *module),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=CHECKOUT,
                    env=environment,
                    start_new_session=True,
                )
            )
        return directory

    def directories(self) -> list[Path]:
        """Of the peers that train."""
        return [self.root / f"peer{number}" for number in range(1, self.work.peers + 1)]

    def pids(self) -> list[int]:
        """Of the peers that train: the roots of their process trees."""
        return [process.pid for process in self.processes[1:]]

    def counters(self) -> list[Counters]:
        found = []
        for directory in self.directories():
            status = read_json(directory / "status.json")
            names = ("inner_steps", "inner_seconds", "rest_seconds", "training_seconds")
            found.append(Counters(*(status[name] for name in names)) if status.get(names[-1]) is not None else ZERO)
        return found

    def check(self) -> None:
        """`SwarmFailed` if a process has ended or the benchmark is to stop."""
        if self.cancelled.is_set():
            raise SwarmFailed("stopped")
        for number, process in enumerate(self.processes):
            if process.poll() is not None:
                raise SwarmFailed(
                    f"process {number} of {self.root.name} ended ({process.returncode}): {self._words(number)}"
                )

    def _words(self, number: int) -> str:
        log = self.root / ("base.log" if number == 0 else f"peer{number}.log")
        return " | ".join(log.read_text(errors="replace", encoding="utf-8").splitlines()[-3:])

    def wait_for(self, *paths: Path) -> None:
        begun = time.monotonic()
        while missing := [path for path in paths if not path.exists()]:
            self.check()
            if time.monotonic() > min(self.ends_at, begun + START_SECONDS):
                name, waited = missing[0].relative_to(self.root), time.monotonic() - begun
                raise SwarmFailed(f"{name} was not there after {waited:.0f} s")
            time.sleep(0.1)

    def stop(self) -> None:
        """SIGTERM to what was started here, SIGKILL to the process groups of what does not end; idempotent."""
        for process in reversed(self.processes):
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for process in self.processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.processes.clear()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        try:
            self.start()
            yield
        finally:
            self.stop()


class SparehiveSwarm(Swarm):
    """`sparehive seed` and `sparehive join`, with nothing but public commands and peer.toml."""

    def start(self) -> None:
        seed = self.spawn(
            "base", self.places[0], "peers", "seed", str(self.run), "--dir", str(self.root / "base"),
            "--host", self.places[0].address, "--quiet",
        )  # fmt: skip
        self.wait_for(seed / "ready.json", seed / "invite.txt")
        for number, place in enumerate(self.places[1:], 1):
            directory = self.root / f"peer{number}"
            directory.mkdir(parents=True)
            settings = f'step_pause_seconds = {self.work.pause_seconds}\nafter_end = "serve"\n'  # what it did is read while it runs
            (directory / "peer.toml").write_text(settings, encoding="utf-8")
            self.spawn(
                f"peer{number}", place, "peers", "join", str(seed / "invite.txt"), "--dir", str(directory),
                "--host", place.address, "--quiet",
            )  # fmt: skip
        self.wait_for(*(directory / "ready.json" for directory in self.directories()))
        while any(counters.training_seconds <= 0 for counters in self.counters()):
            self.check()
            if time.monotonic() > self.ends_at:
                raise SwarmFailed("the peers are ready but do not train")
            time.sleep(0.1)

    def _events(self, name: str) -> list[dict[str, Any]]:
        """Of the seed, which follows every certificate and evaluates the anchors."""
        return [event for event in read_events(PeerDirectory(self.root / "base")) if event.get("event") == name]

    def _rounds(self) -> list[dict[str, Any]]:
        return [event for event in self._events("Certified") if event["kind"] == 0 and event["units"] > 0]

    def _last(self) -> dict[str, Any] | None:
        """The first certificate with all samples in it, or the newest one."""
        rounds = self._rounds()
        enough = [event for event in rounds if event["cumulative_units"] >= self.work.total_units]
        return enough[0] if enough else rounds[-1] if rounds else None

    def finished(self) -> bool:
        last = self._last()
        return last is not None and last["cumulative_units"] >= self.work.total_units

    def epochs(self) -> int:
        last = self._last()
        return 0 if last is None else sum(event["epoch"] <= last["epoch"] for event in self._rounds())

    def samples(self) -> int:
        last = self._last()
        return 0 if last is None else int(last["cumulative_units"]) * self.work.samples_per_unit

    def loss(self) -> float | None:
        """At the workload's samples: between the anchors just before and just after them, on a straight line."""
        last = self._last()
        if last is None:
            return None
        losses = {event["epoch"]: float(event["loss"]) for event in self._events("Evaluated")}
        if last["epoch"] not in losses:
            return None
        units = {0: 0} | {event["epoch"]: int(event["cumulative_units"]) for event in self._events("Certified")}
        known = [
            (units[epoch], loss) for epoch, loss in sorted(losses.items()) if epoch in units and epoch <= last["epoch"]
        ]
        return loss_at(known, self.work.total_units)


class HivemindSwarm(Swarm):
    """`hivemind.DHT` and `hivemind.Optimizer` of the installed hivemind, a script per peer."""

    variant = "default"

    def start(self) -> None:
        module = "benchmarks.hivemind_peer"
        base = self.spawn("base", self.places[0], module, "bootstrap", str(self.root / "base"), self.places[0].address)
        self.wait_for(base / "ready.json")
        address = read_json(base / "ready.json")["addresses"][0]
        for number, place in enumerate(self.places[1:], 1):
            self.spawn(
                f"peer{number}", place, module, "peer", str(self.root / f"peer{number}"), place.address,
                "--run", str(self.run), "--address", address, "--index", str(number), "--variant", self.variant,
                "--epochs", str(self.work.epochs), "--pause", str(self.work.pause_seconds),
            )  # fmt: skip
        self.wait_for(*(directory / "ready.json" for directory in self.directories()))

    def go(self) -> None:
        (self.root / "go").touch()

    def _statuses(self) -> list[dict[str, Any]]:
        return [read_json(directory / "status.json") for directory in self.directories()]

    def finished(self) -> bool:
        return all(status.get("finished") for status in self._statuses())

    def epochs(self) -> int:
        return min(int(status.get("epoch", 0)) for status in self._statuses())

    def samples(self) -> int:
        return sum(int(status.get("samples", 0)) for status in self._statuses())

    def loss(self) -> float | None:
        """Mean over the peers, whose parameters may differ."""
        found = [float(status["loss"]) for status in self._statuses() if "loss" in status]
        return sum(found) / len(found) if len(found) == self.work.peers else None


def hivemind_variant(variant: str) -> type[HivemindSwarm]:
    return type(f"Hivemind{variant.title()}Swarm", (HivemindSwarm,), {"variant": variant})


def run_alone(root: Path, run: Path, work: Workload) -> dict[str, Any]:
    """A lone trainer on this machine, with nothing beside it: the speed that utilisation cannot see past."""
    directory = root / "alone"
    done = subprocess.run(
        [
            sys.executable, "-m", "benchmarks.hivemind_peer", "alone", str(directory), "-", "--run", str(run),
            "--steps", str(work.steps_per_peer), "--epochs", str(work.epochs), "--pause", str(work.pause_seconds),
        ],
        cwd=CHECKOUT, capture_output=True, text=True, timeout=300, check=False, encoding="utf-8"
    )  # fmt: skip
    if done.returncode:
        raise SwarmFailed(f"the lone trainer failed: {done.stderr.strip()[-300:]}")
    return read_json(directory / "result.json")
