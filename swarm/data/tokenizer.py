"""Text to tokens: a byte is a token, or byte-level BPE trained on the run's own text (one file, agreed on by its hash)."""

import hashlib
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from swarm.config import TOKENIZER_FILE, BpeTokenizer, ByteTokenizer, DataFile, PublishedTokenizer
from swarm.errors import InputError

PIECE_BYTES = 1 << 16
GROUP = 64  # pieces that are encoded between two words on progress
MAX_TRAINING_BYTES = 64 << 20  # of a longer text evenly spread pieces are taken
# GPT-2's way to cut text into words, but no word is longer than 32 characters: merging within one takes time with the square
# of its length, and there are texts without a space. Nothing is dropped: each character is in exactly one word.
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}{1,32}| ?\p{N}{1,32}| ?[^\s\p{L}\p{N}]{1,32}|\s{1,32}(?!\S)|\s{1,32}"
Report = Callable[[float], None]  # the share that is done, 0 to 1


def _unheard(share: float) -> None:
    pass


def train_bpe(text: bytes, vocabulary: int, report: Report = _unheard) -> bytes:
    """A tokenizer file with at most `vocabulary` tokens, fewer where the text has no more to give. `report`: of the reading; the
    merges that follow take about as long again."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    every = -(-len(text) // MAX_TRAINING_BYTES)

    def pieces() -> Iterator[str]:
        for end, piece in islice(pieces_of(text), 0, None, max(1, every)):
            yield piece
            report(end / len(text))

    tokenizer.train_from_iterator(pieces(), trainer)
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
        raise InputError("task.data.tokenizer", f"{len(data)} bytes", f"is no tokenizer file: {error}") from None


class Tokenized(Protocol):
    """Data that became tokens by one of the kinds of tokenizers, whose file is part of `content` where it has one."""

    @property
    def tokenizer(self) -> ByteTokenizer | BpeTokenizer | PublishedTokenizer: ...

    def content(self) -> dict[str, DataFile]: ...


def open_tokenizer(config: Tokenized, directory: Path) -> Any:
    """The run's tokenizer; InputError where its file is missing or is not the one agreed on."""
    return make_tokenizer(config, lambda name: read_agreed(directory / name, config.content()[name].sha256))


def make_tokenizer(config: Tokenized, read: Callable[[str], bytes]) -> Any:
    """The same with `read`, which gives a file of the run's data by its name, as the run agreed on it."""
    return byte_tokenizer() if isinstance(config.tokenizer, ByteTokenizer) else parse_tokenizer(read(TOKENIZER_FILE))


def save_tokenizer(
    config: Tokenized,
    read: Callable[[str], bytes],
    context: int,
    out: Path,
    padding: int | None = None,
    template: str | None = None,
) -> None:
    """Into the folder of a saved model, of a run on bytes too (token n is byte n). `padding`: the token behind shorter samples;
    `template`: of conversations."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = make_tokenizer(config, read)
    padded = {} if padding is None else {"pad_token": tokenizer.id_to_token(padding)}
    saved = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=context, clean_up_tokenization_spaces=False, **padded
    )
    if template is not None:
        saved.chat_template = template
    saved.save_pretrained(out)


def read_agreed(path: Path, sha256: str) -> bytes:
    """A file of the run's data; InputError where it is missing or has another hash than the run agreed on."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError("data", str(path), f"cannot be read ({error.strerror}); give the run's data again") from None
    if hashlib.sha256(data).hexdigest() != sha256:
        raise InputError("data", str(path), "is not the file that the run agreed on; fetch it again")
    return data


def encode_text(tokenizer: Any, text: bytes, report: Report = _unheard) -> np.ndarray:
    """Tokens of a text, uint16. It is cut into pieces (`pieces_of`), each encoded by itself, so that everybody cuts alike."""
    found: list[np.ndarray] = []
    pieces = pieces_of(text)
    while group := list(islice(pieces, GROUP)):
        found += [np.array(e.ids, dtype=np.uint16) for e in tokenizer.encode_batch([piece for _, piece in group])]
        report(group[-1][0] / len(text))
    return np.concatenate(found) if found else np.zeros(0, dtype=np.uint16)


def tokens_sha256(tokens: np.ndarray) -> str:
    """Of tokens as little-endian uint16: what a run agrees on."""
    return hashlib.sha256(tokens.astype("<u2").tobytes()).hexdigest()


def pieces_of(text: bytes) -> Iterator[tuple[int, str]]:
    """Pieces of 64 to 128 KiB with where each ends: behind the first line end from 64 KiB on, and without one at 128 KiB, between two
    characters."""
    start = 0
    while start < len(text):
        line_end = text.find(b"\n", start + PIECE_BYTES, start + 2 * PIECE_BYTES)
        end = line_end + 1 if line_end >= 0 else min(len(text), start + 2 * PIECE_BYTES)
        if line_end < 0 and end < len(text):
            # bytes 10xxxxxx go on with a character; valid UTF-8 has at most three in a row
            end -= next((back for back in range(4) if text[end - back] & 0xC0 != 0x80), 0)
        yield end, text[start:end].decode(errors="replace")
        start = end
