"""The step from one anchor to the next: what no averages can be, and how fast the run's clock goes."""

import pytest
import torch

from swarm.averaging.states import BrokenAverages, next_anchor
from swarm.checkpoint.anchor import Anchor
from swarm.config import RunConfig
from swarm.models.layout import Layout
from swarm.optim.codec import encode
from swarm.records.types import ContributorLeaf

VALUES = 300  # two parts
CONFIG = RunConfig.parse(
    {
        "name": "test",
        "task": {"kind": "causal_lm", "data": {"root": "0" * 64, "text": {"size": 1, "sha256": "0" * 64}}},
        "initial_root": "0" * 64,
        "codec": {"part_values": 256},
    }
)
BEFORE = Anchor(torch.zeros(VALUES), torch.zeros(VALUES), Layout(("w",), ((VALUES,),)), 40, 3)


def averages(size: float) -> list[bytes]:
    whole = torch.full((VALUES,), size)
    return [encode(whole[:256], CONFIG.codec.average), encode(whole[256:], CONFIG.codec.average)]


def leaves(*units: int) -> list[ContributorLeaf]:
    return [ContributorLeaf(bytes([i]) * 20, bytes(32), each, 3) for i, each in enumerate(units)]


def test_averages_that_are_longer_than_the_norms_allow_are_named() -> None:
    longest = [17.0, 6.0]  # 256 and 44 values of 1.0: norms of 16 and 6.6
    with pytest.raises(BrokenAverages) as found:
        next_anchor(CONFIG, BEFORE, averages(1.0), leaves(1, 1), longest)
    assert found.value.parts == (1,)
    assert next_anchor(CONFIG, BEFORE, averages(0.9), leaves(1, 1), longest).num_rounds == 4


def test_what_is_no_average_of_the_codec_is_named_too() -> None:
    wrong = [averages(1.0)[0], b"\xff" * len(averages(1.0)[1])]
    with pytest.raises(BrokenAverages) as found:
        next_anchor(CONFIG, BEFORE, wrong, leaves(1, 1), [100.0, 100.0])
    assert found.value.parts == (1,)


def test_the_clock_goes_on_by_weights_and_not_by_claims() -> None:
    """Twice the median: who claims 64 units where the others did 8 counts as 16."""
    new = next_anchor(CONFIG, BEFORE, averages(0.1), leaves(8, 8, 8, 64))
    assert new.counted_units == 40 + 8 + 8 + 8 + 16
