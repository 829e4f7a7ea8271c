"""The model that hivemind trains in the benchmark takes the same steps as a peer's."""

from pathlib import Path

from swarm.tasks import open_task
from tests.training.swarmlet import make_config, new_model


def test_a_plain_module_learns_from_the_same_samples(tmp_path: Path) -> None:
    from benchmarks.hivemind_peer import Plain

    task = open_task(make_config(tmp_path), tmp_path)
    flat, plain = new_model(), Plain(new_model().module)
    step = (b"\1" * 20, bytes(32), 3, 1)
    assert float(task.step(plain, *step)) == float(task.step(flat, *step))
    assert task.evaluate(plain) == task.evaluate(flat)
