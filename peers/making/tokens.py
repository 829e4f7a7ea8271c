"""The task of a new run on records of tokens: rows of any form, cut into tokens as they are read."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic_core import from_json

from peers.errors import ConfigError
from peers.making import NO_ROOT, TOKENIZER_REMEDY, Written, file_of
from peers.progressbar import ProgressBar
from peers.reading import Row, Rows
from peers.recording import RecordSpool
from swarm.config import TOKENIZER_FILE, RunConfig, TokenRecords
from swarm.errors import InputError

if TYPE_CHECKING:
    from swarm.checkpoint.store import BlockStore

CHARACTERS_AT_ONCE = 1 << 20
ROWS_AT_ONCE = 256


class TokenTask:
    """Implements `peers.making.TaskMaker`. `tokenizer`: None for bytes; the number of tokens of a BPE that is to be trained; or a
    published tokenizer.json, or the folder that holds one."""

    def __init__(self, rows: Rows, tokenizer: int | Path | None, column: str) -> None:
        self.rows, self._column = rows, column
        self._wanted = tokenizer
        self._file = b""  # of the tokenizer
        self._vocabulary = 256
        self._end_token: int | None = None
        self._notes: tuple[str, ...] = ()
        if isinstance(tokenizer, int):
            self._vocabulary = tokenizer
        elif tokenizer is not None:
            self._take_published(tokenizer)

    def _take_published(self, path: Path) -> None:
        from swarm.data.published import read_published

        file = path / TOKENIZER_FILE if path.is_dir() else path
        try:
            found = read_published(file.read_bytes(), str(file), _named_end(file))
        except OSError as error:
            raise ConfigError(
                "--tokenizer", str(file), f"cannot be read ({error.strerror}); {TOKENIZER_REMEDY}"
            ) from None
        except InputError as error:
            raise ConfigError("--tokenizer", str(file), error.remedy) from None
        self._file, self._vocabulary, self._end_token, self._notes = (
            found.data,
            found.vocabulary,
            found.end_token,
            found.notes,
        )

    def draft(self) -> dict[str, Any]:
        return self._task({"root": NO_ROOT, "num_train": 1, "num_held": 1})

    def _task(self, data: dict[str, Any]) -> dict[str, Any]:
        data = {"kind": "records", **data}
        if self._wanted is not None:
            data["tokenizer"] = {"kind": "published", "vocabulary": self._vocabulary, "file": file_of(self._file)}
        return {"data": data, "model": {"fields": {"vocab_size": self._vocabulary}}}

    def read(self, progress: ProgressBar) -> dict[str, Any]:
        """The tokenizer, where one is to be trained; values of `[task]`."""
        if self.rows.skipped.skipped:
            progress.note(self.rows.skipped.words())
        for note in self._notes:
            progress.note(f"{self._wanted}: {note}")
        if self._column not in (there := self.rows.columns()):
            raise ConfigError(
                "--text-column",
                self._column,
                f"{self.rows.files[0][1]} has {', '.join(map(repr, there))}; name the one with the text",
            )
        if isinstance(self._wanted, int):
            self._train(self._wanted, progress)
        return self.draft()

    def check(self, config: RunConfig) -> None:
        pass

    def write(self, store: "BlockStore", scratch: Path, draft: RunConfig, progress: ProgressBar) -> Written:
        """ConfigError names the first row that is broken."""
        from swarm.data.draw import draw_sizes
        from swarm.data.records import RecordLayout

        data = draft.task.data
        assert isinstance(data, TokenRecords)
        layout = RecordLayout(data.record_fields())
        with RecordSpool(scratch, layout) as spool:
            with progress.during("cutting the text into tokens") as report:
                for records in _windows(self._tokens(report), layout, data.context + 1):
                    spool.append(records)
            stored = spool.store(store, True, progress)
        per_unit = draft.inner.batch_size * draft.inner.steps_per_unit
        leaves, units = draw_sizes(layout.table(1).records_per_leaf, per_unit)
        values = {
            "num_train": stored.num_train, "num_held": stored.num_held, "leaves_per_draw": leaves, "units_per_draw": units
        }  # fmt: skip
        content = {TOKENIZER_FILE: self._file} if self._file else {}
        return Written({"data": values}, content, stored.entries)

    def facts(self) -> dict[str, Any]:
        return {
            "data_bytes": self.rows.size_bytes(),
            "files": len(self.rows.files),
            "left_out": self.rows.skipped.counts(),
        }

    def checksums(self) -> str:
        return self.rows.checksums()

    def _train(self, vocabulary: int, progress: ProgressBar) -> None:
        from swarm.data.tokenizer import MAX_TRAINING_BYTES, parse_tokenizer, train_bpe

        every = -(-self.rows.size_bytes() // MAX_TRAINING_BYTES)
        text, size = list[str](), 0
        with progress.during("reading text for the tokenizer") as report:
            for row in islice(self.rows.read([self._column], report), 0, None, max(1, every)):
                text.append(row.text(self._column))
                size += len(text[-1])
                if size > MAX_TRAINING_BYTES:
                    break
        with progress.during("training the tokenizer") as report:
            self._file = train_bpe("\n".join(text).encode(), vocabulary, report)
        self._vocabulary = parse_tokenizer(self._file).get_vocab_size()
        if self._vocabulary < 257:
            raise ConfigError(
                "--tokenizer", f"bpe:{vocabulary}", "the text is too short to train one; add text or take bytes"
            )

    def _tokens(self, report: Any) -> Iterator[np.ndarray]:
        """Of all rows, in their order; the tokenizer's end token behind each document, or where it has none a line end behind each row
        that has none itself."""
        from swarm.data.tokenizer import byte_tokenizer, parse_tokenizer

        tokenizer = parse_tokenizer(self._file) if self._file else byte_tokenizer()
        rows = self.rows.read([self._column], report)
        while group := _group(rows, self._column):
            texts = [row.text(self._column) for row in group]
            if self._end_token is None:
                texts = [t if not r.is_end or t.endswith("\n") else t + "\n" for r, t in zip(group, texts, strict=True)]
            for row, ids in zip(group, _encoded(tokenizer, texts, self._file == b""), strict=True):
                yield ids
                if row.is_end and self._end_token is not None:
                    yield np.array([self._end_token], dtype=np.uint32)


def _group(rows: Iterator[Row], column: str) -> list[Row]:
    """The next rows, of about `CHARACTERS_AT_ONCE` together."""
    found, size = list[Row](), 0
    for row in rows:
        found.append(row)
        size += len(row.text(column))
        if size >= CHARACTERS_AT_ONCE or len(found) == ROWS_AT_ONCE:
            break
    return found


def _encoded(tokenizer: Any, texts: list[str], is_bytes: bool) -> list[np.ndarray]:
    if is_bytes:
        return [np.frombuffer(text.encode(), dtype=np.uint8) for text in texts]
    encoded = tokenizer.encode_batch(texts, add_special_tokens=False)
    return [np.array(each.ids, dtype=np.uint32) for each in encoded]


def _windows(tokens: Iterator[np.ndarray], layout: Any, length: int) -> Iterator[np.ndarray]:
    """Records of `length` tokens, one behind the other; what is left at the end is dropped."""
    waiting, size = list[np.ndarray](), 0
    for part in tokens:
        waiting.append(part)
        size += len(part)
        if size < max(length, CHARACTERS_AT_ONCE // 4):
            continue
        joined = np.concatenate(waiting)
        whole = size // length * length
        yield _records(joined[:whole], layout, length)
        waiting, size = [joined[whole:]], size - whole
    if size >= length:
        yield _records(np.concatenate(waiting)[: size // length * length], layout, length)


def _records(tokens: np.ndarray, layout: Any, length: int) -> np.ndarray:
    records: np.ndarray = layout.empty(len(tokens) // length)
    records["tokens"] = tokens.reshape(-1, length)
    return records


def _named_end(file: Path) -> str | None:
    """The token that ends a document, by the tokenizer_config.json beside the file."""
    try:
        value = from_json(file.with_name("tokenizer_config.json").read_bytes())
        named = value.get("eos_token")
    except (OSError, ValueError, AttributeError):
        return None
    named = named.get("content") if isinstance(named, dict) else named
    return named if isinstance(named, str) else None


__all__ = ["TokenTask"]
