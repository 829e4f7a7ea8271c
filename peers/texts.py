"""The task of a new run on a text: what `run new` makes of the organiser's files before the run has an id."""

import hashlib
from pathlib import Path
from typing import Any

from peers.errors import ConfigError
from peers.progressbar import ProgressBar
from peers.sources import Sources, read_sources
from swarm.config import TEXT_FILE, TOKENIZER_FILE, RunConfig, TextConfig

NO_ROOT = "0" * 64  # of data that is not written yet
_NO_FILE = {"size": 1, "sha256": "0" * 64}


class TextTask:
    """`tokenizer`: "bytes", or "bpe:N" to train one of N tokens; ConfigError for anything else."""

    def __init__(self, data: Path | None, tokenizer: str) -> None:
        self._data = data
        self._vocabulary = _wanted_vocabulary(tokenizer)
        self._num_tokens = 0
        self.sources = Sources()
        self.content: dict[str, bytes] = {}  # files of the data directory

    def draft(self) -> dict[str, Any]:
        """Values of `[task]` with which settings can be checked before the text is read, which may last."""
        data: dict[str, Any] = {"root": NO_ROOT, "text": _NO_FILE}
        if not self._vocabulary:
            return {"data": data}
        data["tokenizer"] = {**_bpe(self._vocabulary, b"", "0" * 64), "file": _NO_FILE}
        return {"data": data, "model": {"fields": {"vocab_size": self._vocabulary}}}

    def read(self, progress: ProgressBar) -> dict[str, Any]:
        """Values of `[task]`; `sources` and `content` are there then. ConfigError where there is no text that can be taken."""
        with progress.during("reading the text"):
            self.sources = read_sources(self._data)
        if self.sources.skipped:
            progress.note(self.sources.words())
        text = self.sources.text()
        self.content = {TEXT_FILE: text}
        data: dict[str, Any] = {"root": NO_ROOT, "text": _data_file(text)}
        self._num_tokens = len(text)
        if not self._vocabulary:
            return {"data": data}
        agreed = self._train_tokenizer(text, progress)
        data["tokenizer"] = agreed
        return {"data": data, "model": {"fields": {"vocab_size": agreed["vocabulary"]}}}

    def check(self, config: RunConfig) -> None:
        """InputError where the text is too short for the run's samples."""
        from swarm.data.text import held_out_tokens

        assert isinstance(config.task.data, TextConfig)
        held_out_tokens(self._num_tokens, config.task.data)

    def _train_tokenizer(self, text: bytes, progress: ProgressBar) -> dict[str, Any]:
        from swarm.data.tokenizer import encode_text, parse_tokenizer, tokens_sha256, train_bpe

        for file in self.sources.files:
            try:
                file.text.decode()
            except UnicodeDecodeError as error:
                raise ConfigError(
                    "--data", file.name, f"is not UTF-8 at byte {error.start}; convert it, or take --tokenizer bytes"
                ) from None
        with progress.during("training the tokenizer") as report:
            data = train_bpe(text, self._vocabulary, report)
        tokenizer = parse_tokenizer(data)
        if tokenizer.get_vocab_size() < 257:
            raise ConfigError(
                "--tokenizer", f"bpe:{self._vocabulary}", "the text is too short to train one; add text or take bytes"
            )
        with progress.during("cutting the text into tokens") as report:
            tokens = encode_text(tokenizer, text, report)
        self.content[TOKENIZER_FILE], self._num_tokens = data, len(tokens)
        return _bpe(tokenizer.get_vocab_size(), data, tokens_sha256(tokens))


def _wanted_vocabulary(tokenizer: str) -> int:
    """Of the tokenizer to be trained; 0 for bytes."""
    kind, _, size = tokenizer.partition(":")
    if tokenizer == "bytes":
        return 0
    if kind != "bpe" or not (size.isascii() and size.isdigit() and len(size) <= 5) or not 257 <= int(size) <= 65536:
        raise ConfigError("--tokenizer", tokenizer, "give bytes, or bpe:N with N tokens from 257 to 65536")
    return int(size)


def _bpe(vocabulary: int, data: bytes, tokens: str) -> dict[str, Any]:
    return {"kind": "bpe", "vocabulary": vocabulary, "file": _data_file(data), "tokens_sha256": tokens}


def _data_file(data: bytes) -> dict[str, Any]:
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


__all__ = ["NO_ROOT", "TextTask"]
