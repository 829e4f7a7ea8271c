"""What one peer alone learns from a run's data, to compare the swarm with."""

from pathlib import Path
from typing import Any

import torch

from peers.bases import folder_of, open_base
from peers.opening import missing_here
from peers.runs import RunDirectory
from swarm.checkpoint.anchor import read_anchor
from swarm.checkpoint.leaves import store_leaves
from swarm.checkpoint.store import BlockStore
from swarm.optim.inner import InnerOptimizer
from swarm.optim.schedule import learning_rate
from swarm.tasks import new_model, open_task


def baseline(root: Path, units: int, threads: int, every: int = 0) -> dict[str, Any]:
    """Held-out loss of a lone peer after `units` units of the run's own inner steps, without rounds. `curve`: [units, loss]
    at the start, each `every` units (0: never) and at the end."""
    torch.set_num_threads(threads)
    run = RunDirectory(root)
    config = run.load()
    store, missing = BlockStore(run.blocks, 1 << 40, owned=False), missing_here(run.blocks)
    get = store.getter(missing)
    model = new_model(config, base=folder_of(open_base(config, get)))
    model.flat.copy_(read_anchor(bytes.fromhex(config.initial_root), get, model.layout).parameters)
    leaves = store_leaves(bytes.fromhex(config.task.data.root), store, missing)
    task = open_task(config, run.data, leaves=leaves)
    before = task.evaluate(model)
    inner = InnerOptimizer(config.inner, model.flat, model.matrices)
    curve = [[0, before]]
    for unit in range(units):
        if every and unit and unit % every == 0:
            curve.append([unit, task.evaluate(model)])
        for step in range(config.inner.steps_per_unit):
            task.step(model, bytes(20), config.run_id, unit, step)
            # alone, the clock of the schedule runs on own units
            rate = learning_rate(
                unit, config.inner.lr, config.inner.warmup_units, max(units, config.inner.warmup_units + 1)
            )
            inner.step(model.grad_flat, rate)
    loss = task.evaluate(model)
    return {"untrained": before, "loss": loss, "units": units, "curve": [*curve, [units, loss]] if units else curve}
