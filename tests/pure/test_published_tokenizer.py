"""A published tokenizer file is taken as it is, but for what would make the same text other tokens."""

import json
from typing import Any

import pytest

from swarm.data.published import read_published
from swarm.data.tokenizer import parse_tokenizer, train_bpe
from swarm.errors import InputError

TEXT = b"the quick brown fox jumps over the lazy dog\n" * 200


def published(**changes: Any) -> bytes:
    value = json.loads(train_bpe(TEXT, 300))
    return json.dumps({**value, **changes}).encode()


def added(token: str, number: int) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": number, "content": token, **flags}


def test_a_file_without_settings_stays_byte_for_byte() -> None:
    data = train_bpe(TEXT, 300)
    found = read_published(data, "tokenizer.json")
    assert found.data == data and found.notes == () and found.end_token is None
    assert found.vocabulary == parse_tokenizer(data).get_vocab_size()


def test_truncation_and_padding_are_switched_off_and_said() -> None:
    data = published(
        truncation={"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        padding={"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
                 "pad_token": "!"},
    )  # fmt: skip
    assert len(parse_tokenizer(data).encode("the quick brown fox jumps over the lazy dog").ids) == 64
    found = read_published(data, "tokenizer.json")
    assert found.notes == ("truncation is switched off", "padding is switched off")
    ids = parse_tokenizer(found.data).encode("the quick brown fox jumps over the lazy dog").ids
    assert ids == parse_tokenizer(train_bpe(TEXT, 300)).encode("the quick brown fox jumps over the lazy dog").ids


def test_what_ends_a_document_is_the_named_token_else_a_usual_one() -> None:
    size = read_published(published(), "t").vocabulary
    data = published(added_tokens=[added("<|endoftext|>", size), added("<|fin|>", size + 1)])
    assert read_published(data, "t").end_token == size
    assert read_published(data, "t", "<|fin|>").end_token == size + 1
    assert read_published(data, "t", "<|not there|>").end_token == size
    assert read_published(data, "t").vocabulary == size + 2


def test_a_vocabulary_counts_up_to_its_largest_token_holes_and_all() -> None:
    vocabulary = {"a": 0, "b": 70_000}
    model = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "a"}
    assert read_published(published(model=model, decoder=None), "t").vocabulary == 70_001
    model["vocab"] = {"a": 0, "b": 1_000_000}
    with pytest.raises(InputError, match=r"1000001 tokens; a run takes from 2 to 1,000,000"):
        read_published(published(model=model, decoder=None), "t")


def test_one_that_cuts_at_random_is_refused() -> None:
    model = json.loads(train_bpe(TEXT, 300))["model"]
    with pytest.raises(InputError, match=r"folder/tokenizer.json.*at random \(model.dropout = 0.1\)"):
        read_published(published(model={**model, "dropout": 0.1}), "folder/tokenizer.json")


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'{"model": 3}', b'{"model": {"type": "Odd"}}', b"[" * 100_000, b"\xff"]
)
def test_what_is_no_tokenizer_file_is_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(InputError, match=r"tokenizer\.json") as refused:
        read_published(data, "x/tokenizer.json")
    assert "\n" not in str(refused.value)
