"""Small data sets with labels, and runs on them: records as `run new` lays them out, without a run's directory."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from swarm import tasks
from swarm.config import RunConfig
from swarm.data.conversations import PLAIN_TEMPLATE
from swarm.data.records import RecordLayout, RecordWriter

TOPICS = {
    "animals": ["cat", "dog", "horse", "sheep", "fox", "owl", "bear", "wolf", "hare", "goat"],
    "kitchen": ["pan", "knife", "oven", "spoon", "bowl", "plate", "stove", "ladle", "kettle", "whisk"],
    "weather": ["rain", "snow", "hail", "storm", "cloud", "frost", "sun", "wind", "fog", "thunder"],
    "music": ["drum", "flute", "harp", "cello", "song", "chord", "violin", "tune", "choir", "organ"],
}
FILLERS = [
    "the",
    "a",
    "of",
    "and",
    "then",
    "there",
    "was",
    "near",
    "some",
    "with",
    "under",
    "over",
    "old",
    "small",
    "it",
    "they",
]


def topical_texts(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Sentences of which two words or three in ten tell the topic."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        label = str(rng.choice(sorted(TOPICS)))
        words = list(rng.choice(FILLERS, 7)) + list(rng.choice(TOPICS[label], int(rng.integers(2, 4))))
        rng.shuffle(words)
        rows.append({"text": " ".join(words), "label": label})
    return rows


def digits() -> list[dict[str, Any]]:
    """scikit-learn's 1,797 handwritten digits, 8 pixels a side, shuffled."""
    from PIL import Image
    from sklearn.datasets import load_digits

    found = load_digits()
    order = np.random.default_rng(0).permutation(len(found.target))
    pixels = (found.images * 15.9375).astype(np.uint8)
    return [{"image": Image.fromarray(pixels[n]), "label": str(found.target[n])} for n in order]


def echoes(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Conversations in which the assistant says the last word of the question."""
    rng = np.random.default_rng(seed)
    words = [word for topic in TOPICS.values() for word in topic]
    rows = []
    for _ in range(count):
        asked = " ".join(rng.choice(words, 3))
        answer = asked.split()[-1]
        rows.append({"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]})
    return rows


def _file(path: Path, content: bytes) -> dict[str, Any]:
    path.write_bytes(content)
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def lay_out(
    path: Path, task: Mapping[str, Any], rows: Iterable[Mapping[str, Any]], held: int = 200, **sections: dict[str, Any]
) -> RunConfig:
    """A run of `task` on `rows`, the last `held` of them held out, whose files lie in `path`."""
    rows = list(rows)
    data: dict[str, Any] = {
        "kind": "records",
        "root": "11" * 32,
        "num_train": len(rows) - held,
        "num_held": held,
        **task["data"],
    }
    if task["kind"] == "chat":
        data["template"] = _file(path / "chat_template.jinja", PLAIN_TEMPLATE.encode())
    else:
        names = sorted({str(row["label"]) for row in rows})
        data |= {"num_labels": len(names), "labels": _file(path / "labels.json", json.dumps(names).encode())}
    values: dict[str, Any] = {
        "name": "test",
        "task": {**task, "data": data},
        "inner": {"lr": 2e-3, "batch_size": 16, "steps_per_unit": 4, "warmup_units": 4, "total_units": 400},
        "outer": {"momentum_ramp_rounds": 4},
        "codec": {"contribution": "int8", "average": "int8", "part_values": 4096},
        "initial_root": "22" * 32,
    }
    for name, section in sections.items():
        values[name] = {**values[name], **section}
    config = RunConfig.parse(values)
    use = tasks.open_use(config, lambda name: (path / name).read_bytes())
    records = [use.encode(row) for row in rows]
    assert all(len(record) == 1 for record in records)
    for name, part in (("train.records", records[:-held]), ("held.records", records[-held:])):
        with open(path / name, "wb") as out:
            writer = RecordWriter(RecordLayout(config.task.data.record_fields()), out.write)  # type: ignore[arg-type, union-attr]
            writer.append(np.concatenate(part))
            writer.close()
    return config


TEXT_MODEL = {"family": "distilbert", "fields": {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 2}}


def word_tokenizer(path: Path, rows: Iterable[Mapping[str, str]]) -> dict[str, Any]:
    """A tokenizer file of words and their pieces in `path`; what a run says of it."""
    from swarm.data.tokenizer import parse_tokenizer, train_bpe

    content = train_bpe("\n".join(row["text"] for row in rows).encode(), 512)
    vocabulary = parse_tokenizer(content).get_vocab_size()
    return {"kind": "published", "vocabulary": vocabulary, "file": _file(path / "tokenizer.json", content)}


IMAGE_MODEL = {
    "family": "vit",
    "fields": {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "patch_size": 2,
    },
}  # fmt: skip
CHAT_MODEL = {"family": "gpt2", "fields": {"n_embd": 32, "n_layer": 2, "n_head": 2}}
TEXTS = {"kind": "text_classification", "model": TEXT_MODEL, "data": {"context": 64}}
IMAGES = {
    "kind": "image_classification", "model": IMAGE_MODEL, "data": {"size": 8, "channels": 1},
}  # fmt: skip
CHATS = {"kind": "chat", "model": CHAT_MODEL, "data": {"context": 128}}
