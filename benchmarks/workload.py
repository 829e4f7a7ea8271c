"""What every swarm of the benchmark trains: one model, one text, one number of samples, one pace."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Workload:
    """Between two averagings each peer does `units_per_peer` units; both systems average after the same number of samples.

    The rest after each inner step stands for the rest of a larger step: it lets several peers share few cores without
    measuring their fight for them, and counts as time in inner steps for everyone alike."""

    peers: int
    epochs: int = 4
    units_per_peer: int = 5
    steps_per_unit: int = 5
    batch_size: int = 4
    context: int = 64
    width: int = 192
    layers: int = 4
    learning_rate: float = 3e-3
    pause_seconds: float = 0.25

    @property
    def units_per_epoch(self) -> int:
        return self.peers * self.units_per_peer

    @property
    def total_units(self) -> int:
        return self.epochs * self.units_per_epoch

    @property
    def samples_per_unit(self) -> int:
        return self.steps_per_unit * self.batch_size

    @property
    def samples_per_epoch(self) -> int:
        return self.units_per_epoch * self.samples_per_unit

    @property
    def steps_per_peer(self) -> int:
        return self.epochs * self.units_per_peer * self.steps_per_unit

    def settings(self) -> dict[str, object]:
        """What differs from the demo's run, as `run new --set` takes it."""
        return {
            "task.model.fields.n_embd": self.width,
            "task.model.fields.n_layer": self.layers,
            "task.data.context": self.context,
            "inner.lr": self.learning_rate,
            "inner.batch_size": self.batch_size,
            "inner.steps_per_unit": self.steps_per_unit,
            "inner.warmup_units": max(1, self.total_units // 10),
            "inner.total_units": self.total_units,
            "outer.momentum_ramp_rounds": self.epochs,
            "codec.contribution": '"int4"',  # both as in the preset for large models
            "codec.average": '"int4"',
            "codec.part_values": 262144,
            "rounds.units_per_epoch": self.units_per_epoch,
            "rounds.min_seated": self.peers,
            # the demo's deadlines are for loopback
            "rounds.contribute_seconds": 10.0,
            "rounds.average_seconds": 10.0,
            "rounds.vote_seconds": 5.0,
            "rounds.stall_seconds": 60.0,
        }

    def command(self, directory: Path) -> list[str]:
        """`sparehive run new`, as an organiser does it."""
        options = [part for key, value in self.settings().items() for part in ("--set", f"{key}={value}")]
        new = ["run", "new", str(directory), "--preset", "demo", "--name", "bench"]
        return [sys.executable, "-m", "peers", *new, *options]

    def make_run(self, directory: Path) -> None:
        subprocess.run(self.command(directory), check=True, cwd=CHECKOUT, capture_output=True, timeout=300)
