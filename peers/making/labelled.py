"""The tasks of new runs on rows with labels: texts, and images in folders by class."""

import json
import re
from pathlib import Path
from typing import Any

from peers.errors import ConfigError
from peers.making import file_of
from peers.making.rows import RowTask, label_of
from peers.making.tokenizing import ChosenTokenizer
from peers.progressbar import ProgressBar
from peers.reading import Rows
from swarm.config import LABELS_FILE

MAX_LABELS = 4096

_NUMBER = re.compile(r"-?[0-9]{1,18}")


class LabelTask(RowTask):
    """Of either kind: the names of the labels are those in the rows, numbers by size, words by their letters."""

    def __init__(self, rows: Rows, columns: dict[str, str]) -> None:
        super().__init__(rows, columns)
        self.labels = ["0", "1"]  # until they are read

    def label_values(self) -> dict[str, Any]:
        return {"num_labels": len(self.labels), "labels": file_of(self.content.get(LABELS_FILE, b""))}

    def prepare(self, progress: ProgressBar) -> None:
        found = set[str]()
        column = self.columns["label"]
        with progress.during("looking for labels") as report:
            for row in self.rows.read([column], report):
                found.add(label_of(row.values[column], row.where))
                if len(found) > MAX_LABELS:
                    raise ConfigError(
                        "--label-column",
                        column,
                        f"has more than {MAX_LABELS} different labels; name the one with the labels",
                    )
        if len(found) < 2:
            raise ConfigError("--label-column", column, f"has {len(found)} label; two are needed to tell apart")
        are_numbers = all(_NUMBER.fullmatch(label) for label in found)
        self.labels = sorted(found, key=lambda label: (int(label), label)) if are_numbers else sorted(found)
        self.content[LABELS_FILE] = json.dumps(self.labels, ensure_ascii=False).encode()


class TextLabelTask(LabelTask):
    """`tokenizer` as `ChosenTokenizer` takes it."""

    kind, making = "text_classification", "cutting the texts into tokens"

    def __init__(self, rows: Rows, tokenizer: int | Path | None, text_column: str, label_column: str) -> None:
        super().__init__(rows, {"text": text_column, "label": label_column})
        self._tokenizer = ChosenTokenizer(tokenizer)

    def draft(self) -> dict[str, Any]:
        padding = 0 if self._tokenizer.is_to_be_trained else self._tokenizer.padding()
        data = {**self.label_values(), **self._tokenizer.values(), "padding": padding}
        return self.tables(data, {"fields": {"vocab_size": self._tokenizer.vocabulary}})

    def prepare(self, progress: ProgressBar) -> None:
        super().prepare(progress)
        for note in self._tokenizer.notes:
            progress.note(note)
        if self._tokenizer.is_to_be_trained:
            column = self.columns["text"]
            self._tokenizer.train((row.text(column) for row in self.rows.read([column])), progress)
        self.content |= self._tokenizer.content()


class ImageLabelTask(LabelTask):
    kind, making = "image_classification", "reading the images"

    def __init__(self, rows: Rows, label_column: str) -> None:
        super().__init__(rows, {"image": "image", "label": label_column})

    def draft(self) -> dict[str, Any]:
        return self.tables(self.label_values(), {})


__all__ = ["ImageLabelTask", "TextLabelTask"]
