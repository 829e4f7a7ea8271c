"""A real swarm with a trained tokenizer: own contributions are redone from a peer's directory, and the model is exported."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.timeout(900), pytest.mark.long]
ROOT = Path(__file__).parents[2]
LOCAL = ("--host", "127.0.0.1")
ENV = {**os.environ, "PYTHONPATH": str(ROOT), "TOKENIZERS_PARALLELISM": "false"}
TEXT = "".join(f"def f{i}(x):\n    return x * {i} + {i * 7 % 13}\n" for i in range(4000))


def sparehive(*arguments: str, cwd: Path, expect: int = 0) -> str:
    result = subprocess.run(
        [sys.executable, "-m", "peers", *arguments], cwd=cwd, env=ENV, capture_output=True, text=True, timeout=240,
        check=False,
    )  # fmt: skip
    assert result.returncode == expect, result.stderr
    return result.stdout if expect == 0 else result.stderr


def wait_for(what: str, holds: Any, seconds: float = 240.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"{what} took longer than {seconds:.0f} s"
        time.sleep(0.2)


def start_peer(cwd: Path, log_name: str, *arguments: str) -> subprocess.Popen[bytes]:
    with open(cwd / log_name, "wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "peers", *arguments, "--quiet"], cwd=cwd, env=ENV, stdout=log, stderr=log
        )


@contextlib.contextmanager
def stopped(started: list[subprocess.Popen[bytes]]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """What is put into the list is ended at the end, the last first."""
    try:
        yield started
    finally:
        for process in reversed(started):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in started:
            process.wait(60)


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of five epochs in directories a and b."""
    cwd = tmp_path_factory.mktemp("swarm")
    (cwd / "text.txt").write_text(TEXT)
    options = [
        "task.model.fields.n_embd=32", "task.model.fields.n_layer=1", "codec.part_values=8192", "rounds.min_seated=2",
        "rounds.units_per_epoch=4", "task.data.context=32",
        "rounds.max_units_per_contribution=8",  # 40 steps, whatever else the machine does: distances grow with them
    ]  # fmt: skip
    settings = [x for option in options for x in ("--set", option)]
    new = ["run", "new", "run", "--preset", "demo", "--data", "text.txt", "--tokenizer", "bpe:300"]
    sparehive(*new, *settings, cwd=cwd)
    with stopped([]) as started:
        started.append(start_peer(cwd, "seed.log", "seed", "run", "--dir", "seed", *LOCAL))
        wait_for("the seed", (cwd / "seed" / "ready.json").exists)
        join = ["join", "seed/invite.txt", "--stop-after-epoch", "5", *LOCAL]
        peers = [
            start_peer(cwd, "a.log", *join, "--dir", "a", "--micro-batch", "3"),
            start_peer(cwd, "b.log", *join, "--dir", "b"),
        ]
        started += peers
        wait_for("five epochs", lambda: any(peer.poll() is not None for peer in peers), 400.0)
    return cwd


def test_each_kept_contribution_is_within_the_tolerance(swarm: Path) -> None:
    newest = json.loads(sparehive("run", "replay", "--dir", "a", "--json", cwd=swarm))
    assert newest["epoch"] >= 4
    merges, apart = [], 0.0
    for epoch in range(2, newest["epoch"] + 1):
        found = json.loads(sparehive("run", "replay", "--dir", "a", "--epoch", str(epoch), "--json", cwd=swarm))
        assert found["passed"] and found["made_on"] == found["redone_on"] != ""
        assert found["distance"] < 1e-3
        apart = max(apart, found["moments_distance"])
        merges += [step for kind, step in found["merges"] if kind == "certificate"]
    assert any(step > 0 for step in merges)  # training went on while a round was under way
    assert apart > 0.0  # the peer computed in pieces, the auditor whole batches


def test_what_cannot_be_redone_is_one_line(swarm: Path) -> None:
    for arguments, words in (
        (["--dir", "a", "--epoch", "99"], "--epoch = 99: is not kept"),
        (["--dir", "run"], "is no peer's directory"),
    ):
        error = sparehive("run", "replay", *arguments, cwd=swarm, expect=1)
        assert words in error
        assert len(error.strip().splitlines()) == 1


def test_the_export_opens_with_its_tokenizer(swarm: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    sparehive("export", "--dir", "b", "--out", "out", cwd=swarm)
    tokenizer = AutoTokenizer.from_pretrained(swarm / "out")
    model = AutoModelForCausalLM.from_pretrained(swarm / "out")
    text = "def f1(x):\n    return x"
    tokens = tokenizer(text, return_tensors="pt")["input_ids"]
    assert tokens.shape[1] < len(text)
    assert tokenizer.decode(tokens[0]) == text
    assert model(input_ids=tokens).logits.shape == (1, tokens.shape[1], 300)


def test_a_tampered_state_is_found(swarm: Path) -> None:
    states = swarm / "a" / "audit" / "states"
    kept = {path: path.read_bytes() for path in states.iterdir()}
    try:
        for path, data in kept.items():
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        assert "is not kept here" in sparehive("run", "replay", "--dir", "a", cwd=swarm, expect=1)
    finally:
        for path, data in kept.items():
            path.write_bytes(data)
