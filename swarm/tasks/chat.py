"""Chat: what the assistant says in conversations. The loss is the mean over samples of each sample's mean over its learnt tokens, so
that every conversation has the same weight, however long the assistant's turns are."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from swarm.config import TEMPLATE_FILE, ChatConfig, ChatRecords, RunConfig
from swarm.data.conversations import Template, chat_record
from swarm.data.records import OpenLeaves, RecordLayout
from swarm.data.tokenizer import make_tokenizer, save_tokenizer
from swarm.device import to_device
from swarm.errors import InputError
from swarm.models import FlatModel, Purpose, Trainable, for_tokens
from swarm.tasks.recorded import RecordedTask
from swarm.tasks.uses import Manner, Measures, Report, Use, mean_of, write_on

SHOWN = Manner(num_tokens=80)


def _task(config: RunConfig) -> ChatConfig:
    assert isinstance(config.task, ChatConfig)
    return config.task


class Chatter:
    """Implements `swarm.tasks.uses.Use`; of a row it takes `messages`, or a `text` as the user's words. A run's template is rendered
    only where somebody asks for it here, in transformers' sandbox: who trains never does."""

    columns: tuple[str, ...] = ("messages",)

    def __init__(self, data: ChatRecords, read: Callable[[str], bytes]) -> None:
        self._data, self._read, self._layout = data, read, RecordLayout(data.record_fields())
        self.tokenizer = make_tokenizer(data, read)

    def _template(self) -> Template:
        return Template(self._read(TEMPLATE_FILE).decode("utf-8", "replace"))

    def encode(self, row: Mapping[str, Any]) -> np.ndarray:
        return chat_record(self._layout, self.tokenizer, self._template(), row.get("messages"))

    def loss(self, model: Trainable, records: np.ndarray, reduction: str = "mean") -> torch.Tensor:
        if not records["learnt"][:, 1:].any(1).all():
            broken = (
                "in a record: nothing is learnt from it, the run's data are broken; ask the organiser for a new run"
            )
            raise InputError("data.learnt", 0, broken)
        # nothing behind is learnt from, and a causal model sees nothing that is behind
        longest = int(np.flatnonzero(records["learnt"].max(0))[-1]) + 1
        tokens = to_device(torch.from_numpy(records["tokens"][:, :longest].astype(np.int64)), model.device)
        learnt = to_device(torch.from_numpy(records["learnt"][:, 1:longest].astype(np.float32)), model.device)
        logits = model.module(input_ids=tokens[:, :-1]).logits.float()
        each = torch.nn.functional.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none")
        by_sample = (each * learnt).sum(1) / learnt.sum(1)
        return by_sample.mean() if reduction == "mean" else by_sample.sum()

    def measure(self, model: Trainable, samples: np.ndarray, report: Report) -> Measures:
        loss = mean_of(samples, report, lambda part: float(self.loss(model, part, "sum")))
        return Measures(len(samples), loss, float(np.exp(loss)))

    def respond(self, model: Trainable, given: Mapping[str, Any], manner: Manner, report: Report) -> Mapping[str, Any]:
        messages = given.get("messages") or [{"role": "user", "content": given.get("text", "")}]
        if not isinstance(messages, list):
            raise InputError("messages", messages, 'must be a list of {"role", "content"}')
        template = self._template()
        tokens = self.tokenizer.encode(template.render(messages, is_asked=True), add_special_tokens=False).ids
        return {"text": self.write(model, tokens, manner, report, template.end_of_turn())}

    def write(self, model: Trainable, tokens: list[int], manner: Manner, report: Report, end: str = "") -> str:
        def decoded(made: list[int]) -> str:
            return str(self.tokenizer.decode(made, skip_special_tokens=False))

        def ends(made: list[int]) -> bool:
            return bool(end) and end in decoded(made)

        text = decoded(write_on(model, tokens, self._data.context, manner, report, ends, decoded, end))
        return text.split(end, 1)[0] if end else text


class ChatTask(RecordedTask):
    """Implements `swarm.tasks.Subject`."""

    def __init__(self, config: RunConfig, use: Chatter, leaves: OpenLeaves) -> None:
        super().__init__(config, _task(config).data, use, leaves)
        self._chatter = use

    def sample(self, model: Trainable) -> str:
        """The assistant's first words in a held-out conversation: no template is rendered for that."""
        record = self.held_out(1)[0]
        start = int(record["learnt"].argmax())
        tokens = [int(token) for token in record["tokens"][: max(1, start)]]
        return self._chatter.write(model, tokens, SHOWN, lambda share: None)


def open_task(
    config: RunConfig,
    directory: Path,
    read: Callable[[str], bytes],
    report: Callable[[float], None],
    leaves: OpenLeaves,
) -> ChatTask:
    return ChatTask(config, Chatter(_task(config).data, read), leaves)


def open_use(config: RunConfig, read: Callable[[str], bytes]) -> Use:
    return Chatter(_task(config).data, read)


def purpose(config: RunConfig) -> Purpose:
    return for_tokens(_task(config).data.context)


def example_loss(config: RunConfig, model: FlatModel) -> torch.Tensor:
    tokens = to_device(torch.zeros(1, _task(config).data.context, dtype=torch.int64), model.device)
    logits = model.module(input_ids=tokens).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), tokens.flatten())


def save_inputs(config: RunConfig, model: FlatModel, read: Callable[[str], bytes], out: Path) -> None:
    """The tokenizer with the template."""
    data = _task(config).data
    save_tokenizer(data, read, data.context, out, template=read(TEMPLATE_FILE).decode("utf-8", "replace"))


def config_fields(config: RunConfig, read: Callable[[str], bytes]) -> dict[str, Any]:
    return {}
