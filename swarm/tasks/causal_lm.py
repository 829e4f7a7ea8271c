"""Causal language modelling: the next token of the run's text, or of records of tokens."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from swarm import models
from swarm.config import RunConfig, TextConfig, TokenRecords
from swarm.data.records import OpenLeaves
from swarm.data.text import TextData, sample_offsets, unit_seed
from swarm.data.tokenizer import make_tokenizer, open_tokenizer
from swarm.device import storage_of, to_device, to_host
from swarm.models import FlatModel, Trainable, build_model
from swarm.records.types import Account, Hash
from swarm.tasks.recorded import RecordedSamples

PROMPT, PROMPTED_TOKENS = "def ", 120


class TokenData(Protocol):
    """Where the tokens are: in one text, or in records."""

    def samples(self, peer: Account, beacon: Hash, unit: int, step: int) -> np.ndarray: ...

    def num_samples(self) -> int: ...

    def batch(self, samples: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets, int64 [B, T] each."""

    def held_out(self, num_samples: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The same evenly spaced held-out ones for everybody, int64 [N, T] each."""


class TextSamples(TextData):
    """Implements `TokenData` for a text: samples begin anywhere in it."""

    def __init__(self, config: RunConfig, text: TextConfig, directory: Path, report: Callable[[float], None]) -> None:
        super().__init__(text, directory, report)
        self._run_id, self._inner = config.run_id, config.inner
        self._unit: tuple[Account, Hash, int] | None = None
        self._offsets = sample_offsets(bytes(32), 1, 1)

    def samples(self, peer: Account, beacon: Hash, unit: int, step: int) -> np.ndarray:
        inner = self._inner
        if self._unit != (peer, beacon, unit):
            seed = unit_seed(self._run_id, beacon, peer, unit)
            total = inner.steps_per_unit * inner.batch_size
            self._offsets = sample_offsets(seed, total, self.num_positions()).reshape(
                inner.steps_per_unit, inner.batch_size
            )
            self._unit = (peer, beacon, unit)
        return np.asarray(self._offsets[step])

    def num_samples(self) -> int:
        return self.num_positions()


class TokenSamples:
    """Implements `TokenData` for records of tokens."""

    def __init__(self, config: RunConfig, records: TokenRecords, leaves: OpenLeaves) -> None:
        inner = config.inner
        self._records = RecordedSamples(config.run_id, records, inner.steps_per_unit, inner.batch_size, leaves)
        self.samples, self.num_samples = self._records.samples, self._records.num_samples

    def batch(self, samples: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        return _shifted(self._records.read(samples))

    def held_out(self, num_samples: int) -> tuple[torch.Tensor, torch.Tensor]:
        return _shifted(self._records.held_out(num_samples))


def _shifted(records: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    windows = torch.from_numpy(records["tokens"].astype(np.int64))
    return windows[:, :-1], windows[:, 1:]


class CausalLMTask:
    """Implements `swarm.tasks.Subject`."""

    def __init__(
        self,
        config: RunConfig,
        directory: Path,
        report: Callable[[float], None] = lambda share: None,
        leaves: OpenLeaves | None = None,
    ) -> None:
        """`report`: of the cutting into tokens. `leaves`: of records, for a run that has them."""
        self.config, self.directory = config, directory
        data = config.task.data
        self.data: TokenData
        if isinstance(data, TextConfig):
            self.data = TextSamples(config, data, directory, report)
        else:
            assert leaves is not None, "records without their leaves"
            self.data = TokenSamples(config, data, leaves)

    def samples(self, peer: Account, beacon: Hash, unit: int, step: int) -> np.ndarray:
        return self.data.samples(peer, beacon, unit, step)

    def num_samples(self) -> int:
        return self.data.num_samples()

    def loss_of(self, model: Trainable, samples: np.ndarray) -> torch.Tensor:
        return self.loss(model, *self.data.batch(samples))

    def loss(self, model: Trainable, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        inputs, targets = to_device(inputs, model.device), to_device(targets, model.device)
        logits = model.module(input_ids=inputs).logits
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())

    def evaluate(self, model: Trainable, num_samples: int = 64) -> float:
        inputs, targets = self.data.held_out(num_samples)
        total = 0.0
        with torch.no_grad():
            for start in range(0, num_samples, 32):
                part = inputs[start : start + 32]
                total += float(self.loss(model, part, targets[start : start + 32])) * len(part)
        return total / num_samples

    def sample(self, model: Trainable) -> str:
        return self.generate(model, PROMPT, PROMPTED_TOKENS)

    def generate(self, model: Trainable, prompt: str, num_tokens: int, seed: int = 0) -> str:
        """Text sampled at temperature 0.8."""
        tokenizer = open_tokenizer(self.config.task.data, self.directory)
        generator = torch.Generator().manual_seed(seed)
        tokens = list(tokenizer.encode(prompt).ids)
        with torch.no_grad():
            for _ in range(num_tokens):
                window = to_device(torch.tensor([tokens[-self.config.task.data.context :]]), model.device)
                logits = to_host(model.module(input_ids=window).logits[0, -1].float()) / 0.8
                tokens.append(int(torch.multinomial(torch.softmax(logits, -1), 1, generator=generator)))
        return str(tokenizer.decode(tokens))


open_task = CausalLMTask


def new_model(config: RunConfig, seed: int, device: torch.device) -> FlatModel:
    return FlatModel(build_model(config.task.model, config.task.data.context, seed), device)


def check_model(config: RunConfig) -> int:
    return models.check_model(config.task.model, config.task.data.context)


def kept_bytes(config: RunConfig, model: FlatModel) -> int:
    kept: dict[int, int] = {}
    held = []  # so that no memory is counted for two
    own, _ = storage_of(model.flat)

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        held.append(tensor)
        identity, size = storage_of(tensor)
        if identity != own:
            kept[identity] = size
        return tensor

    tokens = to_device(torch.zeros(1, config.task.data.context, dtype=torch.int64), model.device)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = model.module(input_ids=tokens).logits
        torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), tokens.flatten())
    return sum(kept.values())


def save_model(config: RunConfig, model: FlatModel, read: Callable[[str], bytes], out: Path) -> None:
    """With the tokenizer, of a run on bytes too (token n is byte n)."""
    from transformers import PreTrainedTokenizerFast
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    model.module.save_pretrained(out)  # type: ignore[operator]
    PreTrainedTokenizerFast(
        tokenizer_object=make_tokenizer(config.task.data, read),
        model_max_length=config.task.data.context,
        clean_up_tokenization_spaces=False,
    ).save_pretrained(out)
