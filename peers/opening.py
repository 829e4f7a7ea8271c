"""A run that was just made, opened as a seed and a peer will: from its blocks and from its files, up to a first step."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from coincurve import PrivateKey

from peers.bases import folder_of, open_base
from peers.errors import ConfigError
from peers.invite import Invite, anybodys_binding
from peers.progressbar import ProgressBar
from swarm.config import MAX_PARTS, RunConfig
from swarm.errors import InputError, PeerFault

if TYPE_CHECKING:
    from swarm.checkpoint.store import BlockStore
    from swarm.data.records import OpenLeaves
    from swarm.models import FlatModel
    from swarm.tasks import Task


RESTORE_BLOCK = ": restore it from a copy of the run's directory, or from a seed's blocks/ folder"


SAME = 1e-3  # how far apart, relative to its size, a step may come out the second time


def open_settings(config: RunConfig, base: Path | None = None) -> "FlatModel":
    """What needs no data: the model is built (of `base` where it starts from one), the round has two reducers at least, the invite is
    read back. InputError or ConfigError names the field."""
    from swarm.consensus.machine import RunRules
    from swarm.tasks import new_model

    model = new_model(config, base=base)
    check_parts(config, model.layout.num_values())
    key = PrivateKey(bytes(31) + b"\1")
    invite = Invite.short(*anybodys_binding(config, key))
    if Invite.decode(invite.encode()) != invite:
        raise ConfigError("run.toml", config.name, "does not come back from its own invite")
    RunRules.of(config, invite.binding.founders, model.layout.num_values())
    return model


def check_parts(config: RunConfig, num_values: int) -> None:
    """At least two parts, so two reducers: nobody else would hold, and co-sign for, a lone reducer's own contribution."""
    part = config.codec.part_values
    if part >= num_values:
        at_most = max(256, num_values // 2 // 256 * 256)
        raise ConfigError(
            "codec.part_values",
            part,
            f"leaves a model of {num_values} parameters in a single part, whose reducer would go unpaid: "
            f"--set codec.part_values={at_most}",
        )
    if -(-num_values // part) > MAX_PARTS:
        raise ConfigError(
            "codec.part_values",
            part,
            f"cuts {num_values} parameters into more than {MAX_PARTS} parts; take larger ones",
        )


def open_run(config: RunConfig, data: Path, blocks: Path, progress: ProgressBar) -> "FlatModel":
    """`open_settings`, then the initial anchor and the files from `blocks`, as who joins gets them, the files in `data`, as the
    seed reads them, a first inner step and a held-out loss."""
    import torch

    from swarm.checkpoint.anchor import read_anchor
    from swarm.checkpoint.runblocks import read_data
    from swarm.checkpoint.store import BlockStore
    from swarm.tasks import open_task

    store, missing = BlockStore(blocks, 1 << 62, owned=False), missing_here(blocks)
    get = store.getter(missing)
    with progress.during("building the model"):
        model = open_settings(config, folder_of(open_base(config, get)))
    try:
        with progress.during("reading the initial model"):
            anchor = read_anchor(bytes.fromhex(config.initial_root), get, model.layout)
        with progress.during("reading the data"):
            for name, content in read_data(config.task.data, get):
                if not (data / name).is_file() or (data / name).read_bytes() != content:
                    raise ConfigError(
                        "RUN_DIRECTORY",
                        str(data / name),
                        "is not the file in blocks/; move it away: a seed's start writes it anew",
                    )
        with progress.during("reading the records") as report:
            leaves = _checked_leaves(config, store, missing, report)
    except PeerFault as error:
        raise ConfigError(
            "RUN_DIRECTORY",
            str(blocks),
            f"holds other blocks than run.toml says ({error}); restore the one that was changed from a copy",
        ) from None
    with progress.during("cutting the text into tokens") as report:
        task = open_task(config, data, report, leaves=leaves)
    model.flat.copy_(anchor.parameters)
    with progress.during("taking a first step"), torch.random.fork_rng(devices=[]):
        _try_step(config, task, model)
    return model


def missing_here(blocks: Path) -> Callable[[bytes], Exception]:
    """What is said of a block of a run's directory that is not there."""
    return lambda digest: ConfigError(
        "RUN_DIRECTORY", str(blocks.parent), f"{blocks / digest.hex()} is missing or damaged{RESTORE_BLOCK}"
    )


def _checked_leaves(
    config: RunConfig, store: "BlockStore", missing: Callable[[bytes], Exception], report: Callable[[float], None]
) -> "OpenLeaves":
    """Every leaf of the run's records is hashed once."""
    from swarm.checkpoint.leaves import leaf_digests, store_leaves

    root, get = bytes.fromhex(config.task.data.root), store.getter(missing)
    for name, table in config.task.data.tables().items():
        for number, digest in enumerate(leaf_digests(root, name, table, get)):
            if len(get(digest)) != table.leaf_bytes(number):
                raise PeerFault(f"data: leaf {number} of {name} has another size than its records need")
            report((number + 1) / table.num_leaves)
    return store_leaves(root, store, missing)


def _try_step(config: RunConfig, task: "Task", model: "FlatModel") -> None:
    """InputError where a step has a fault: of those fields of the model without which it has none, if there are such."""
    from swarm.tasks import blamed

    fault = _fault(config, task, model)
    if fault is not None:
        raise blamed(config, fault, lambda other: _fault(config, task, other))


def _fault(config: RunConfig, task: "Task", model: "FlatModel") -> InputError | None:
    """What is wrong with a step of one sample. Nothing is where it is twice the same loss and gradient, but for how sums are rounded,
    and finite numbers after it at the largest learning rate."""
    import torch

    from swarm.models import named_line
    from swarm.optim.inner import InnerOptimizer

    last, whole = [task.num_samples() - 1], config.task.model.model_dump()
    try:
        first = float(task.step_on(model, last))
        gradient = model.grad_flat.clone()
        again = float(task.step_on(model, last))
        # Not to the bit: where a buffer lies in memory decides how a product's sums are cut. What draws numbers is off by tenths.
        apart = float((gradient - model.grad_flat).norm()) / max(float(gradient.norm()), 1e-30)
        same = math.isclose(first, again, rel_tol=SAME, abs_tol=SAME) and apart <= SAME
        InnerOptimizer(config.inner, model.flat, model.matrices).step(model.grad_flat, config.inner.lr)
        after = task.evaluate(model, 1)
    except (InputError, OSError):
        raise
    except Exception as error:  # a model's code fails in whatever way its fields make it fail
        return InputError("task.model", whole, f"the model cannot take a step with it: {named_line(error)}")
    if not math.isfinite(first) or not bool(torch.isfinite(gradient).all()):
        return InputError("task.model", whole, "with it the untrained model's loss or gradient is not finite")
    if not same:
        return InputError(
            "task.model", whole, "with it the same step gives another result each time: it could not be redone"
        )
    if not math.isfinite(after) or not bool(torch.isfinite(model.flat).all()):
        return InputError("inner.lr", config.inner.lr, "the first step at this rate leaves numbers that are not finite")
    return None


__all__ = ["RESTORE_BLOCK", "check_parts", "missing_here", "open_run", "open_settings"]
