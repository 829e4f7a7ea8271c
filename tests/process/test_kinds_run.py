"""Real swarms that classify texts and images: from files to accuracy, with contributions that can be redone and a model that answers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.process.test_replay_command import LOCAL, sparehive, start_peer, stopped, wait_for
from tests.training.labelled import digits, topical_texts

pytestmark = [pytest.mark.timeout(900), pytest.mark.long]
EPOCHS = 10


def texts(cwd: Path) -> list[str]:
    rows = "".join(json.dumps(row) + "\n" for row in topical_texts(1500))
    (cwd / "texts.jsonl").write_text(rows)
    sizes = ["dim=32", "hidden_dim=64", "n_layers=2", "n_heads=2"]
    settings = [*(f"task.model.fields.{size}" for size in sizes), "task.data.context=24"]
    return ["--task", "text_classification", "--data", "texts.jsonl", "--tokenizer", "bpe:512", *_set(settings)]


def images(cwd: Path) -> list[str]:
    for number, row in enumerate(digits()):
        folder = cwd / "digits" / row["label"]
        folder.mkdir(parents=True, exist_ok=True)
        row["image"].save(folder / f"{number}.png")
    sizes = ["hidden_size=32", "intermediate_size=64", "num_hidden_layers=2", "num_attention_heads=2", "patch_size=2"]
    settings = [*(f"task.model.fields.{size}" for size in sizes), "task.data.size=8", "task.data.channels=1"]
    return ["--task", "image_classification", "--data", "digits", *_set(settings)]


def _set(settings: list[str]) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


@pytest.mark.parametrize(("make", "chance", "least"), [(texts, 0.25, 0.9), (images, 0.1, 0.8)], ids=["texts", "images"])
def test_a_swarm_of_two_learns_to_classify(
    make: Callable[[Path], list[str]], chance: float, least: float, tmp_path: Path
) -> None:
    options = [
        "inner.lr=0.006", "inner.batch_size=64", "inner.steps_per_unit=4", "inner.warmup_units=20", "inner.total_units=2000",
        "rounds.min_seated=2", "rounds.units_per_epoch=20", "codec.part_values=8192",
    ]  # fmt: skip
    sparehive("run", "new", "run", "--preset", "demo", *make(tmp_path), *_set(options), cwd=tmp_path)
    with stopped([]) as started:
        started.append(start_peer(tmp_path, "seed.log", "seed", "run", "--dir", "seed", *LOCAL))
        wait_for("the seed", (tmp_path / "seed" / "ready.json").exists)
        join = ["join", "seed/invite.txt", "--stop-after-epoch", str(EPOCHS), *LOCAL]
        peers = [start_peer(tmp_path, f"{name}.log", *join, "--dir", name) for name in ("a", "b")]
        started += peers
        wait_for("the epochs", lambda: any(peer.poll() is not None for peer in peers), 400.0)
    replayed = json.loads(sparehive("run", "replay", "--dir", "a", "--json", cwd=tmp_path))
    assert replayed["passed"] and replayed["epoch"] >= EPOCHS - 1
    sparehive("export", "--dir", "a", "--out", "out", cwd=tmp_path)
    found: dict[str, Any] = json.loads(sparehive("evaluate", "seed", "--json", cwd=tmp_path))
    assert abs(found["base"]["accuracy"] - chance) < 0.15, found
    assert found["tuned"]["accuracy"] >= least, found
    given = ["--file", "digits/7"] if make is images else ["--prompt", "there was a violin and the cello"]
    answers = json.loads(sparehive("sample", "out", *given, "--json", cwd=tmp_path))
    wanted = "7" if make is images else "music"
    assert sum(answer["label"] == wanted for answer in answers) >= 0.8 * len(answers)
