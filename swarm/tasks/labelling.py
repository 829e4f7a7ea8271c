"""What tasks share that tell labels apart: loss, measures, and which label a model gives."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from pydantic_core import from_json

from swarm.config import LABELS_FILE, LabelledRecords
from swarm.device import to_host
from swarm.errors import InputError
from swarm.models import Trainable
from swarm.tasks.uses import MEASURED_AT_ONCE, Manner, Measures, Report

MAX_LABEL = 200  # characters


def read_labels(data: LabelledRecords, read: Callable[[str], bytes]) -> list[str]:
    """Names of the labels, in the order of their numbers; InputError where the file is not such a list."""
    try:
        names = from_json(read(LABELS_FILE))
    except ValueError as error:
        raise InputError(
            "task.data.labels", LABELS_FILE, f"is no JSON ({error}); ask the organiser for a new run"
        ) from None
    fits = isinstance(names, list) and len(names) == data.num_labels and len(set(map(str, names))) == len(names)
    if not fits or not all(
        isinstance(name, str) and 1 <= len(name) <= MAX_LABEL and name.isprintable() for name in names
    ):
        raise InputError(
            "task.data.labels",
            LABELS_FILE,
            f"must be a list of {data.num_labels} printable names of at most {MAX_LABEL} letters; ask the organiser for a new run",
        )
    return [str(name) for name in names]


class Labeller:
    """Implements `swarm.tasks.uses.Use` but for what is labelled."""

    columns: tuple[str, ...]

    def __init__(self, data: LabelledRecords, read: Callable[[str], bytes]) -> None:
        self.names = read_labels(data, read)

    @abstractmethod
    def logits(self, model: Trainable, records: np.ndarray) -> torch.Tensor:
        """fp32 [B, number of labels], with their graph."""

    @abstractmethod
    def encode_unlabelled(self, row: Mapping[str, Any]) -> np.ndarray:
        """One record, its label still 0."""

    def encode(self, row: Mapping[str, Any]) -> np.ndarray:
        label = row.get("label")
        if not isinstance(label, str) or label not in self.names:
            known = ", ".join(self.names[:8]) + (", …" if len(self.names) > 8 else "")
            raise InputError("label", label, f"is none of the run's labels ({known}); mend it or leave the row out")
        record = self.encode_unlabelled(row)
        record["label"] = self.names.index(label)
        return record

    def loss(self, model: Trainable, records: np.ndarray, reduction: str = "mean") -> torch.Tensor:
        logits = self.logits(model, records)
        labels = torch.from_numpy(records["label"].astype(np.int64)).to(logits.device)
        return torch.nn.functional.cross_entropy(logits, labels, reduction=reduction)

    def measure(self, model: Trainable, samples: np.ndarray, report: Report) -> Measures:
        total, guesses = 0.0, list[np.ndarray]()
        with torch.no_grad():
            for start in range(0, len(samples), MEASURED_AT_ONCE):
                part = samples[start : start + MEASURED_AT_ONCE]
                logits = to_host(self.logits(model, part))
                labels = torch.from_numpy(part["label"].astype(np.int64))
                total += float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))
                guesses.append(np.asarray(logits.argmax(-1)))
                report(min(1.0, (start + MEASURED_AT_ONCE) / len(samples)))
        guessed, true = np.concatenate(guesses), samples["label"].astype(np.int64)
        accuracy = float((guessed == true).mean())
        return Measures(len(samples), total / len(samples), None, accuracy, macro_f1(true, guessed))

    def respond(self, model: Trainable, given: Mapping[str, Any], manner: Manner, report: Report) -> Mapping[str, Any]:
        with torch.no_grad():
            logits = self.logits(model, self.encode_unlabelled(given))[0]
        shares = to_host(torch.softmax(logits, -1)).tolist()
        best = int(np.argmax(shares))
        labels = sorted(zip(self.names, shares, strict=True), key=lambda pair: -pair[1])
        return {"label": self.names[best], "probability": shares[best], "labels": dict(labels)}


def macro_f1(true: np.ndarray, guessed: np.ndarray) -> float:
    """Mean of the labels' F1 over those that are there or were guessed, as scikit-learn has it."""
    found = []
    for label in np.union1d(true, guessed):
        both = int(((true == label) & (guessed == label)).sum())
        found.append(2 * both / (int((true == label).sum()) + int((guessed == label).sum())))
    return float(np.mean(found))


def label_fields(names: list[str]) -> dict[str, dict[Any, Any]]:
    """Of a config of transformers."""
    return {"id2label": dict(enumerate(names)), "label2id": {name: number for number, name in enumerate(names)}}


__all__ = ["Labeller", "label_fields", "macro_f1", "read_labels"]
