"""How many lone peers a swarm is worth: `python -m benchmarks.effective --text FILE`.

Effective peers = units that a lone peer with AdamW needs for the swarm's held-out loss, divided by the units of each peer of the swarm.
The lone curve has several lengths, each with a schedule of its own; beside the swarm stands synchronous AdamW, which averages the
gradients of as many peers at every inner step. All see samples of one run, and one model from the same start.
"""

import argparse
import itertools
import json
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import wan
from benchmarks.swarms import SparehiveSwarm
from benchmarks.workload import Workload
from peers.runs import RunDirectory
from swarm.checkpoint.anchor import read_anchor
from swarm.checkpoint.store import BlockStore
from swarm.config import RunConfig
from swarm.optim.inner import InnerOptimizer
from swarm.optim.schedule import learning_rate
from swarm.tasks import new_model, open_task

LONE_LENGTHS = (0.7, 1.0, 1.5, 2.25, 3.4)  # times the units of a peer of the swarm
SWARM_SECONDS = 3600.0


@dataclass(frozen=True)
class Learning(Workload):
    """GPT-2's family, 4 layers × 128, context 64, batches of 12: 0.8 M parameters."""

    units: int = 157  # of each peer
    round_units: int = 8  # of all, that call for a round
    batch_size: int = 12
    width: int = 128
    learning_rate: float = 2e-3
    pause_seconds: float = 0.0
    optimizer: str = "adamw"
    text: Path | None = None
    seed: int = 0
    more: tuple[str, ...] = field(default=())  # settings as `run new --set` takes them

    @property
    def units_per_epoch(self) -> int:
        return self.round_units

    @property
    def total_units(self) -> int:
        return self.peers * self.units

    def settings(self) -> dict[str, object]:
        return {
            **super().settings(),
            "task.model.fields.n_head": 4,
            "inner.optimizer": f'"{self.optimizer}"',
            "inner.warmup_units": 20,
            "outer.momentum_ramp_rounds": 20,
            "codec.average": '"int8"',
            **dict(each.split("=", 1) for each in self.more),
        }

    def command(self, directory: Path) -> list[str]:
        data = ["--data", str(self.text)] if self.text else []
        return [*super().command(directory), "--name", f"effective-{self.seed}", *data]


def synchronous(run: RunDirectory, peers: int, units: int, optimizer: str) -> float:
    """Held-out loss after `units` units of each of `peers`, whose gradients are averaged at every inner step."""
    torch.set_num_threads(1)
    config = run.load()
    model = new_model(config)
    model.flat.copy_(_start(run, config))
    settings = config.inner.model_copy(update={"optimizer": optimizer})
    inner = InnerOptimizer(settings, model.flat, model.matrices)
    task, total = open_task(config, run.data), torch.zeros_like(model.grad_flat)
    warmup = max(1, settings.warmup_units // peers)
    for unit in range(units):
        for step in range(settings.steps_per_unit):
            total.zero_()
            for number in range(peers):
                task.step(model, bytes([number]) * 20, config.run_id, unit, step)
                total += model.grad_flat
            model.grad_flat.copy_(total / peers)
            inner.step(model.grad_flat, learning_rate(unit, settings.lr, warmup, units))
    return task.evaluate(model)


def _start(run: RunDirectory, config: RunConfig) -> torch.Tensor:
    store = BlockStore(run.blocks, 1 << 40, owned=False)
    get = store.getter(lambda digest: FileNotFoundError(run.blocks / digest.hex()))
    return read_anchor(bytes.fromhex(config.initial_root), get, new_model(config).layout).parameters


def together(root: Path, run: Path, work: Learning) -> tuple[float, int, int]:
    """Held-out loss of real peers after the run's units, the units that were certified, and in how many rounds."""
    with wan.loopback(None, work.peers + 1) as places:
        swarm = SparehiveSwarm(root, run, work, places)
        with swarm.running():
            deadline = time.monotonic() + SWARM_SECONDS
            while not swarm.finished() or swarm.loss() is None:
                swarm.check()
                if time.monotonic() > deadline:
                    raise SystemExit(f"the swarm had {swarm.samples()} samples after {SWARM_SECONDS:.0f} s")
                time.sleep(1.0)
            loss = swarm.loss()
            assert loss is not None
            return loss, swarm.samples() // work.samples_per_unit, swarm.epochs()


def units_alone(lone: Sequence[tuple[int, float]], loss: float) -> float:
    """That a lone peer needs for `loss`: log units over loss on straight lines; nan beyond the curve."""
    for (units, above), (more, below) in itertools.pairwise(lone):
        if above >= loss >= below:
            share = (above - loss) / (above - below)
            return math.exp(math.log(units) + share * (math.log(more) - math.log(units)))
    return math.nan


def measure(work: Learning, seed: int, console: Console) -> dict[str, Any]:
    work = replace(work, seed=seed)
    with tempfile.TemporaryDirectory(prefix="effective-") as folder:
        run, begun = RunDirectory(Path(folder) / "run"), time.monotonic()
        work.make_run(run.root)

        def say(what: str) -> None:
            console.print(f"seed {seed}, {time.monotonic() - begun:5.0f} s: {what}", highlight=False)

        lone = []
        for length in LONE_LENGTHS:
            units = round(work.units * length)
            lone.append((units, synchronous(run, 1, units, "adamw")))
            say(f"alone, {units} units: {lone[-1][1]:.4f}")
        adamw = synchronous(run, work.peers, work.units, "adamw")
        say(f"synchronous adamw, {work.peers} × {work.units} units: {adamw:.4f}")
        own = adamw if work.optimizer == "adamw" else synchronous(run, work.peers, work.units, work.optimizer)
        loss, certified, rounds = together(Path(folder) / "swarm", run.root, work)
        say(f"together, {work.peers} real peers, {certified} units in {rounds} rounds: {loss:.4f}")
    return {
        "seed": seed, "alone": lone, "synchronous_adamw": adamw, "synchronous": own, "together": loss, "units": certified,
        "rounds": rounds,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, help="a text file (default: the text that comes along)")
    parser.add_argument("--peers", type=int, default=4)
    parser.add_argument("--units", type=int, default=157, help="of each peer")
    parser.add_argument("--round-units", type=int, default=8, help="of all peers, that call for a round")
    parser.add_argument("--optimizer", choices=("adamw", "muon"), default="adamw")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seeds", type=int, default=1, help="so many runs, each with samples of its own")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any field of run.toml")
    parser.add_argument("--out", type=Path, help="JSON")
    chosen = parser.parse_args()
    work = Learning(
        peers=chosen.peers, units=chosen.units, round_units=chosen.round_units, optimizer=chosen.optimizer,
        learning_rate=chosen.lr, text=chosen.text, more=tuple(chosen.set),
    )  # fmt: skip
    console = Console()
    table = Table(
        "seed", "together", "synchronous AdamW", f"synchronous {work.optimizer}", "effective peers", "of synchronous"
    )
    results = []
    for seed in range(chosen.seeds):
        found = measure(work, seed, console)
        peers = units_alone(found["alone"], found["together"]) / (found["units"] / work.peers)
        ideal = units_alone(found["alone"], found["synchronous_adamw"]) / work.units
        results.append({**found, "effective_peers": peers, "effective_peers_synchronous_adamw": ideal})
        losses = [f"{found[each]:.4f}" for each in ("together", "synchronous_adamw", "synchronous")]
        table.add_row(str(seed), *losses, f"{peers:.2f} of {ideal:.2f}", f"{peers / ideal:.2f}")
    console.print(table)
    if chosen.out:
        workload = {name: str(value) for name, value in asdict(work).items()}
        chosen.out.write_text(json.dumps({"workload": workload, "results": results}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
