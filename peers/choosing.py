"""Which kind of task a new run is, and how its data is taken: as one text, or as records."""

from dataclasses import dataclass
from pathlib import Path

from peers.errors import ConfigError
from peers.making import TOKENIZER_REMEDY, TaskMaker
from peers.making.tokens import TokenTask
from peers.reading import Rows, open_rows
from peers.texts import TextTask

MAX_TEXT_BYTES = 64 << 20  # beyond it a text becomes records


@dataclass(frozen=True)
class DataShape:
    """`records`: though the data could be one text; `text_column`: of rows, where it is not "text"."""

    records: bool = False
    text_column: str | None = None


def choose_task(data: Path | None, tokenizer: str, shape: DataShape) -> TaskMaker:
    """ConfigError where data and options do not go together."""
    wanted = _tokenizer(tokenizer)
    rows = _as_rows(data, isinstance(wanted, Path), shape)
    if rows is not None:
        return TokenTask(rows, wanted, shape.text_column or "text")
    assert not isinstance(wanted, Path)
    return TextTask(data, wanted or 0)


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
