"""A model in use: what needs no run, only the model and the few small files that were saved with it. And how good a model is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import torch

from swarm.device import to_device, to_host
from swarm.models import Trainable

MEASURED_AT_ONCE = 32
Report = Callable[[float], None]  # the share that is done, 0 to 1


@dataclass(frozen=True)
class Measures:
    """Of samples that nobody trained on. `loss`: mean over the samples, in nats; None where a kind of task has no such number."""

    num_samples: int
    loss: float
    perplexity: float | None = None
    accuracy: float | None = None
    macro_f1: float | None = None

    def json_value(self) -> dict[str, float | int]:
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Manner:
    """How text is sampled. `told`: gets the text so far with each token, without what may still change; what it raises ends the writing."""

    num_tokens: int = 120
    temperature: float = 0.8
    seed: int = 0
    told: Callable[[str], None] | None = None


class Use(Protocol):
    """Of one kind of task. A row is what one line of a file of data says, by name of its field."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Of a row that `encode` takes."""

    def encode(self, row: Mapping[str, Any]) -> np.ndarray:
        """Samples of a row, [n] as `measure` takes them. InputError names the field of the row and what is wrong with it."""

    def measure(self, model: Trainable, samples: np.ndarray, report: Report) -> Measures: ...

    def respond(self, model: Trainable, given: Mapping[str, Any], manner: Manner, report: Report) -> Mapping[str, Any]:
        """What the model makes of `given`: {"text": str}, or {"label": str, "probability": float, "labels": every label's}."""


def next_token(logits: torch.Tensor, temperature: float, generator: torch.Generator) -> int:
    """Drawn on the host, so that a seed draws the same on every device; the likeliest at temperature 0."""
    on_host = to_host(logits.float())
    if temperature == 0:
        return int(on_host.argmax())
    return int(torch.multinomial(torch.softmax(on_host / temperature, -1), 1, generator=generator))


def write_on(
    model: Trainable,
    tokens: Sequence[int],
    context: int,
    manner: Manner,
    report: Report,
    ends: Callable[[list[int]], bool],
    decoded: Callable[[list[int]], str],
    end: str = "",
) -> list[int]:
    """Tokens that follow `tokens`, one at a time, until `ends` says so of those that were made, at most `manner.num_tokens`. `decoded`: the
    text that made ones give, of which `end` is no part any more."""
    generator = torch.Generator().manual_seed(manner.seed)
    seen, made = list(tokens), list[int]()
    with torch.no_grad():
        for done in range(manner.num_tokens):
            window = to_device(torch.tensor([seen[-context:]]), model.device)
            token = next_token(model.module(input_ids=window).logits[0, -1], manner.temperature, generator)
            seen.append(token)
            made.append(token)
            report((done + 1) / manner.num_tokens)
            if manner.told is not None:
                manner.told(settled(decoded(made), end))
            if ends(made):
                break
    return made


def settled(text: str, end: str = "") -> str:
    """What of a text that is being written stays as it is, whatever follows: up to `end`, without what may be the beginning of it, or of a
    character."""
    if end and end in text:
        return text.split(end, 1)[0]
    text = text.rstrip("\ufffd")
    longest = next((n for n in range(min(len(end) - 1, len(text)), 0, -1) if text.endswith(end[:n])), 0)
    return text[: len(text) - longest]


def mean_of(samples: np.ndarray, report: Report, sum_of: Callable[[np.ndarray], float]) -> float:
    """Mean over the samples of what `sum_of` adds up over some of them."""
    total = 0.0
    with torch.no_grad():
        for start in range(0, len(samples), MEASURED_AT_ONCE):
            total += sum_of(samples[start : start + MEASURED_AT_ONCE])
            report(min(1.0, (start + MEASURED_AT_ONCE) / len(samples)))
    return total / len(samples)


__all__ = ["Manner", "Measures", "Report", "Use", "mean_of", "next_token", "settled", "write_on"]
