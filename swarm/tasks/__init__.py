"""What is trained: one file for each kind of task, and one door to all of them, for whoever trains, evaluates, redoes or exports."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from swarm.config import RunConfig
from swarm.models import FlatModel
from swarm.records.types import Account, Hash
from swarm.tasks import causal_lm


class Task(Protocol):
    """Deterministic given its arguments: an auditor calls the same. Losses are scalars, in nats per token where there are tokens."""

    def step(self, model: FlatModel, peer: Account, beacon: Hash, unit: int, step: int) -> torch.Tensor:
        """Loss of inner step `step` of a unit; its gradient lies in `model.grad_flat` afterwards."""

    def step_on(self, model: FlatModel, samples: Sequence[int] | np.ndarray) -> torch.Tensor:
        """The same for the samples of these numbers."""

    def num_samples(self) -> int: ...

    def evaluate(self, model: FlatModel, num_samples: int = 64) -> float:
        """Mean loss of held-out samples."""

    def sample(self, model: FlatModel) -> str:
        """What the model makes, for people; "" where there is nothing to be read."""


_TASKS: dict[str, Callable[[RunConfig, Path, Callable[[float], None]], Task]] = {"causal_lm": causal_lm.CausalLMTask}
_MODELS: dict[str, Callable[[RunConfig, int], FlatModel]] = {"causal_lm": causal_lm.new_model}


def open_task(config: RunConfig, directory: Path, report: Callable[[float], None] = lambda share: None) -> Task:
    """Of the run, on the data in `directory`; `report` hears how much of the preparation is done. `InputError` where the data is not
    what the run's configuration says."""
    return _TASKS[config.task](config, directory, report)


def new_model(config: RunConfig, seed: int = 0) -> FlatModel:
    """The run's model, untrained, as `seed` draws it. `InputError` where it cannot be built."""
    return _MODELS[config.task](config, seed)


__all__ = ["Task", "new_model", "open_task"]
