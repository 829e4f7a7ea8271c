"""Text to tokens: a byte is a token, or byte-level BPE trained on the run's own text (one file, agreed on by its hash)."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from swarm.config import TOKENIZER_FILE, BpeTokenizer, DataConfig
from swarm.errors import InputError

PIECE_BYTES = 1 << 16


def train_bpe(texts: Sequence[bytes], vocabulary: int) -> bytes:
    """A tokenizer file with at most `vocabulary` tokens, fewer where the text has no more to give."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator((piece for text in texts for piece in _pieces(text)), trainer)
    return str(tokenizer.to_str()).encode()


def byte_tokenizer() -> Any:
    """The tokenizer of a run on bytes, as the `tokenizers` library has it: token n is byte n."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    # ByteLevel's letters for bytes: printable ones stand for themselves, the others for letters from 256 on.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {**{b: chr(b) for b in printable}, **{b: chr(256 + n) for n, b in enumerate(others)}}
    tokenizer = Tokenizer(models.BPE(vocab={letters[byte]: byte for byte in range(256)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def parse_tokenizer(data: bytes) -> Any:
    """From the bytes of a tokenizer file; InputError where it is none."""
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(data.decode())
    except Exception as error:  # the library raises plain Exception
        raise InputError("data.tokenizer", f"{len(data)} bytes", f"is no tokenizer file: {error}") from None


def open_tokenizer(config: DataConfig, directory: Path) -> Any:
    """The run's tokenizer; InputError where its file is missing or is not the one agreed on."""
    if not isinstance(config.tokenizer, BpeTokenizer):
        return byte_tokenizer()
    return parse_tokenizer(read_agreed(directory / TOKENIZER_FILE, config.tokenizer.file.sha256))


def read_agreed(path: Path, sha256: str) -> bytes:
    """A file of the run's data; InputError where it is missing or has another hash than the run agreed on."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError("data", str(path), f"cannot be read ({error.strerror}); give the run's data again") from None
    if hashlib.sha256(data).hexdigest() != sha256:
        raise InputError("data", str(path), "is not the file that the run agreed on; fetch it again")
    return data


def encode_text(tokenizer: Any, text: bytes) -> np.ndarray:
    """Tokens of a text, uint16. Cut at line ends into pieces of 64 KiB or a little more, each encoded by itself, so that
    everybody cuts alike."""
    found = [np.array(e.ids, dtype=np.uint16) for e in tokenizer.encode_batch(_pieces(text))]
    return np.concatenate(found) if found else np.zeros(0, dtype=np.uint16)


def tokens_sha256(tokens: np.ndarray) -> str:
    """Of tokens as little-endian uint16: what a run agrees on."""
    return hashlib.sha256(tokens.astype("<u2").tobytes()).hexdigest()


def _pieces(text: bytes) -> list[str]:
    out, start = [], 0
    while start < len(text):
        cut = text.find(b"\n", start + PIECE_BYTES)
        end = len(text) if cut < 0 else cut + 1
        out.append(text[start:end].decode(errors="replace"))
        start = end
    return out
