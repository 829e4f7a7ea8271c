"""Causal language modelling: the next token of the run's text."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from swarm import models
from swarm.config import RunConfig
from swarm.data.text import TextData, sample_offsets, unit_seed
from swarm.data.tokenizer import make_tokenizer, open_tokenizer
from swarm.device import storage_of, to_device, to_host
from swarm.models import FlatModel, Trainable, build_model
from swarm.records.types import Account, Hash

PROMPT, PROMPTED_TOKENS = "def ", 120


class CausalLMTask:
    """Implements `swarm.tasks.Subject`."""

    def __init__(
        self, config: RunConfig, directory: Path, report: Callable[[float], None] = lambda share: None
    ) -> None:
        """`report`: of the cutting into tokens."""
        self.config, self.directory = config, directory
        self.data = TextData(config.task.data, directory, report)
        self._unit: tuple[Account, Hash, int] | None = None
        self._offsets = sample_offsets(bytes(32), 1, 1)

    def samples(self, peer: Account, beacon: Hash, unit: int, step: int) -> np.ndarray:
        inner = self.config.inner
        if self._unit != (peer, beacon, unit):
            seed = unit_seed(self.config.run_id, beacon, peer, unit)
            total = inner.steps_per_unit * inner.batch_size
            self._offsets = sample_offsets(seed, total, self.data.num_positions()).reshape(
                inner.steps_per_unit, inner.batch_size
            )
            self._unit = (peer, beacon, unit)
        return np.asarray(self._offsets[step])

    def num_samples(self) -> int:
        return self.data.num_positions()

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
                window = to_device(torch.tensor([tokens[-self.data.context :]]), model.device)
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
