"""What a round needs of memory, in multiples of the fp32 weights: measured in a process that does one, by `benchmarks.memory`."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.memory import make_config
from peers import needs
from swarm import tasks
from swarm.averaging.states import States
from swarm.checkpoint.anchor import Anchor
from swarm.finite import is_finite
from tests.pure.test_follower import CONFIG
from tests.training.swarmlet import initial_anchor, new_model
from tests.training.swarmlet import make_config as tiny_config

ROOT = Path(__file__).parents[2]
# What a step may take at most while it runs, beyond what was resident before it: what it gives, and temporaries of a few parts.
PEAKS = {
    "boundary": 2.2,  # the committed state is 1.5, of which the residual takes the place of the one before
    "merge": 0.4,
    "the next state and its root": 2.4,  # parameters and momentum
    "the anchor, kept for joiners": 0.4,
    "snapshot": 0.4,
}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("only Linux tells the peak of a step")
    out = tmp_path_factory.mktemp("memory") / "found.json"
    command = [sys.executable, "-m", "benchmarks.memory", "--plain", "16", "--out", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=300, stdout=subprocess.DEVNULL)
    found = json.loads(out.read_text(encoding="utf-8"))
    for before, row in zip([{"after_bytes": 0}, *found["rows"]], found["rows"], strict=False):
        row["peak"] = (row["peak_bytes"] - before["after_bytes"]) / (4 * found["parameters"])
        row["after"] = (row["after_bytes"] - found["rows"][0]["after_bytes"]) / (4 * found["parameters"])
    return list(found["rows"])


@pytest.mark.long
@pytest.mark.parametrize("step", PEAKS)
def test_a_step_holds_nothing_twice(rows: list[dict[str, Any]], step: str) -> None:
    (row,) = (row for row in rows if row["step"] == step)
    assert row["peak"] <= PEAKS[step]


@pytest.mark.long
def test_after_a_round_nothing_is_left_but_what_training_needs(rows: list[dict[str, Any]]) -> None:
    """Live, gradient, two moments, anchor and its momentum are six, r is half of one; the rest are parts that others may ask for, what
    training imports, and what the allocator keeps of a few parts."""
    assert rows[-1]["after"] <= 9.5


@pytest.mark.long
def test_run_check_says_what_a_round_takes(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    said = needs.model_bytes(make_config(tmp_path, 1, 1, 64, "adamw"), 16 << 20, 0)
    measured = max(row["peak_bytes"] for row in rows) - rows[0]["after_bytes"]
    assert abs(said - measured) / measured < 0.15


def test_what_a_step_keeps_is_counted_once_and_without_the_weights(tmp_path: Path) -> None:
    """Of one layer of width 32, context 16, 256 bytes to choose from: some thirty activations as wide as the model, and the logits."""
    model = new_model()
    kept = tasks.kept_bytes(tiny_config(tmp_path), model)
    logits, one = 4 * 16 * 256, 4 * 16 * 32
    assert logits + 10 * one < kept < 3 * logits + 60 * one
    assert kept < 4 * model.flat.numel() * 4


@pytest.mark.parametrize("size", [0, 1, 9, 100_001])
def test_one_value_that_is_not_finite_is_seen(size: int) -> None:
    values = torch.randn(size)
    assert is_finite(values)
    for bad in (float("inf"), float("-inf"), float("nan")) if size else ():
        for at in {0, size // 2, size - 1}:
            spoiled = values.clone()
            spoiled[at] = bad
            assert not is_finite(spoiled)


def test_of_states_there_are_the_newest_and_what_may_follow_it() -> None:
    a, b, c, d = (letter.encode() * 32 for letter in "abcd")
    states, anchors = States(CONFIG), {id: _another(n) for n, id in enumerate((a, b, c, d))}
    states.follow(a, anchors[a])
    states.prepare(b, a, anchors[b])
    states.prepare(c, a, anchors[c])  # another attempt of the same round
    assert states.get(a) is anchors[a] and states.get(c) is anchors[c] and states.get(b) is None
    states.prepare(d, c, anchors[d])  # the round after it, before the certificate has been followed
    assert states.get(a) is anchors[a] and states.get(c) is anchors[c] and states.get(d) is anchors[d]
    states.follow(c, anchors[c])
    assert states.get(a) is None and states.get(c) is anchors[c] and states.get(d) is anchors[d]
    states.follow(b, anchors[b])  # a fork
    assert [id for id in (a, b, c, d) if states.get(id)] == [b]


def _another(rounds: int) -> Anchor:
    first = initial_anchor()
    return Anchor(first.parameters, first.momentum, first.layout, 0, rounds)
