"""How much a contribution may pull on the average, whatever its peer says of it (protocol §3.5)."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.config import InnerConfig
from swarm.matrices import Matrix
from swarm.optim.clip import (
    PULL_MULTIPLE,
    largest_motion,
    pull,
    relative_norm,
)
from swarm.optim.inner import InnerOptimizer
from swarm.records.units import WEIGHT_MULTIPLE, capped_weights

NORMS = st.floats(1e-6, 1e6)
UNBOUND = math.inf


def of(norms: list[float], units: list[int], before: float = 0.0, largest: float = UNBOUND) -> Any:
    return pull(norms, units, before, [largest] * len(norms))


def test_a_relative_norm_is_the_norm_over_units_to_three_quarters() -> None:
    assert relative_norm(8.0, 16) == 1.0
    for units in range(1, 65):
        assert relative_norm(1.0, units) == pytest.approx(units**-0.75, rel=1e-15)


def test_honest_peers_of_equal_speed_are_untouched() -> None:
    found = of([1.0, 1.1, 0.9, 1.2], [4, 4, 4, 4])
    assert found.weights == (4, 4, 4, 4)
    assert found.factors == (1.0,) * 4
    assert found.median == relative_norm(1.0, 4)


def test_units_count_up_to_twice_what_the_others_did() -> None:
    assert capped_weights([4, 4, 4, 64]) == (4, 4, 4, 8)
    assert capped_weights([4, 64]) == (4, 8)
    assert capped_weights([0, 0, 3]) == (0, 0, 3)
    assert capped_weights([]) == ()


def test_one_that_pulls_more_than_twice_the_median_is_cut_to_that() -> None:
    found = of([1.0, 1.0, 1.0, 1e9], [1, 1, 1, 1])
    assert found.factors[:3] == (1.0,) * 3
    assert found.factors[3] * 1e9 == pytest.approx(PULL_MULTIPLE)


def test_claimed_units_gain_no_pull() -> None:
    """The attack: 64 units and minus twenty times."""
    found = of([1.0, 1.0, 1.0, 20.0], [1, 1, 1, 64])
    share = [w * f * n for w, f, n in zip(found.weights, found.factors, [1.0, 1.0, 1.0, 20.0], strict=True)]
    assert share[3] == pytest.approx(PULL_MULTIPLE)


def test_from_three_on_the_rounds_own_median_decides_below_it_that_of_the_certificate_before() -> None:
    assert of([1.0, 1.0, 100.0], [1, 1, 1]).factors[2] == pytest.approx(0.02)
    found = of([1.0, 10.0], [1, 1], before=1.0)
    assert found.factors == (1.0, pytest.approx(0.2))
    assert found.median == 1.0  # the lower one
    assert of([1.0, 10.0], [1, 1]).factors == (1.0, 1.0)  # none yet


def test_before_any_median_what_steps_can_move_bounds_it() -> None:
    """The attack: eight million everywhere, in the first round."""
    assert of([1.0, 8e9], [1, 1], largest=2.0).factors == (1.0, pytest.approx(2.5e-10))


def test_no_units_move_nothing_and_count_for_no_median() -> None:
    found = of([5.0, 1.0, 1.0, 1.0, 1.0], [0, 1, 1, 1, 1])
    assert found.factors == (0.0, 1.0, 1.0, 1.0, 1.0)
    assert found.median == 1.0
    assert of([5.0], [0], 0.7) == ((0,), (0.0,), 0.7)
    assert of([], [], 0.7) == ((), (), 0.7)


@given(st.lists(st.tuples(NORMS, st.integers(1, 64)), min_size=3, max_size=20))
def test_nobody_pulls_more_than_twice_the_median_and_half_are_untouched(given_: list[tuple[float, int]]) -> None:
    norms, units = [n for n, _ in given_], [u for _, u in given_]
    found = of(norms, units)
    middle = sorted(found.weights)[(len(units) - 1) // 2]
    assert max(found.weights) <= WEIGHT_MULTIPLE * middle
    most = PULL_MULTIPLE * found.median * middle**1.75
    for norm, weight, factor in zip(norms, found.weights, found.factors, strict=True):
        assert 0 < factor <= 1
        assert weight * norm * factor <= most * (1 + 1e-9)


@given(st.lists(NORMS, min_size=5, max_size=9), NORMS, st.integers(1, 64))
def test_one_liar_cannot_move_the_median_beyond_the_others(honest: list[float], lie: float, units: int) -> None:
    found = of([*honest, lie], [1] * len(honest) + [units])
    assert min(honest) * (1 - 1e-12) <= found.median <= max(honest) * (1 + 1e-12)


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(["adamw", "muon", "sgd"]),
    st.integers(0, 2**31),
    st.sampled_from([0.0, 0.1, 3.0]),
    st.integers(0, 40),
)
def test_no_gradients_move_parameters_further_than_they_can(
    optimizer: str, seed: int, decay: float, clock: int
) -> None:
    """The bound against the optimisers themselves, with gradients that grow, vanish and turn."""
    config = InnerConfig.model_validate(
        {
            "optimizer": optimizer,
            "lr": 0.01,
            "weight_decay": decay,
            "steps_per_unit": 10,
            "warmup_units": 20,
            "batch_size": 1,
        }
    )
    generator = torch.Generator().manual_seed(seed)
    flat = torch.randn(300, generator=generator).clamp(-1, 1)
    before, inner, units = flat.clone(), InnerOptimizer(config, flat, [Matrix(20, 12, 20), Matrix(270, 2, 3)]), 3
    for step in range(units * config.steps_per_unit):
        rate = config.lr * min(1.0, (clock + step // config.steps_per_unit + 1) / config.warmup_units)
        size = float(10.0 ** torch.randint(-6, 6, (), generator=generator))
        inner.step(torch.randn(300, generator=generator).sign() * size, rate)
    moved = float((flat - before).norm())
    assert moved <= largest_motion(config, 300, units, clock)


def test_a_bound_for_the_optimisers_worst_case_is_not_much_above_it() -> None:
    """All gradients equal: each step moves by the full rate."""
    config = InnerConfig.model_validate({"lr": 0.01, "weight_decay": 0.0, "warmup_units": 0})
    flat = torch.zeros(300)
    inner = InnerOptimizer(config, flat)
    for _ in range(10):
        inner.step(torch.ones(300), config.lr)
    bound = largest_motion(config, 300, 2, 1000)
    assert bound * 0.9 <= float(flat.norm()) <= bound


def test_the_bound_is_of_the_optimiser_that_the_run_has() -> None:
    plain = SimpleNamespace(
        optimizer="sgd", lr=0.1, steps_per_unit=2, warmup_units=0, clip_norm=3.0, weight_decay=0.0, betas=(0.9, 0.95)
    )
    assert largest_motion(plain, 10_000, 2, 0) == pytest.approx(4 * 0.1 * 3.0)  # type: ignore[arg-type]
