"""How far an auditor's result is from a contribution that was made honestly on another machine: other numbers of threads, other pieces of
a batch, in both precisions; and how far one is that was made in the wrong precision, or with a step left out.

    python -m benchmarks.distances [--units 8] [--layers 4 --width 128 --context 64 --batch 12]

One table: t of protocol §7.2 and the moments' distance, and the larger of both as a share of what the run's default tolerates. The peer
makes a contribution after two rounds (moments, momentum and residual are not zero) with one thread and whole batches.
"""

import argparse
import tempfile
import time
from pathlib import Path
from unittest import mock

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from swarm.audit.replay import Replay, SignedWork
from swarm.checkpoint.anchor import Anchor
from swarm.config import RunConfig
from swarm.config.run import AuditConfig
from swarm.device import HOST
from swarm.models import FlatModel
from swarm.tasks import InPieces, new_model, open_task
from tests.training import swarmlet
from tests.training.swarmlet import Learner, Lineage, make_config

STEPS_PER_UNIT = 5


def settings(folder: Path, chosen: argparse.Namespace, optimizer: str, precision: str) -> RunConfig:
    fields = {"n_layer": chosen.layers, "n_embd": chosen.width, "n_head": 4}
    model = {"family": "gpt2", "fields": fields}
    inner = {"optimizer": optimizer, "lr": 2e-3, "batch_size": chosen.batch, "steps_per_unit": STEPS_PER_UNIT}
    config = make_config(
        folder, {"context": chosen.context}, inner={**inner, "precision": precision}, audit={"tolerance": 6.0}
    )
    values = config.model_dump(mode="json")
    values["task"]["model"].update(model)
    values["codec"] = {"contribution": "int4", "average": "int8", "part_values": 65536}
    return RunConfig.parse(values)


def contribution(config: RunConfig, task: InPieces, units: int, left_out: int = 0) -> tuple[Learner, SignedWork]:
    model = new_model(config, seed=7)
    peer = Learner(Lineage(config), b"\1" * 20, task, model)
    for _ in range(2):
        peer.units(2)
        peer.round_alone()
    for _ in range(left_out):
        peer.member.inner_step_done(STEPS_PER_UNIT)
        peer.inner.num_steps += 1
    peer.steps(units * STEPS_PER_UNIT - left_out)
    return peer, peer.contribute()


def redone(peer: Learner, work: SignedWork, config: RunConfig, folder: Path, threads: int, pieces: int) -> Replay:
    torch.set_num_threads(threads)
    peer.config, peer.task = config, open_task(config, folder, micro_batch=pieces)
    try:
        return peer.redo(work)
    finally:
        torch.set_num_threads(1)


def rows(folder: Path, chosen: argparse.Namespace, optimizer: str, precision: str) -> list[list[str]]:
    config = settings(folder, chosen, optimizer, precision)
    task = open_task(config, folder)
    first = new_model(config, seed=7)
    anchor = Anchor(first.flat.clone(), torch.zeros_like(first.flat), first.layout, 0, 0)
    found = []

    def fresh(device: torch.device = HOST) -> FlatModel:
        return new_model(config, seed=7, device=device)

    def row(what: str, got: Replay) -> None:
        share = max(got.distance, got.moments_distance) * got.inner_steps / AuditConfig().tolerance
        found.append([optimizer, precision, what, f"{got.distance:.1e}", f"{got.moments_distance:.1e}", f"{share:.3f}"])

    with mock.patch.multiple(swarmlet, initial_anchor=lambda: anchor, new_model=fresh):
        peer, work = contribution(config, task, chosen.units)
        row("the same", redone(peer, work, config, folder, 1, 0))
        for threads in (2, 4):
            row(f"{threads} threads", redone(peer, work, config, folder, threads, 0))
        for pieces in (chosen.batch // 2, chosen.batch // 4, 1):
            row(f"pieces of {pieces}", redone(peer, work, config, folder, 1, pieces))
        peer, work = contribution(config, open_task(config, folder), chosen.units, left_out=1)
        row("a step left out", redone(peer, work, config, folder, 1, 0))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("units", 8), ("layers", 4), ("width", 128), ("context", 64), ("batch", 12)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--optimizers", nargs="+", default=["adamw", "muon"])
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    begun = time.monotonic()
    title = f"{chosen.units * STEPS_PER_UNIT} inner steps, {chosen.layers} × {chosen.width}, batch {chosen.batch} × {chosen.context}"
    columns = ("optimiser", "precision", "redone with", "t", "moments", "share of the default")
    table = Table(*columns, box=box.ASCII2, title=title)
    with tempfile.TemporaryDirectory() as folder:
        for optimizer in chosen.optimizers:
            for precision in ("fp32", "bf16"):
                for row in rows(Path(folder), chosen, optimizer, precision):
                    table.add_row(*row)
    console = Console()
    console.print(table)
    console.print(f"{time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
