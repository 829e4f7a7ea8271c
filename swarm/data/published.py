"""A tokenizer file of a published model, made fit for a run: what it cuts follows from the text alone."""

import json
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from swarm.data.tokenizer import parse_tokenizer
from swarm.errors import InputError

MAX_VOCABULARY = 1_000_000
# Names under which tokenizers keep the token that ends a document, the usual ones first; for a file that comes without its
# tokenizer_config.json.
_ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "[EOS]", "<|im_end|>", "[SEP]")
_SET_OFF = {"truncation": "truncation", "padding": "padding"}


@dataclass(frozen=True)
class PublishedFile:
    """`data`: the file as it goes into the data directory; `vocabulary`: its largest token and one more; `end_token`: what ends a
    document, None where it has none; `notes`: what was changed, for people."""

    data: bytes
    vocabulary: int
    end_token: int | None
    notes: tuple[str, ...]


def read_published(data: bytes, where: str, end_of_text: str | None = None) -> PublishedFile:
    """From the bytes of a `tokenizer.json`. `end_of_text`: as its tokenizer_config.json names it. InputError where it is none, where it
    cuts at random, or has more than a million tokens."""
    try:
        value = from_json(data)
    except ValueError as error:
        raise InputError("tokenizer", where, f"is no tokenizer.json: {error}") from None
    if not isinstance(value, dict) or not isinstance(value.get("model"), dict):
        raise InputError(
            "tokenizer", where, 'is no tokenizer.json: it has no "model"; give the file of a fast tokenizer'
        )
    _check_certain(value["model"], where)
    notes = [f"{word} is switched off" for name, word in _SET_OFF.items() if value.get(name) is not None]
    if notes:
        value |= dict.fromkeys(_SET_OFF)
        data = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    try:
        tokenizer = parse_tokenizer(data)
    except InputError as error:
        raise InputError("tokenizer", where, error.remedy) from None
    vocabulary = _vocabulary(tokenizer, where)
    return PublishedFile(data, vocabulary, _end_token(tokenizer, end_of_text), tuple(notes))


def _check_certain(model: dict[str, Any], where: str) -> None:
    """A text has to have the same tokens each time."""
    for name in ("dropout", "alpha"):
        if model.get(name):
            raise InputError(
                "tokenizer",
                where,
                f"it cuts at random (model.{name} = {model[name]!r}); set that to null in a copy of the file, and give the copy",
            )


def _vocabulary(tokenizer: Any, where: str) -> int:
    largest: int = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=0)
    if not 2 <= largest + 1 <= MAX_VOCABULARY:
        raise InputError("tokenizer", where, f"has {largest + 1} tokens; a run takes from 2 to {MAX_VOCABULARY:,}")
    return largest + 1


def _end_token(tokenizer: Any, named: str | None) -> int | None:
    for name in (named, *_ENDS):
        token: int | None = None if name is None else tokenizer.token_to_id(name)
        if token is not None:
            return token
    return None


__all__ = ["MAX_VOCABULARY", "PublishedFile", "read_published"]
