"""Causal language modelling: the next token of the run's text, or of records of tokens."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from swarm.config import CausalLMConfig, RunConfig, TextConfig, TokenRecords
from swarm.data.records import OpenLeaves
from swarm.data.text import TextData, sample_offsets, unit_seed
from swarm.data.tokenizer import make_tokenizer, read_agreed, save_tokenizer
from swarm.device import to_device
from swarm.errors import InputError
from swarm.models import FlatModel, Purpose, Trainable, for_tokens
from swarm.records.types import Account, Hash
from swarm.tasks.recorded import RecordedSamples
from swarm.tasks.uses import Manner, Measures, Report, Use, mean_of, write_on

PROMPT, PROMPTED_TOKENS = "def ", 120


def _task(config: RunConfig) -> CausalLMConfig:
    assert isinstance(config.task, CausalLMConfig)
    return config.task


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
        read: Callable[[str], bytes] | None = None,
        report: Callable[[float], None] = lambda share: None,
        leaves: OpenLeaves | None = None,
    ) -> None:
        """`read`: small files of the data, None: from `directory`; `report`: of the cutting into tokens; `leaves`: of records, for a run
        that has them."""
        data = _task(config).data
        self.config = config
        self._read = read or (lambda name: read_agreed(directory / name, data.content()[name].sha256))
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
        return _loss(model, to_device(inputs, model.device), to_device(targets, model.device))

    def evaluate(self, model: Trainable, num_samples: int = 64) -> float:
        inputs, targets = self.data.held_out(num_samples)
        total = 0.0
        with torch.no_grad():
            for start in range(0, num_samples, 32):
                part = inputs[start : start + 32]
                total += float(self.loss(model, part, targets[start : start + 32])) * len(part)
        return total / num_samples

    def held_out(self, num_samples: int) -> np.ndarray:
        """int64 [N, T + 1]."""
        inputs, targets = self.data.held_out(num_samples)
        return np.concatenate([np.asarray(inputs), np.asarray(targets[:, -1:])], axis=1)

    def sample(self, model: Trainable) -> str:
        use = TextWriter(_task(self.config).data, self._read)
        return use.write(model, PROMPT, Manner(PROMPTED_TOKENS), lambda share: None)


class TextWriter:
    """Implements `swarm.tasks.uses.Use`; of a row it takes `text`. A sample is `context` + 1 tokens."""

    columns: tuple[str, ...] = ("text",)

    def __init__(self, data: TextConfig | TokenRecords, read: Callable[[str], bytes]) -> None:
        self._data, self._tokenizer = data, make_tokenizer(data, read)

    def encode(self, row: Mapping[str, Any]) -> np.ndarray:
        """Samples of a text, int64 [n, context + 1], one behind the other; the rest at its end is left out."""
        text, size = row.get("text"), self._data.context + 1
        if not isinstance(text, str):
            raise InputError("text", text, "must be a text; mend it or leave the row out")
        tokens = np.array(self._tokenizer.encode(text, add_special_tokens=False).ids, dtype=np.int64)
        return tokens[: len(tokens) // size * size].reshape(-1, size)

    def measure(self, model: Trainable, samples: np.ndarray, report: Report) -> Measures:
        def sum_of(part: np.ndarray) -> float:
            tokens = to_device(torch.from_numpy(part), model.device)
            return float(_loss(model, tokens[:, :-1], tokens[:, 1:])) * len(part)

        loss = mean_of(samples, report, sum_of)
        return Measures(len(samples), loss, math.exp(loss))

    def respond(self, model: Trainable, given: Mapping[str, Any], manner: Manner, report: Report) -> Mapping[str, Any]:
        return {"text": self.write(model, str(given.get("text", "")), manner, report)}

    def write(self, model: Trainable, prompt: str, manner: Manner, report: Report) -> str:
        """The prompt, and what follows."""
        tokens = list(self._tokenizer.encode(prompt).ids)

        def decoded(made: list[int]) -> str:
            return str(self._tokenizer.decode([*tokens, *made]))

        return decoded(write_on(model, tokens, self._data.context, manner, report, lambda made: False, decoded))


def _loss(model: Trainable, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    logits = model.module(input_ids=inputs).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def open_task(
    config: RunConfig,
    directory: Path,
    read: Callable[[str], bytes],
    report: Callable[[float], None],
    leaves: OpenLeaves,
) -> CausalLMTask:
    return CausalLMTask(config, directory, read, report, leaves)


def open_use(config: RunConfig, read: Callable[[str], bytes]) -> Use:
    return TextWriter(_task(config).data, read)


def purpose(config: RunConfig) -> Purpose:
    return for_tokens(_task(config).data.context)


def example_loss(config: RunConfig, model: FlatModel) -> torch.Tensor:
    tokens = to_device(torch.zeros(1, _task(config).data.context, dtype=torch.int64), model.device)
    return _loss(model, tokens, tokens)


def save_inputs(config: RunConfig, model: FlatModel, read: Callable[[str], bytes], out: Path) -> None:
    """The tokenizer."""
    save_tokenizer(_task(config).data, read, _task(config).data.context, out)


def config_fields(config: RunConfig, read: Callable[[str], bytes]) -> dict[str, Any]:
    return {}
