"""Classification of texts: which of the run's labels a text has."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from swarm.config import LabelledTexts, RunConfig, TextClassificationConfig
from swarm.data.records import OpenLeaves, RecordLayout
from swarm.data.tokenizer import make_tokenizer, save_tokenizer
from swarm.device import to_device
from swarm.errors import InputError
from swarm.models import FlatModel, Purpose, Trainable, for_tokens
from swarm.tasks.labelling import Labeller, label_fields, read_labels
from swarm.tasks.recorded import RecordedTask
from swarm.tasks.uses import Use


def _task(config: RunConfig) -> TextClassificationConfig:
    assert isinstance(config.task, TextClassificationConfig)
    return config.task


class TextLabeller(Labeller):
    """Implements `swarm.tasks.uses.Use`; of a row it takes `text` and `label`."""

    columns: tuple[str, ...] = ("text", "label")

    def __init__(self, data: LabelledTexts, read: Callable[[str], bytes]) -> None:
        super().__init__(data, read)
        self._data, self._layout = data, RecordLayout(data.record_fields())
        self._tokenizer = make_tokenizer(data, read)
        self._tokenizer.enable_truncation(data.context)

    def encode_unlabelled(self, row: Mapping[str, Any]) -> np.ndarray:
        return text_record(self._data, self._layout, self._tokenizer, row.get("text"))

    def logits(self, model: Trainable, records: np.ndarray) -> torch.Tensor:
        longest = max(1, int(records["length"].max()))  # what is behind is padding in all of them
        tokens = torch.from_numpy(records["tokens"][:, :longest].astype(np.int64))
        mask = torch.from_numpy((np.arange(longest) < records["length"][:, None]).astype(np.int64))
        device = model.device
        logits = model.module(input_ids=to_device(tokens, device), attention_mask=to_device(mask, device)).logits
        return logits.float()  # type: ignore[no-any-return]


def text_record(data: LabelledTexts, layout: RecordLayout, tokenizer: Any, text: object) -> np.ndarray:
    """Structured [1] of a text cut to `context` tokens by a tokenizer that truncates; its label is 0. InputError for what is no text."""
    if not isinstance(text, str) or not text.strip():
        raise InputError("text", text, "must be a text that is not empty; mend it or leave the row out")
    try:
        tokens = tokenizer.encode(text.rstrip("\0")).ids
    except (UnicodeEncodeError, TypeError):  # what the library makes of it
        raise InputError("text", text[:40], "has half a character; mend it or leave the row out") from None
    record = layout.empty(1)
    # a model finds the end of a text by its padding: a last token that is the padding would be none of the text
    while len(tokens) > 1 and tokens[-1] == data.padding:
        tokens = tokens[:-1]
    record["tokens"] = data.padding
    record["tokens"][0, : len(tokens)] = tokens
    record["length"] = len(tokens)
    return record


def open_task(
    config: RunConfig,
    directory: Path,
    read: Callable[[str], bytes],
    report: Callable[[float], None],
    leaves: OpenLeaves,
) -> RecordedTask:
    data = _task(config).data
    return RecordedTask(config, data, TextLabeller(data, read), leaves)


def open_use(config: RunConfig, read: Callable[[str], bytes]) -> Use:
    return TextLabeller(_task(config).data, read)


def purpose(config: RunConfig) -> Purpose:
    data = _task(config).data
    return for_tokens(data.context, "AutoModelForSequenceClassification", data.padding, data.num_labels)


def example_loss(config: RunConfig, model: FlatModel) -> torch.Tensor:
    data = _task(config).data
    tokens = to_device(torch.full((1, data.context), (data.padding + 1) % data.tokenizer.vocabulary), model.device)
    logits = model.module(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits.float()
    return torch.nn.functional.cross_entropy(logits, torch.zeros_like(tokens[:, 0]))


def save_inputs(config: RunConfig, model: FlatModel, read: Callable[[str], bytes], out: Path) -> None:
    """The tokenizer, which pads and cuts as the run did. Names of labels stand in the model's config."""
    data = _task(config).data
    save_tokenizer(data, read, data.context, out, data.padding)


def config_fields(config: RunConfig, read: Callable[[str], bytes]) -> dict[str, Any]:
    return label_fields(read_labels(_task(config).data, read))
