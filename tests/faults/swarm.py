"""A swarm of real processes on loopback that a test starts, kills, restarts and reads from its directories."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from incentives.keys import key_account
from peers.directory import PeerDirectory
from swarm.records.types import Signed
from swarm.records.wire import unpack

T = TypeVar("T")
REPOSITORY = Path(__file__).resolve().parents[2]
LOCAL = 'host = "127.0.0.1"\n'  # no test listens on the machine's own addresses
TINY = {
    "task.model.fields.n_embd": "32",
    "task.model.fields.n_layer": "1",
    "task.model.fields.n_head": "2",
    "task.data.context": "32",
    "codec.part_values": "2048",
    "inner.batch_size": "2",
    "inner.total_units": "1000000",  # beyond it the learning rate is 0: all averages are the same zeros, which everybody has
    "rounds.units_per_epoch": "9",
    "rounds.max_reducers": "2",
    "rounds.contribute_seconds": "1.2",
    "rounds.average_seconds": "1.2",
    "rounds.vote_seconds": "0.6",
    "rounds.stall_seconds": "12.0",
    "rounds.epoch_deadline_seconds": "4.0",
    "rounds.min_seated": "3",
}


def until(condition: Callable[[], T], seconds: float, what: str) -> T:
    """The first true value of `condition`; it is asked again and again, for at most `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds:.0f} s not yet: {what}")
        time.sleep(0.1)


class Runner:
    """The warm process that forks peers (tests/faults/runner.py); a context manager that leaves nothing behind."""

    def __init__(self) -> None:
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.runner"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, cwd=REPOSITORY,
        )  # fmt: skip
        self._started: queue.Queue[int] = queue.Queue()
        self._ended: dict[int, int] = {}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            value = json.loads(line)
            if "pid" in value:
                self._started.put(value["pid"])
            else:
                self._ended[value["ended"]] = value["status"]

    def start(self, *argv: str, log: Path, script: Path = Path(os.devnull)) -> int:
        """The pid of a new process."""
        assert self._process.stdin is not None
        order = {"argv": argv, "log": str(log), "script": str(script)}
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()
        return self._started.get(timeout=120.0)  # the first waits for the imports

    def status(self, pid: int) -> int | None:
        """Exit status (negative: the signal), None while it runs."""
        return self._ended.get(pid)

    def wait(self, pid: int, seconds: float) -> int:
        until(lambda: pid in self._ended, seconds, f"process {pid} ends")
        return self._ended[pid]

    def __enter__(self) -> "Runner":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(20.0)
        self._process.kill()
        self._process.wait()


@dataclass
class PeerProcess:
    """A peer's directory and the process that runs in it now."""

    runner: Runner
    name: str
    directory: PeerDirectory
    script: Path
    mode: str = "join"
    kind: str = "faulty"
    pid: int = 0
    _events: list[dict[str, Any]] = field(default_factory=list)
    _read: int = 0
    _found: dict[tuple[str, ...], tuple[int, list[dict[str, Any]]]] = field(default_factory=dict)

    def start(self) -> None:
        self.directory.ready.unlink(missing_ok=True)
        log = self.output
        self.pid = self.runner.start(
            self.kind, self.mode, str(self.directory.root), "--quiet", log=log, script=self.script
        )

    @property
    def output(self) -> Path:
        """What it prints; beside its directory, whose disk may be full."""
        return self.directory.root.with_suffix(".output")

    @property
    def alive(self) -> bool:
        return bool(self.pid) and self.runner.status(self.pid) is None

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.runner.wait(self.pid, 20.0)

    def terminate(self, number: int = signal.SIGTERM) -> float:
        """Seconds until it ended, with status 0."""
        begun = time.monotonic()
        os.kill(self.pid, number)
        try:
            status = self.runner.wait(self.pid, 30.0)
        except AssertionError:
            os.kill(self.pid, signal.SIGUSR1)
            time.sleep(0.5)
            raise AssertionError(f"{self.name} does not end: {self.log()}") from None
        assert status == 0, self.log()
        return time.monotonic() - begun

    def wait_ready(self, seconds: float = 60.0) -> None:
        def ready() -> bool:
            if not self.alive:
                raise AssertionError(f"{self.name} ended: {self.log()}")
            return self.directory.ready.exists()

        until(ready, seconds, f"{self.name} is ready")

    def log(self) -> str:
        with contextlib.suppress(OSError):
            return self.output.read_text()
        return ""

    @property
    def account(self) -> str:
        found = key_account(self.directory.hot_key)
        assert found is not None
        return "0x" + found.hex()

    def events(self, *names: str) -> list[dict[str, Any]]:
        """What it wrote so far, over all its starts; of these kinds (none: of all). Asked ten times a second: only what is new is
        looked at."""
        with contextlib.suppress(FileNotFoundError), open(self.directory.events, "rb") as handle:
            handle.seek(self._read)
            data = handle.read()
            whole = data[: data.rfind(b"\n") + 1]
            self._read += len(whole)
            for line in whole.splitlines():
                with contextlib.suppress(json.JSONDecodeError):  # a line cut off by SIGKILL
                    self._events.append(json.loads(line))
        looked_at, found = self._found.get(names, (0, []))
        found += [e for e in self._events[looked_at:] if not names or e["event"] in names]
        self._found[names] = len(self._events), found
        return list(found)

    def certified(self) -> list[dict[str, Any]]:
        return self.events("Certified")

    def epoch(self) -> int:
        return max((e["epoch"] for e in self.certified()), default=0)

    def messages(self) -> Iterator[Signed]:
        """Every message that it sent or heard, over all its starts."""
        path = self.directory.root / "seen.txt"
        for line in path.read_text().split("\n") if path.exists() else ():
            if line.endswith("."):  # or it was cut off by SIGKILL or a full disk
                yield unpack(bytes.fromhex(line[:-1]))


class Swarm:
    """A run, its seed and its peers below one directory."""

    def __init__(
        self, runner: Runner, root: Path, pause_seconds: float = 0.02, data: Path | None = None, **settings: str
    ) -> None:
        self.runner, self.root, self.pause_seconds = runner, root, pause_seconds
        self.script = root / "script.json"
        self.run = root / "run"
        text = data or root / "text.txt"
        if data is None:
            text.write_text("the quick brown fox jumps over the lazy dog. " * 2000)
        chosen = [f"--set={key}={value}" for key, value in (TINY | settings).items()]
        made = runner.start(
            "run", "new", str(self.run), "--preset", "demo", "--data", str(text), *chosen, log=root / "new.log"
        )
        assert runner.wait(made, 120.0) == 0, (root / "new.log").read_text()
        self.seed = self._peer("seed", "seed")
        self.seed.directory.root.mkdir()
        self.seed.directory.config.write_text(LOCAL)
        link = {
            "run": str(self.run),
            "keystore": str(self.run / "keys" / "organiser.json"),
            "password_file": str(self.run / "keys" / "organiser.password"),
        }
        (self.seed.directory.root / "seed.json").write_text(json.dumps(link))
        self.peers: dict[str, PeerProcess] = {}

    def _peer(self, name: str, mode: str) -> PeerProcess:
        return PeerProcess(self.runner, name, PeerDirectory(self.root / name), self.script, mode)

    def add(self, name: str, config: str = "", kind: str = "faulty") -> PeerProcess:
        """A new peer with `config` in its peer.toml, started."""
        peer = self.peers[name] = self._peer(name, "join")
        peer.kind = kind
        peer.directory.root.mkdir(exist_ok=True)
        pace = f"snapshot_seconds = 1.0\nstep_pause_seconds = {self.pause_seconds}\n"
        peer.directory.config.write_text(LOCAL + pace + config)
        peer.directory.invite.write_text(self.seed.directory.invite.read_text())
        peer.start()
        return peer

    def everyone(self) -> list[PeerProcess]:
        return [self.seed, *self.peers.values()]

    def play(self, case: str, point: str, role: str) -> dict[str, Any]:
        """Let the first process that comes by `point` in `role` die there; what it left: {"account", "epoch"}."""
        claim = self.set_script(case, point, role)
        found = until(lambda: claim.exists() and claim.read_text(), 60.0, f"somebody reaches {point} as {role}")
        victim = json.loads(str(found))
        assert isinstance(victim, dict)
        return victim

    def set_script(self, case: str, point: str, role: str) -> Path:
        """Begin a case; the file in which who comes by first says so."""
        part = self.script.with_suffix(".part")
        epoch = max(p.epoch() for p in self.everyone()) + 1
        part.write_text(json.dumps({"case": case, "point": point, "role": role, "min_epoch": epoch}))
        part.replace(self.script)
        return self.root / f"case-{case}"

    def peer_of(self, account: str) -> PeerProcess:
        return next(p for p in self.everyone() if p.account == account)
