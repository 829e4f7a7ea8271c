"""Which kind of task a new run is, and how its data is taken: as one text, or as records."""

from dataclasses import dataclass
from pathlib import Path

from peers.errors import ConfigError
from peers.making import TOKENIZER_REMEDY, TaskMaker
from peers.making.chats import ChatTask
from peers.making.labelled import ImageLabelTask, TextLabelTask
from peers.making.tokens import TokenTask
from peers.reading import Rows, open_rows
from peers.texts import TextTask

_WANTED = {
    "chat": 'rows of {"messages": [{"role", "content"}, …]}, as JSONL or Parquet',
    "text_classification": "rows with a text and a label, as JSONL, CSV or Parquet",
    "image_classification": "images in a folder for each class, or Parquet with an image and a label",
}
MAX_TEXT_BYTES = 64 << 20  # beyond it a text becomes records


@dataclass(frozen=True)
class DataShape:
    """`records`: though the data could be one text; `text_column` and `label_column`: of rows, where they are not called so; `task`: its
    kind."""

    records: bool = False
    text_column: str | None = None
    label_column: str | None = None
    task: str = "causal_lm"


def choose_task(data: Path | None, tokenizer: str, shape: DataShape) -> TaskMaker:
    """ConfigError where data and options do not go together."""
    wanted = _tokenizer(tokenizer)
    if shape.task != "causal_lm":
        return _of_rows(data, wanted, shape)
    if shape.label_column is not None:
        raise ConfigError(
            "--label-column", shape.label_column, "a language model learns no labels: leave it out, or give --task"
        )
    rows = _as_rows(data, isinstance(wanted, Path), shape)
    if rows is not None:
        return TokenTask(rows, wanted, shape.text_column or "text")
    assert not isinstance(wanted, Path)
    return TextTask(data, wanted or 0)


def _of_rows(data: Path | None, tokenizer: int | Path | None, shape: DataShape) -> TaskMaker:
    """Of the kinds of task whose samples are one row each."""
    if data is None:
        raise ConfigError("--data", None, f"is needed: {_WANTED[shape.task]}")
    label = shape.label_column or "label"
    if shape.task == "text_classification":
        return TextLabelTask(open_rows(data), tokenizer, shape.text_column or "text", label)
    if shape.text_column is not None:
        raise ConfigError("--text-column", shape.text_column, f"--task {shape.task} takes none: leave it out")
    if shape.task == "image_classification":
        if tokenizer is not None:
            raise ConfigError("--tokenizer", str(tokenizer), "images have no tokens: leave it out")
        return ImageLabelTask(open_rows(data), label)
    return ChatTask(open_rows(data), tokenizer)


def _as_rows(data: Path | None, must: bool, shape: DataShape) -> Rows | None:
    """None: it is one text."""
    must = must or shape.records or shape.text_column is not None
    if data is None:
        if must:
            raise ConfigError("--data", None, "give text, JSONL, CSV or Parquet files to make records of")
        return None
    try:
        rows = open_rows(data)
    except ConfigError:
        if must:
            raise
        return None  # which files of a text are taken, and what is wrong with them, is said by who reads it
    return rows if must or rows.form.name != "text" or rows.size_bytes() > MAX_TEXT_BYTES else None


def _tokenizer(tokenizer: str) -> int | Path | None:
    """None for bytes; how many tokens a BPE is to have; or where a tokenizer.json is."""
    kind, _, size = tokenizer.partition(":")
    if tokenizer == "bytes":
        return None
    if kind == "bpe":
        if not (size.isascii() and size.isdigit() and len(size) <= 5) or not 257 <= int(size) <= 65536:
            raise ConfigError("--tokenizer", tokenizer, TOKENIZER_REMEDY)
        return int(size)
    path = Path(tokenizer).expanduser()
    if not path.exists():
        raise ConfigError("--tokenizer", tokenizer, TOKENIZER_REMEDY)
    return path


__all__ = ["DataShape", "choose_task"]
