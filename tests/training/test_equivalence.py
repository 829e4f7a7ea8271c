"""With SGD and one inner step, the swarm's round is plain data-parallel training: the whole path, against plain torch."""

from pathlib import Path

import torch

from swarm.models import FlatModel
from swarm.optim.schedule import learning_rate
from swarm.records.types import Account, Hash
from swarm.tasks.causal_lm import CausalLMTask
from tests.training.swarmlet import Learner, Lineage, initial_anchor, make_config, new_model

EXACT = {
    "inner": {"optimizer": "sgd", "lr": 0.5, "steps_per_unit": 1, "clip_norm": 1e9, "weight_decay": 0.0,
              "warmup_units": 0, "total_units": 1000},
    "outer": {"lr": 1.0, "momentum": 0.0},
    "codec": {"contribution": "float32", "average": "float32"},
}  # fmt: skip


class Halves:
    """Two peers share each batch: the samples of a step are those of `CausalLMTask` for nobody, cut in two by peer."""

    def __init__(self, task: CausalLMTask, round_number: list[int]) -> None:
        self.task, self.round = task, round_number

    def whole(self) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(self.round[0])
        offsets = torch.randint(0, self.task.data.num_positions(), (8,), generator=generator).numpy()
        return self.task.data.batch(offsets)

    def step(self, model: FlatModel, peer: Account, beacon: Hash, unit: int, step: int) -> torch.Tensor:
        inputs, targets = self.whole()
        half = slice(0, 4) if peer[0] == 1 else slice(4, 8)
        model.zero_grad()
        loss = self.task.loss(model, inputs[half], targets[half])
        loss.backward()
        return loss.detach()

    def evaluate(self, model: FlatModel) -> float:
        return self.task.evaluate(model)


def distance_to_one_peer(tmp_path: Path, codec: str, rounds: int = 6, **outer: float) -> float:
    sections = {**EXACT, "codec": {"contribution": codec, "average": codec}, "outer": {**EXACT["outer"], **outer}}
    config = make_config(tmp_path, **sections)
    task = CausalLMTask(config, tmp_path)
    lineage, number = Lineage(config), [0]
    halves = Halves(task, number)
    pair = [Learner(lineage, bytes([i + 1]) * 20, halves) for i in range(2)]  # type: ignore[arg-type]
    alone = new_model()
    alone.flat.copy_(initial_anchor().parameters)
    parameter = torch.nn.Parameter(alone.flat)
    sgd = torch.optim.SGD([parameter], lr=0.5)
    for number[0] in range(rounds):
        for learner in pair:
            learner.units(1)
        tip = lineage.certify([learner.contribute() for learner in pair])
        for learner in pair:
            learner.merge(tip)
        inputs, targets = halves.whole()
        alone.zero_grad()
        task.loss(alone, inputs, targets).backward()
        parameter.grad = alone.grad_flat
        sgd.param_groups[0]["lr"] = learning_rate(2 * number[0], 0.5, 0, 1000)
        sgd.step()
    torch.testing.assert_close(pair[0].model.flat, pair[1].model.flat, rtol=1e-5, atol=1e-7)
    moved = (alone.flat - initial_anchor().parameters).norm()
    return float((lineage.anchor.parameters - alone.flat).norm() / moved)


def test_two_peers_on_different_halves_equal_one_peer_on_the_whole_batch(tmp_path: Path) -> None:
    assert distance_to_one_peer(tmp_path, "float32") <= 1e-5


def test_the_distance_is_seen_where_the_path_is_another_one(tmp_path: Path) -> None:
    assert distance_to_one_peer(tmp_path / "a", "float32", lr=0.9) > 1e-2
    assert 1e-5 < distance_to_one_peer(tmp_path / "b", "int8") < 0.1
