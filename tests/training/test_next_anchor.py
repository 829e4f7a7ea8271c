"""The step from one anchor to the next: what no averages can be, and how fast the run's clock goes."""

import math
import random
from typing import Any
from weakref import WeakSet

import pytest
import torch

from swarm.averaging.states import BrokenAverages, NextAnchor, States, is_within, next_anchor
from swarm.checkpoint.anchor import Anchor, anchor_blocks, anchor_root
from swarm.checkpoint.held import HeldAnchor
from swarm.config import RunConfig
from swarm.errors import PeerFault
from swarm.models.layout import Layout
from swarm.optim.codec import decode, encode, part_slices, squared_norm
from swarm.optim.outer import outer_step
from swarm.optim.schedule import momentum_at
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


def test_parts_in_any_order_give_the_whole_step_and_the_hashes_of_the_whole() -> None:
    """700,000 values in parts of 100,096: chunks of 1 MiB begin and end inside parts, the first one with the header."""
    values, part_values, dice = 700_000, 100_096, torch.Generator().manual_seed(3)
    config = CONFIG.model_copy(update={"codec": CONFIG.codec.model_copy(update={"part_values": part_values})})
    old = Anchor(
        torch.randn(values, generator=dice), torch.randn(values, generator=dice), Layout(("w",), ((values,),)), 40, 3
    )
    wires = [
        encode(torch.randn(where.stop - where.start, generator=dice), config.codec.average)
        for where in part_slices(values, part_values)
    ]
    making, order = NextAnchor(config, old, leaves(1, 1), [1e9] * len(wires)), list(enumerate(wires))
    random.Random(5).shuffle(order)
    for index, wire in order:
        making.add(index, wire)
    new = making.made()

    average = torch.cat(
        [
            decode(wire, where.stop - where.start, config.codec.average)
            for wire, where in zip(wires, part_slices(values, part_values), strict=True)
        ]
    )
    momentum = momentum_at(4, config.outer.momentum, config.outer.momentum_ramp_rounds)
    expected = outer_step(old.parameters, old.momentum, average, config.outer.lr, momentum)
    assert torch.equal(new.parameters, expected[0]) and torch.equal(new.momentum, expected[1])
    unhashed = Anchor(*expected, old.layout, new.counted_units, new.num_rounds)
    assert new.hashed is not None and unhashed.hashed is None
    assert anchor_root(new) == anchor_root(unhashed) == HeldAnchor(new).root
    assert [block.digest for block in anchor_blocks(new)] == [block.digest for block in anchor_blocks(unhashed)]


def test_a_state_that_would_not_be_finite_is_refused_before_it_is_certified() -> None:
    huge = Anchor(torch.full((VALUES,), 3e38), torch.full((VALUES,), -3e38), BEFORE.layout, 40, 1000)
    with pytest.raises(PeerFault, match="finite"):
        next_anchor(CONFIG, huge, averages(1.0), leaves(1, 1), [1e9, 1e9])


@pytest.mark.parametrize("share", [0.5, 0.99, 0.9999999, 1.0, 1.0000001, 1.01, 2.0])
def test_the_quick_look_at_a_norm_decides_as_the_exact_one(share: float) -> None:
    part = torch.randn(200_000, generator=torch.Generator().manual_seed(7))
    norm = math.sqrt(squared_norm(part))
    assert is_within(part, norm / share) == (norm <= norm / share)
    part[5] = math.nan
    assert not is_within(part, norm / share)


def test_of_states_in_the_making_only_the_newest_takes_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who holds a part back keeps a set waiting until its time is over; the attempts after it begin their own states meanwhile."""
    alive: WeakSet[NextAnchor] = WeakSet()

    class Counted(NextAnchor):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            alive.add(self)

    monkeypatch.setattr("swarm.averaging.states.NextAnchor", Counted)
    states, wires = States(CONFIG), averages(0.1)
    makings = []
    for _ in range(4):
        makings.append(states.begin(BEFORE, leaves(1, 1), [1e9, 1e9]))
        makings[-1].add(0, wires[0])
        assert len(alive) == 1
    for making in (makings[3], makings[0]):  # the newest, then one that was put off: both as at once
        making.add(1, wires[1])
        new = making.made(wires)
        assert anchor_root(new) == anchor_root(next_anchor(CONFIG, BEFORE, wires, leaves(1, 1)))
        assert not alive


def test_a_state_that_is_given_up_takes_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    states, wires = States(CONFIG), averages(0.1)
    making = states.begin(BEFORE, leaves(1, 1), [1e9, 1e9])
    making.put_off()
    monkeypatch.setattr("swarm.averaging.states.NextAnchor", None)  # none is begun
    making.add(0, wires[0])
