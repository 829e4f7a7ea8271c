"""How a machine takes a step of any task: in the run's precision, and in pieces that its memory holds, gradients added up.

A piece's loss counts by its share of the samples, so the sum is the batch's up to rounding (measured: protocol §7.3).
"""

import contextlib
import gc
import logging
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from swarm.config import RunConfig
from swarm.device import forget_freed, is_out_of_memory
from swarm.errors import InputError
from swarm.models import Trainable
from swarm.records.types import Account, Hash

log = logging.getLogger(__name__)


class Subject(Protocol):
    """What a kind of task has of its own. Deterministic given its arguments: an auditor calls the same."""

    def samples(self, peer: Account, beacon: Hash, unit: int, step: int) -> np.ndarray:
        """Numbers of the samples of inner step `step` of a unit."""

    def loss_of(self, model: Trainable, samples: np.ndarray) -> torch.Tensor:
        """Scalar, with its graph: the mean over these samples, each of the same weight."""

    def num_samples(self) -> int: ...

    def evaluate(self, model: Trainable, num_samples: int) -> float: ...

    def held_out(self, num_samples: int) -> np.ndarray: ...

    def sample(self, model: Trainable) -> str: ...


class InPieces:
    """Implements `swarm.tasks.Task` for any kind. `micro_batch`: samples of a piece; 0: all at once, and smaller pieces where the
    memory turns out to be too small for that; `has_shrunk` says so. What its owner named is kept to."""

    def __init__(self, config: RunConfig, subject: Subject, micro_batch: int = 0) -> None:
        self.config, self.subject, self.micro_batch = config, subject, micro_batch
        self._is_named = micro_batch > 0
        self.has_shrunk = False

    def step(self, model: Trainable, peer: Account, beacon: Hash, unit: int, step: int) -> torch.Tensor:
        return self.step_on(model, self.subject.samples(peer, beacon, unit, step))

    def step_on(self, model: Trainable, samples: Sequence[int] | np.ndarray) -> torch.Tensor:
        """InputError where the pieces that its owner named do not fit and smaller ones may; what torch raises where nothing would."""
        numbers = np.asarray(samples)
        while True:
            try:
                return self._accumulate(model, numbers)
            except (RuntimeError, MemoryError) as error:
                smaller = min(self.micro_batch or len(numbers), len(numbers)) // 2
                if not is_out_of_memory(error) or smaller == 0:
                    raise
            self._shrink(smaller, model.device)  # not in the except: there the error still holds the step's tensors

    def _accumulate(self, model: Trainable, numbers: np.ndarray) -> torch.Tensor:
        model.zero_grad()
        total = torch.zeros((), device=model.device)
        size = self.micro_batch or len(numbers)
        for start in range(0, len(numbers), size):
            piece = numbers[start : start + size]
            with self._precision(model.device):
                loss = self.subject.loss_of(model, piece)
            if len(piece) < len(numbers):
                loss = loss * (len(piece) / len(numbers))
            torch.autograd.backward(loss)
            total += loss.detach()
        return total

    def _precision(self, device: torch.device) -> contextlib.AbstractContextManager[object]:
        """bf16 for the products of the forward pass, and so of the backward pass; parameters and their gradients stay fp32."""
        if self.config.inner.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(device.type, dtype=torch.bfloat16)

    def _shrink(self, smaller: int, device: torch.device) -> None:
        if self._is_named:
            raise InputError(
                "micro_batch",
                self.micro_batch,
                f"a step of this run does not fit into the memory of {device} in such pieces: --micro-batch {smaller} may, "
                "or 0, which finds what fits",
            )
        log.warning("%s: too little memory for a step; from now on in pieces of %d samples", device, smaller)
        self.micro_batch, self.has_shrunk = smaller, True
        gc.collect()
        forget_freed(device)

    def num_samples(self) -> int:
        return self.subject.num_samples()

    def evaluate(self, model: Trainable, num_samples: int = 64) -> float:
        return self.subject.evaluate(model, num_samples)

    def held_out(self, num_samples: int) -> np.ndarray:
        return self.subject.held_out(num_samples)

    def sample(self, model: Trainable) -> str:
        return self.subject.sample(model)


__all__ = ["InPieces", "Subject"]
