"""`sparehive demo --transfer` in small: what one swarm published is where the next one begins, and adapters are what it sends."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from peers.demo import Demo, everything_ends
from peers.demo_report import draw_transfer, show_transfer
from peers.demo_transfer import ADAPTER, Trained, TransferDemo, write_language_reference

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.long,
]  # two swarms; three minutes of the processor, on whatever machine
SIZES = (
    "--set",
    "task.model.fields={n_embd=32,n_layer=1,n_head=2}",
    "--set",
    "task.data.context=64",
    "--set",
    "codec.part_values=4096",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, Trained]:
    root = tmp_path_factory.mktemp("transfer")
    demo = Demo(root, Console(file=io.StringIO()), cache=root / "cache")
    with everything_ends(demo):
        swarms = TransferDemo(demo, write_language_reference(root / "b.txt"), SIZES)
        base = swarms.pretrain(40)
        tuned = swarms.tune("tune", 40, base, 1e-2, *ADAPTER)
    return base, tuned


def test_the_second_swarm_begins_where_the_first_ended_and_gets_further(trained: tuple[Trained, Trained]) -> None:
    base, tuned = trained
    assert {"config.json", "model.safetensors", "README.md"} <= {path.name for path in base.model.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {path.name for path in tuned.model.iterdir()}
    assert tuned.losses[0][2] < base.losses[0][2] - 0.5  # it did not begin with noise
    assert tuned.losses[-1][2] < tuned.losses[0][2]
    assert f"Held-out loss after | {tuned.losses[-1][2]:.4f}" in (tuned.model / "README.md").read_text(encoding="utf-8")
    assert tuned.parameters < base.parameters and tuned.contribution_bytes < base.contribution_bytes


def test_what_is_shown_of_it(trained: tuple[Trained, Trained], tmp_path: Path) -> None:
    base, tuned = trained
    loss = {"before": tuned.losses[0][2], "after": tuned.losses[-1][2], "from_noise": 4.5}
    report = {"base": base.json_value(), "tuned": tuned.json_value(), "loss": loss}
    draw_transfer(report, tmp_path / "transfer.png")
    assert (tmp_path / "transfer.png").read_bytes().startswith(b"\x89PNG")
    said = io.StringIO()
    show_transfer(Console(file=said, width=80), report)
    assert f"{loss['after']:.3f}" in said.getvalue() and f"{tuned.contribution_bytes:,}" in said.getvalue()
