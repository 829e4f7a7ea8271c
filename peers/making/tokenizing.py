"""The tokenizer of a new run on rows of text: bytes, one that is trained on them, or a published one with its chat template."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from peers.errors import ConfigError
from peers.making import TOKENIZER_REMEDY, file_of
from peers.progressbar import ProgressBar
from swarm.config import TOKENIZER_FILE
from swarm.errors import InputError

_NUL = chr(256)  # byte 0, in the letters of byte-level tokenizers
_SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")


class ChosenTokenizer:
    """`wanted`: None for bytes; the number of tokens of a BPE that is to be trained; or a published tokenizer.json, or the folder that
    holds one. `file`: its bytes, empty for bytes and before it is trained. ConfigError where it cannot be taken."""

    def __init__(self, wanted: int | Path | None) -> None:
        self._wanted = wanted
        self.file, self.vocabulary, self.notes = b"", wanted if isinstance(wanted, int) else 256, tuple[str, ...]()
        self.special: dict[str, str] = {}  # names of special tokens to their texts
        self.template: str | None = None
        if isinstance(wanted, Path):
            self._take(wanted / TOKENIZER_FILE if wanted.is_dir() else wanted)

    @property
    def is_to_be_trained(self) -> bool:
        return isinstance(self._wanted, int) and not self.file

    def _take(self, path: Path) -> None:
        from swarm.data.published import read_published

        values = _beside(path)
        self.special = {name: text for name in _SPECIAL if (text := _text_of(values.get(name)))}
        try:
            found = read_published(path.read_bytes(), str(path), self.special.get("eos_token"))
        except OSError as error:
            raise ConfigError(
                "--tokenizer", str(path), f"cannot be read ({error.strerror}); {TOKENIZER_REMEDY}"
            ) from None
        except InputError as error:
            raise ConfigError("--tokenizer", str(path), error.remedy) from None
        self.file, self.vocabulary = found.data, found.vocabulary
        self.notes = tuple(f"{path}: {note}" for note in found.notes)
        self.template = _template(path, values)

    def train(self, texts: Iterator[str], progress: ProgressBar) -> None:
        """On the first 64 MiB of them; ConfigError where they have too few words."""
        from swarm.data.tokenizer import MAX_TRAINING_BYTES, parse_tokenizer, train_bpe

        assert isinstance(self._wanted, int)
        taken, size = list[str](), 0
        for text in texts:
            taken.append(text)
            size += len(text)
            if size > MAX_TRAINING_BYTES:
                break
        with progress.during("training the tokenizer") as report:
            self.file = train_bpe("\n".join(taken).encode("utf-8", "replace"), self._wanted, report)
        self.vocabulary = parse_tokenizer(self.file).get_vocab_size()
        if self.vocabulary < 257:
            raise ConfigError(
                "--tokenizer", f"bpe:{self._wanted}", "the text is too short to train one; add text or take bytes"
            )

    def values(self) -> dict[str, Any]:
        """For `task.data`."""
        if self._wanted is None:
            return {}
        return {"tokenizer": {"kind": "published", "vocabulary": self.vocabulary, "file": file_of(self.file)}}

    def content(self) -> dict[str, bytes]:
        return {TOKENIZER_FILE: self.file} if self.file else {}

    def padding(self) -> int:
        """The token behind shorter texts: the tokenizer's own, else the one that ends a text, else that of byte 0."""
        from swarm.data.tokenizer import byte_tokenizer, parse_tokenizer

        tokenizer = parse_tokenizer(self.file) if self.file else byte_tokenizer()
        for name in (self.special.get("pad_token"), "[PAD]", "<pad>", self.special.get("eos_token"), _NUL):
            token: int | None = None if name is None else tokenizer.token_to_id(name)
            if token is not None:
                return token
        return 0


def _beside(path: Path) -> dict[str, Any]:
    """The tokenizer_config.json beside the file, as far as it can be read."""
    try:
        values = from_json(path.with_name("tokenizer_config.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _text_of(token: Any) -> str | None:
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) and text else None


def _template(path: Path, values: dict[str, Any]) -> str | None:
    """Of the file that is named so, else of the tokenizer's settings; of several the one called default."""
    try:
        return path.with_name("chat_template.jinja").read_bytes().decode()
    except (OSError, UnicodeDecodeError):
        pass
    named = values.get("chat_template")
    if isinstance(named, list):
        named = next(
            (each.get("template") for each in named if isinstance(each, dict) and each.get("name") == "default"), None
        )
    return named if isinstance(named, str) and named else None


__all__ = ["ChosenTokenizer"]
