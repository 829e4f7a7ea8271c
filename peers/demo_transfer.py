"""`sparehive demo --transfer`: a model that strangers trained on much text is the start for somebody's little text.

Two runs of a seed and three peers each, with public commands only: one from noise on text A, then one that starts from what the first
published and trains adapters (LoRA) on text B. What it leaves in its directory is described in docs/demo.md.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from peers.demo import LOCAL, Demo, Running, everything_ends, make_room, say
from peers.directory import PeerDirectory, write_json
from peers.errors import StartError
from peers.status import PeerStatus
from peers.watching import read_events

PEERS = ("alice", "bob", "carol")
PRETRAINING_UNITS, TUNING_UNITS = 450, 180
CONTEXT = 64
SIZES = (
    *("--set", "task.model.fields={n_embd=160,n_layer=3,n_head=4}"),
    *("--set", f"task.data.context={CONTEXT}"),
)
ADAPTER = (
    *("--lora", "6"),
    *("--set", "task.model.train.rslora=true"),
)
TUNING_LR = 1e-2  # adapters begin at nothing and bear a higher rate than whole weights
STUCK_SECONDS = 120.0


@dataclass(frozen=True)
class Trained:
    """A run that has ended. `losses`: (unix seconds, epoch, held-out loss) as its seed measured them, the initial state first."""

    name: str
    run: Path
    model: Path
    parameters: int
    units: int
    contribution_bytes: int
    losses: tuple[tuple[float, int, float], ...]
    sent_bytes: int  # by all three peers: payload of everything

    def json_value(self) -> dict[str, Any]:
        return {
            "model": self.model.name,
            "parameters": self.parameters,
            "units": self.units,
            "contribution_bytes": self.contribution_bytes,
            "sent_bytes": self.sent_bytes,
            "losses": [{"time": at, "epoch": epoch, "loss": loss} for at, epoch, loss in self.losses],
        }


def run_transfer_demo(root: Path, data: Path | None) -> None:
    """Run it; raises PeerError with one line when a step fails. `root` must be new, empty, or of an earlier demo. `data`: text B, where
    it is not to be the Python language reference."""
    console, begun = Console(), time.monotonic()
    root = root.resolve()
    make_room(root)
    demo = Demo(root, console, cache=root / "cache")
    with everything_ends(demo):
        report = TransferDemo(demo, data or write_language_reference(root / "language-reference.txt")).run()
    report["seconds"] = round(time.monotonic() - begun, 1)
    write_json(root / "report.json", report)
    console.print(f"[dim]{report['seconds']:.0f} s in all; nothing is left running.[/]")


def write_language_reference(path: Path) -> Path:
    """English prose that is on every machine: the topics of Python's own help."""
    from swarm.data.standard_library import language_reference_text

    path.write_bytes(language_reference_text())
    return path


class TransferDemo:
    """The steps in order, and what they found."""

    def __init__(self, demo: Demo, data: Path, sizes: Sequence[str] = SIZES) -> None:
        """`data`: text B. `sizes`: options of `run new` for a model from noise."""
        self.demo, self.data, self.sizes = demo, data, sizes
        self.root, self.console = demo.root, demo.console

    def run(self) -> dict[str, Any]:
        """What report.json holds."""
        say(self.console, "pre-train", "three peers, from noise, on the Python standard library's source")
        base = self.pretrain(PRETRAINING_UNITS)
        say(self.console, "publish", f"{base.parameters:,} parameters in {base.model.relative_to(self.root.parent)}")
        say(self.console, "fine-tune", f"three peers, adapters on {self.data.name}")
        tuned = self.tune("tune", TUNING_UNITS, base, TUNING_LR, *ADAPTER)
        return self.report(base, tuned, self.alone_from_noise(-(-tuned.units // len(PEERS)), base))

    def pretrain(self, units: int) -> Trained:
        """By three peers, on text A."""
        return self.train("pretrain", units, *self.sizes)

    def tune(self, name: str, units: int, base: Trained, lr: float, *options: str) -> Trained:
        """By three peers, on text B, from the model of `base`."""
        start = ("--from", str(base.model), "--data", str(self.data), "--set", f"task.data.context={CONTEXT}")
        return self.train(name, units, *start, "--set", f"inner.lr={lr}", *options)

    def from_noise(self, name: str, units: int, base: Trained) -> Trained:
        """By three peers, on text B as it is cut for `base`, from noise."""
        return self.train(name, units, *self._on_b(base))

    def _on_b(self, base: Trained) -> tuple[str, ...]:
        return (*self.sizes, "--data", str(self.data), "--tokenizer", str(base.model))

    def train(self, name: str, units: int, *options: str) -> Trained:
        """A run of a seed and three peers to its end, and its model as a folder."""
        run = self.root / name / "run"
        made = self.new_run(run, name, units, *options)
        seed = PeerDirectory(self.root / name / "seed")
        serving = self.demo.start(f"{name}-seed", "seed", str(run), "--dir", str(seed.root), *LOCAL, "--quiet")
        self.demo.wait_for(seed.ready, serving)
        peers = {who: PeerDirectory(self.root / name / who) for who in PEERS}
        joined = [
            self.demo.start(f"{name}-{who}", "join", str(seed.invite), "--dir", str(peer.root), *LOCAL, "--quiet")
            for who, peer in peers.items()
        ]
        self.until_ended(seed, joined)
        self.demo.stop(serving)
        model = self.root / name / "model"
        exported = self.demo.command("export", "--dir", str(seed.root), "--out", str(model), "--json")
        checked = self.demo.command("run", "check", str(run / "run.toml"), "--json")
        losses = [(e["time"], e["epoch"], e["loss"]) for e in read_events(seed) if e["event"] == "Evaluated"]
        done = next(e["units"] for e in read_events(peers[PEERS[0]]) if e["event"] == "Finished")
        say(self.console, "ended", f"epoch {exported['epoch']}, {done} units, held-out loss {exported['loss']:.3f}")
        sent = sum(PeerStatus.read(peer.status).sent_bytes for peer in peers.values())
        parameters, each = made["parameters"], checked["contribution_bytes"]
        return Trained(name, run, model, parameters, done, each, tuple(losses), sent)

    def new_run(self, run: Path, name: str, units: int, *options: str) -> dict[str, Any]:
        length = ("--set", f"inner.total_units={units}", "--set", f"inner.warmup_units={units // 20}")
        made: dict[str, Any] = self.demo.command(
            "run", "new", str(run), "--preset", "demo", "--name", name, *length, *options, "--json"
        )
        return made

    def until_ended(self, seed: PeerDirectory, joined: list[Running]) -> None:
        """Until all of them have left by themselves, with progress; StartError where one fails, or nothing is certified for long."""
        last, deadline = -1, time.monotonic() + STUCK_SECONDS
        while any(item.process.poll() is None for item in joined):
            status = PeerStatus.read(seed.status)
            if status.epoch != last:
                last, deadline = status.epoch, time.monotonic() + STUCK_SECONDS
                loss = "" if status.held_out_loss is None else f"  held-out loss {status.held_out_loss:.3f}"
                self.console.print(
                    f"[dim]epoch {last:3d}  {status.run_units:5,} of {status.total_units:,} units{loss}[/]"
                )
            if time.monotonic() > deadline:
                raise StartError(f"no certificate for {STUCK_SECONDS:.0f} s after epoch {last}; see {seed.root.parent}")
            time.sleep(0.2)
        for item in joined:
            if item.process.returncode:
                raise StartError(f"{item.name} ended with status {item.process.returncode}: {item.last_words()}")
            self.demo.stop(item)

    def report(self, base: Trained, tuned: Trained, noise: float) -> dict[str, Any]:
        """Table and picture; StartError where fine-tuning was of no use."""
        from peers.demo_report import draw_transfer, show_transfer

        found = {
            "base": base.json_value(),
            "tuned": tuned.json_value(),
            "loss": {"before": tuned.losses[0][2], "after": tuned.losses[-1][2], "from_noise": noise},
        }
        draw_transfer(found, self.root / "transfer.png")
        show_transfer(self.console, found)
        self.console.print(f"[dim]picture: {self.root / 'transfer.png'}[/]")
        if found["loss"]["after"] >= min(found["loss"]["before"], noise):
            raise StartError(
                f"fine-tuned to {found['loss']['after']:.4f}, not below {found['loss']['before']:.4f} before and {noise:.4f} from noise"
            )
        return found

    def alone_from_noise(self, units: int, base: Trained) -> float:
        """Held-out loss on text B of one machine that begins with nothing and does as many steps as each of the others did."""
        run = self.root / "noise"
        self.new_run(run, "noise", units, *self._on_b(base))
        say(self.console, "compare", f"from noise, {units} units on the same text…")
        alone = self.demo.command("run", "baseline", str(run), "--units", str(units), "--json", timeout=600.0)
        return float(alone["loss"])
