"""The task of a new run on a text: what `run new` makes of the organiser's files before the run has an id."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from peers.errors import ConfigError
from peers.making import NO_ROOT, Written, file_of
from peers.progressbar import ProgressBar
from peers.sources import Sources, check_sources, read_sources
from swarm.config import TEXT_FILE, TOKENIZER_FILE, RunConfig, TextConfig

if TYPE_CHECKING:
    from swarm.checkpoint.store import BlockStore

_NO_FILE = {"size": 1, "sha256": "0" * 64}


class TextTask:
    """Implements `peers.making.TaskMaker`. `vocabulary`: of the BPE that is to be trained; 0 for bytes."""

    def __init__(self, data: Path | None, vocabulary: int) -> None:
        self._data = data
        self._vocabulary = vocabulary
        self._num_tokens = 0
        self.sources = Sources()
        self.content: dict[str, bytes] = {}  # files of the data directory

    def draft(self) -> dict[str, Any]:
        """Values of `[task]` with which settings can be checked before the text is read, which may last. ConfigError where there is
        no file to read."""
        check_sources(self._data)
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
        data: dict[str, Any] = {"root": NO_ROOT, "text": file_of(text)}
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

    def write(self, store: "BlockStore", scratch: Path, draft: RunConfig, progress: ProgressBar) -> Written:
        return Written(content=self.content)

    def facts(self) -> dict[str, Any]:
        text = self.sources
        return {"data_bytes": len(text.text()), "files": len(text.files), "left_out": text.counts()}

    def checksums(self) -> str:
        return self.sources.checksums()

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


def _bpe(vocabulary: int, data: bytes, tokens: str) -> dict[str, Any]:
    return {"kind": "bpe", "vocabulary": vocabulary, "file": file_of(data), "tokens_sha256": tokens}


__all__ = ["TextTask"]
