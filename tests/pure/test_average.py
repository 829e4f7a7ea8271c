"""The average of one part: who pulls against all others is left out, and no average is longer than the committed norms allow."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.averaging.reduce import average_part, largest_norm
from swarm.optim.codec import decode, encode, inner_product, rounding_floor, rounding_share, squared_norm

SIZE = 2048


def honest(count: int, seed: int = 0, signal: float = 0.4) -> list[torch.Tensor]:
    """Of norm 1, with that cosine to a common direction."""
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(SIZE, generator=generator)
    direction /= direction.norm()
    found = []
    for _ in range(count):
        noise = torch.randn(SIZE, generator=generator)
        noise -= direction * (noise @ direction)
        found.append(signal * direction + math.sqrt(1 - signal**2) * noise / noise.norm())
    return found


def average(parts: list[torch.Tensor], factors: list[float] | None = None) -> torch.Tensor:
    return average_part(parts, [squared_norm(p) for p in parts], [1] * len(parts), factors or [1.0] * len(parts))


def progress(result: torch.Tensor, parts: list[torch.Tensor]) -> float:
    """Along the mean of the honest parts, as a share of it."""
    mean = torch.stack(parts).mean(0)
    return float(result @ mean / (mean @ mean))


@pytest.mark.parametrize("count", [3, 4, 7, 16])
@pytest.mark.parametrize("signal", [0.0, 0.05, 0.4])
def test_honest_parts_are_averaged_as_they_are(count: int, signal: float) -> None:
    for seed in range(5):
        parts = honest(count, seed, signal)
        expected = torch.zeros(SIZE)
        for part in parts:
            expected = expected + part * (1 / count)
        assert torch.equal(average(parts), expected)


@pytest.mark.parametrize(("count", "liars"), [(4, 1), (7, 2), (16, 3)])
def test_who_pulls_against_the_others_is_left_out(count: int, liars: int) -> None:
    """Inner product manipulation at the largest pull that the clip leaves: minus the mean of the honest, twice as long as theirs."""
    good = honest(count - liars)
    mean = torch.stack(good).mean(0)
    bad = [-2.0 * mean / mean.norm()] * liars
    found = progress(average([*good, *bad]), good)
    assert found == pytest.approx((count - liars) / count, rel=1e-3)


@pytest.mark.parametrize(("count", "liars"), [(4, 1), (7, 2)])
def test_one_that_hides_just_above_the_bound_slows_and_does_not_turn(count: int, liars: int) -> None:
    good = honest(count - liars)
    mean = torch.stack(good).mean(0)
    direction = mean / mean.norm()
    for cosine in (-0.15, 0.0):
        side = torch.randn(SIZE, generator=torch.Generator().manual_seed(1))
        side -= direction * (side @ direction)
        bad = 2.0 * (cosine * direction + math.sqrt(1 - cosine**2) * side / side.norm())
        assert progress(average([*good, *[bad] * liars]), good) > 0.15


def test_a_fourth_of_sixteen_that_act_as_one_turn_it() -> None:
    """What this does not hold (docs/threat-model.md): together they pull more than the direction that the others have in common."""
    good = honest(11)
    mean = torch.stack(good).mean(0)
    assert progress(average([*good, *[-2.0 * mean / mean.norm()] * 5]), good) < 0


def test_fewer_than_a_third_are_left_out_however_they_pull() -> None:
    parts = [torch.eye(SIZE)[0] * (1 if i % 2 else -1) for i in range(6)]
    kept = float(average(parts).abs().sum())
    assert kept <= 1 / 6 + 1e-6  # one of six: the sum of the other five


def test_below_four_nobody_is_left_out() -> None:
    parts = [torch.ones(SIZE), torch.ones(SIZE), -torch.ones(SIZE)]
    assert torch.allclose(average(parts), torch.full((SIZE,), 1 / 3))


def test_a_few_values_may_point_anywhere() -> None:
    """Of ten values chance alone has cosines of −0.9."""
    parts = [torch.eye(10)[0], torch.eye(10)[0], torch.eye(10)[0], -torch.eye(10)[0]]
    assert float(average_part(parts, [1.0] * 4, [1] * 4, [1.0] * 4)[0]) == pytest.approx(0.5)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["int8", "int4", "float32"]),
    st.integers(1, 700),
    st.lists(st.tuples(st.integers(0, 9), st.floats(0, 1), st.floats(1e-7, 1e3)), min_size=1, max_size=7),
    st.integers(0, 2**31),
)
def test_no_true_average_is_longer_than_what_is_allowed(
    codec: str, size: int, given_: list[tuple[int, float, float]], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    parts = [torch.randn(size, generator=generator) * scale for _, _, scale in given_]
    parts[0] = torch.zeros(size).index_fill(0, torch.tensor([0]), given_[0][2])  # one value alone: rounding is worst
    weights, factors = [w for w, _, _ in given_], [f for _, f, _ in given_]
    if not sum(weights):
        return
    norms = [squared_norm(p) for p in parts]
    back = decode(encode(average_part(parts, norms, weights, factors), codec), size, codec)
    allowed = largest_norm(norms, weights, factors) * (1 + rounding_share(codec)) + rounding_floor(size)
    assert math.sqrt(squared_norm(back)) <= allowed


def test_an_inner_product_is_a_tree_of_additions() -> None:
    left, right = honest(2)
    products = (left.double() * right.double()).numpy()
    while len(products) > 1:
        products = products[: len(products) // 2] + products[len(products) // 2 :]
    assert inner_product(left, right) == products[0]
