"""`sparehive demo`: the whole main job on one machine, with public commands only, each peer in a directory of its own.

Everything it starts is a child of this process and ends with it. What it leaves under its directory is described in
docs/demo.md: the chain's state, the published tables, the addresses, report.json, loss.png.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from peers.directory import PeerDirectory, write_json
from peers.errors import ConfigError, StartError
from peers.watching import read_events

BUDGET_TOKENS = 10_000
WINDOW_SECONDS = 3
UNIT_PRICE_TOKENS = 1
START_SECONDS = 180.0
STUCK_SECONDS = 180.0
PEERS = ("alice", "bob", "carol", "dave")  # dave joins midway, carol is killed
MARK = "sparehive-demo"  # a file that says whose directory it is
MARKS = (MARK, "chain.log")  # the second of demos before there was the first
LOCAL = ("--host", "127.0.0.1")  # nothing of the demo is open to other machines
MOST_UNITS_PER_EPOCH, PRESET_EPOCHS = 30, 50  # on a fast machine; with these the preset's total is enough
JOINS_LATE, KILLED = "dave", "carol"


@dataclass
class Running:
    """A command that runs on: its process and where its output goes."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def last_words(self) -> str:
        return " | ".join(self.log.read_text(errors="replace", encoding="utf-8").splitlines()[-3:])


@dataclass
class Demo:
    root: Path
    console: Console
    running: list[Running] = field(default_factory=list)
    cache: Path | None = None  # where its commands keep what outlives a peer's directory; None: in their user's

    def _environment(self) -> dict[str, str]:
        return {**os.environ, **({"XDG_CACHE_HOME": str(self.cache)} if self.cache else {})}

    def command(self, *arguments: str, timeout: float = 180.0) -> Any:
        """A public command to its end; its JSON. StartError carries its one line."""
        done = subprocess.run(
            [sys.executable, "-m", "peers", *arguments],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            encoding="utf-8",
            env=self._environment(),
        )
        if done.returncode:
            said = (done.stderr or done.stdout).strip()
            with contextlib.suppress(ValueError, KeyError, TypeError):
                said = json.loads(said)["error"]
            raise StartError(f"sparehive {' '.join(arguments[:2])} failed: {said[-400:]}")
        return json.loads(done.stdout) if done.stdout.strip().startswith(("{", "[")) else done.stdout.strip()

    def start(self, name: str, *arguments: str) -> Running:
        log = self.root / f"{name}.log"
        with open(log, "wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "peers", *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env=self._environment(),
            )
        item = Running(name, process, log)
        self.running.append(item)
        return item

    def stop(self, item: Running, seconds: float = 20.0) -> None:
        """SIGTERM, then SIGKILL; forgets it."""
        if item in self.running:
            self.running.remove(item)
        if item.process.poll() is None:
            item.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                item.process.wait(seconds)
        if item.process.poll() is None:
            item.process.kill()
            item.process.wait()

    def kill(self, item: Running) -> None:
        """SIGKILL to the supervisor and everything under the peer: what a power cut does."""
        import psutil

        with contextlib.suppress(psutil.NoSuchProcess):
            tree = psutil.Process(item.process.pid).children(recursive=True)
            item.process.send_signal(signal.SIGSTOP)  # or it would start the peer again
            for process in tree:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        item.process.kill()
        item.process.wait()
        self.running.remove(item)

    def wait_for(self, path: Path, item: Running, seconds: float = START_SECONDS) -> Any:
        """Until `path` is there, as JSON; StartError with the last lines of the log if its process ends first."""
        deadline = time.monotonic() + seconds
        while not path.exists():
            if item.process.poll() is not None or time.monotonic() > deadline:
                why = "ended" if item.process.poll() is not None else f"not ready after {seconds:.0f} s"
                raise StartError(f"{item.name} {why}: {item.last_words()}")
            time.sleep(0.1)
        return json.loads(path.read_text(encoding="utf-8"))


@contextlib.contextmanager
def everything_ends(demo: Demo) -> Iterator[None]:
    def stop(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, old)
        for item in list(demo.running):
            with contextlib.suppress(Exception):
                demo.stop(item)


def _follow(
    demo: Demo, seed: PeerDirectory, until_epoch: int, begun: float, until: Callable[[], bool] = lambda: True
) -> None:
    """Live progress until the seed has seen `until_epoch` certified and `until()` holds; StartError after `STUCK_SECONDS`."""
    last = -1
    deadline = time.monotonic() + STUCK_SECONDS
    while True:
        status = json.loads(seed.status.read_text(encoding="utf-8")) if seed.status.exists() else {}
        epoch = int(status.get("epoch", 0))
        if epoch != last:
            last = epoch
            loss = status.get("held_out_loss")
            shown = f"held-out loss {loss:.3f}" if loss else ""
            demo.console.print(
                f"[dim]{time.monotonic() - begun:5.0f} s[/]  epoch {epoch:3d}  peers {status.get('peers', 0)}  {shown}"
            )
            deadline = time.monotonic() + STUCK_SECONDS
        if epoch >= until_epoch and until():
            return
        for item in demo.running:
            if item.process.poll() is not None:
                raise StartError(f"{item.name} ended: {item.last_words()}")
        if time.monotonic() > deadline:
            raise StartError(
                f"no certificate within {STUCK_SECONDS:.0f} s after epoch {epoch}; see {demo.root}/*/peer.log"
            )
        time.sleep(0.2)


def run_demo(root: Path, data: Path | None, epochs: int) -> None:
    """Run it; raises PeerError with one line when a step fails. `root` must be new, empty, or of an earlier demo: that one is
    removed first."""
    from incentives.devchain import DevChain

    console = Console()
    begun = time.monotonic()
    root = root.resolve()
    make_room(root)
    demo = Demo(root, console)
    with everything_ends(demo), DevChain(state=root / "chain-state.json", log=root / "chain.log") as chain:
        say(console, "chain", f"a local EVM node at {chain.rpc} (chain {chain.chain_id})")
        Session(demo, chain.rpc, chain, data, epochs, begun).run()
    console.print(f"[dim]{time.monotonic() - begun:.0f} s in all; nothing is left running.[/]")


def make_room(root: Path) -> None:
    """ConfigError for a place that holds something else: nobody's files are removed."""
    if root.is_dir() and any(root.iterdir()) and not any((root / name).is_file() for name in MARKS):
        raise ConfigError("--dir", str(root), "is not empty and not of an earlier demo; choose a new directory")
    if root.exists() and not root.is_dir():
        raise ConfigError("--dir", str(root), "is a file; choose a new directory")
    for path in root.iterdir() if root.exists() else ():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    root.mkdir(parents=True, exist_ok=True)
    (root / MARK).write_text("This directory is emptied when the demo runs again.\n", encoding="utf-8")


def say(console: Console, what: str, text: str) -> None:
    console.print(f"[bold cyan]{what:>10}[/]  {text}")


class Session:
    """The steps of the demo in order, and what they found."""

    def __init__(self, demo: Demo, rpc: str, chain: Any, data: Path | None, epochs: int, begun: float) -> None:
        self.demo, self.rpc, self.chain, self.data, self.epochs, self.begun = demo, rpc, chain, data, epochs, begun
        self.root, self.console = demo.root, demo.console
        self.run_dir = self.root / "run"
        self.seed = PeerDirectory(self.root / "seed")
        self.peers = {name: PeerDirectory(self.root / name) for name in PEERS}
        self.marks: list[tuple[float, str]] = []
        self.wallets: dict[str, str] = {}

    def wallet_options(self, name: str) -> list[str]:
        base = self.root / "wallets"
        return ["--keystore", str(base / f"{name}.json"), "--password-file", str(base / f"{name}.password")]

    def run(self) -> None:
        self.prepare()
        seed = self.demo.start(
            "seed",
            "seed",
            str(self.run_dir),
            "--dir",
            str(self.seed.root),
            *LOCAL,
            *self.organiser_options(),
            "--invite-rpc",
            self.rpc,
            "--quiet",
        )
        self.demo.wait_for(self.seed.ready, seed)
        say(self.console, "seed", f"a founder; invite in {self.seed.invite.relative_to(self.root.parent)}")
        running = {name: self.join(name) for name in PEERS if name != JOINS_LATE}
        third = max(2, self.epochs // 3)
        _follow(self.demo, self.seed, third, self.begun)
        running[JOINS_LATE] = self.join(JOINS_LATE)
        self.marks.append((time.time(), f"{JOINS_LATE} joins"))
        say(self.console, "join", f"{JOINS_LATE} joins a run under way")
        _follow(self.demo, self.seed, 2 * third, self.begun, lambda: self.certified(JOINS_LATE) >= 2)
        self.demo.kill(running.pop(KILLED))
        self.marks.append((time.time(), f"{KILLED} killed"))
        say(self.console, "kill", f"{KILLED} is killed with SIGKILL")
        _follow(self.demo, self.seed, self.epochs, self.begun)
        for item in running.values():
            item.process.terminate()
        for item in list(running.values()):
            self.demo.stop(item)
        time.sleep(2.0)  # the last receipts are on their way to the seed
        self.demo.stop(seed)
        say(self.console, "trained", "every peer has left cleanly")
        self.report(self.settle())

    def organiser_options(self) -> list[str]:
        return self.wallet_options("organiser")

    def join(self, name: str) -> Running:
        directory = self.peers[name]
        item = self.demo.start(name, "join", str(self.seed.invite), "--dir", str(directory.root), *LOCAL, "--quiet")
        if name != JOINS_LATE:
            say(self.console, "join", name)
        return item

    def certified(self, name: str) -> int:
        """In how many of the certificates that it has seen a peer's own contribution is."""
        events = read_events(self.peers[name])
        return sum(event["event"] == "Certified" and event["own"] for event in events)

    def prepare(self) -> None:
        for name in ("organiser", *PEERS):
            made = self.demo.command("wallet", *self.wallet_options(name), "--json")
            self.wallets[name] = made["address"]
            self.chain.give_gas(made["address"])
        options = ["--data", str(self.data)] if self.data else []
        if self.epochs > PRESET_EPOCHS:  # else the run would end before the demo
            options += ["--set", f"inner.total_units={MOST_UNITS_PER_EPOCH * self.epochs}"]
        made = self.demo.command(
            "run", "new", str(self.run_dir), "--preset", "demo", "--name", "demo", *options,
            "--unit-price", str(UNIT_PRICE_TOKENS), "--json",
        )  # fmt: skip
        say(self.console, "run", f"{made['parameters']:,} parameters, run {made['run_id'][:18]}…")
        deployed = self.demo.command(
            "run", "deploy", str(self.run_dir), "--rpc", self.rpc, *self.organiser_options(), "--test-token",
            "--window", str(WINDOW_SECONDS), "--json",
        )  # fmt: skip
        self.deployed = deployed
        self.demo.command(
            "run",
            "fund",
            str(self.run_dir),
            "--rpc",
            self.rpc,
            *self.organiser_options(),
            "--amount",
            str(BUDGET_TOKENS),
            "--json",
        )
        say(
            self.console,
            "contracts",
            f"settlement {deployed['settlement']}, funded with {BUDGET_TOKENS:,} test tokens",
        )

    def settle(self) -> dict[str, Any]:
        rpc = ["--rpc", self.rpc]
        tables = self.root / "tables"
        balances = {name: self.chain.balance_of(self.deployed["token"], self.wallets[name]) for name in PEERS}
        proposed = self.demo.command(
            "settle", "--dir", str(self.seed.root), "--run", str(self.run_dir), *rpc, *self.organiser_options(),
            "--tables", str(tables), "--to-newest", "--finalise", "--json",
        )  # fmt: skip
        say(self.console, "settle", f"period to epoch {proposed['to_epoch']}, {proposed['receipts']} receipts, final")
        for name in PEERS:
            self.demo.command(
                "bind",
                "--yes",
                "--dir",
                str(self.peers[name].root),
                "--run",
                str(self.run_dir),
                *rpc,
                *self.wallet_options(name),
                "--json",
            )
        claims = {}
        for name in PEERS:
            where = ["--run", str(self.run_dir), "--tables", str(tables), *rpc]
            claims[name] = self.demo.command("claim", *where, *self.wallet_options(name), "--json")
        checked = self.demo.command(
            "verify", "--run", str(self.run_dir), "--dir", str(self.seed.root), "--tables", str(tables), *rpc, "--json"
        )
        say(self.console, "claim", f"{len(claims)} wallets claimed; tables and signatures verified against the chain")
        after = {name: self.chain.balance_of(self.deployed["token"], self.wallets[name]) for name in PEERS}
        return {
            "before": balances,
            "after": after,
            "claims": claims,
            "verify": checked,
            "proposed": proposed,
            "tables": str(tables),
        }

    def report(self, money: dict[str, Any]) -> None:
        from peers.demo_report import build_report, draw_loss, show_table

        exported = self.demo.command(
            "export", "--dir", str(self.peers["alice"].root), "--out", str(self.root / "model"), "--json"
        )
        report = build_report(self, money, exported)
        units = max(p["units"] for p in report["peers"])
        say(self.console, "baseline", f"one peer alone, {units} units…")
        lone = self.demo.command("run", "baseline", str(self.run_dir), "--units", str(units), "--json", timeout=600.0)
        report["loss"]["untrained"], report["loss"]["single_peer"] = lone["untrained"], lone["loss"]
        report["seconds"] = round(time.monotonic() - self.begun, 1)
        write_json(self.root / "report.json", report)
        draw_loss(self, report, self.root / "loss.png")
        show_table(self.console, report, exported)
        wrong = [
            p["name"] for p in report["peers"] if int(p["balance_after"]) - int(p["balance_before"]) != int(p["earned"])
        ]
        if wrong:
            raise StartError(
                f"balances of {', '.join(wrong)} did not grow by what they earned; see {self.root}/report.json"
            )
        if len(set(report["roots"].values())) != 1:
            raise StartError(f"surviving peers hold different anchors: {report['roots']}")
        if report["loss"]["final"] >= report["loss"]["single_peer"]:
            raise StartError(
                f"final loss {report['loss']['final']:.4f} is not below the lone peer's {report['loss']['single_peer']:.4f}"
            )


__all__: Sequence[str] = ["Demo", "Session", "everything_ends", "make_room", "read_events", "run_demo", "say"]
