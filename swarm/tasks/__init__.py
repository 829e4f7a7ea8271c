"""What is trained: one file for each kind of task, and one door to all of them, for whoever trains, evaluates, redoes or exports."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from swarm.config import RunConfig
from swarm.data.records import FileLeaves, OpenLeaves
from swarm.device import HOST
from swarm.models import FlatModel, Trainable
from swarm.records.types import Account, Hash
from swarm.tasks import causal_lm
from swarm.tasks.pieces import InPieces, Subject


class Task(Protocol):
    """What is trained on, whatever its kind. Deterministic given its arguments, but for the rounding of pieces. Losses are scalars, in
    nats per token where there are tokens."""

    def step(self, model: Trainable, peer: Account, beacon: Hash, unit: int, step: int) -> torch.Tensor:
        """Loss of inner step `step` of a unit; its gradient lies in the parameters' (`FlatModel.grad_flat`) afterwards."""

    def step_on(self, model: Trainable, samples: Sequence[int] | np.ndarray) -> torch.Tensor:
        """The same for the samples of these numbers."""

    def num_samples(self) -> int: ...

    def evaluate(self, model: Trainable, num_samples: int = 64) -> float:
        """Mean loss of held-out samples."""

    def sample(self, model: Trainable) -> str:
        """What the model makes, for people; "" where there is nothing to be read."""


class Kind(Protocol):
    """What a file of this package has; the functions below say what each does."""

    def open_task(
        self, config: RunConfig, directory: Path, report: Callable[[float], None], leaves: OpenLeaves
    ) -> Subject: ...
    def new_model(self, config: RunConfig, seed: int, device: torch.device) -> FlatModel: ...
    def check_model(self, config: RunConfig) -> int: ...
    def kept_bytes(self, config: RunConfig, model: FlatModel) -> int: ...
    def save_model(self, config: RunConfig, model: FlatModel, read: Callable[[str], bytes], out: Path) -> None: ...


KINDS: dict[str, Kind] = {"causal_lm": causal_lm}


def open_task(
    config: RunConfig,
    directory: Path,
    report: Callable[[float], None] = lambda share: None,
    micro_batch: int = 0,
    leaves: OpenLeaves | None = None,
) -> InPieces:
    """Of the run, on the data in `directory`; `report` hears how much of the preparation is done. `micro_batch`: how many samples this
    machine takes at once; 0: what fits. `leaves`: where files of records come from; None: they lie in `directory`, whole. `InputError`
    where the data is not what the run's configuration says."""
    source = leaves or (lambda name, table: FileLeaves(directory / name, table))
    return InPieces(config, KINDS[config.task.kind].open_task(config, directory, report, source), micro_batch)


def new_model(config: RunConfig, seed: int = 0, device: torch.device = HOST) -> FlatModel:
    """The run's model, untrained, as `seed` draws it (on every device alike). `InputError` where it cannot be built."""
    return KINDS[config.task.kind].new_model(config, seed, device)


def check_model(config: RunConfig) -> int:
    """Number of the model's parameters that are trained, before it takes any memory; errors as `new_model`."""
    return KINDS[config.task.kind].check_model(config)


def kept_bytes(config: RunConfig, model: FlatModel) -> int:
    """Memory that the forward pass of a step keeps for the backward pass, for each sample: one is passed forward to see."""
    return KINDS[config.task.kind].kept_bytes(config, model)


def save_model(config: RunConfig, model: FlatModel, read: Callable[[str], bytes], out: Path) -> None:
    """A folder that transformers opens: config, weights, and what turns data into the model's inputs. `read` gives a file of the run's
    data by its name."""
    KINDS[config.task.kind].save_model(config, model, read, out)


__all__ = ["InPieces", "Subject", "Task", "check_model", "kept_bytes", "new_model", "open_task", "save_model"]
