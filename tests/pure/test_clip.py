import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.optim.clip import clip_factors, relative_norm

NORMS = st.floats(1e-6, 1e6)


def test_a_relative_norm_is_the_norm_over_units_to_three_quarters() -> None:
    assert relative_norm(8.0, 16) == 1.0
    for units in range(1, 65):
        assert relative_norm(1.0, units) == pytest.approx(units**-0.75, rel=1e-15)


def test_one_that_is_far_above_the_median_is_cut_to_twice_the_median() -> None:
    factors, median = clip_factors([1.0, 1.1, 0.9, 1.0, 1e9], [1] * 5, 0.0)
    assert median == 1.0
    assert factors[:4] == [1.0] * 4
    assert factors[4] * 1e9 == pytest.approx(2.0)


def test_more_units_may_have_a_larger_norm() -> None:
    factors, _ = clip_factors([1.0, 1.0, 1.0, 4**0.85], [1, 1, 1, 4], 0.0)
    assert factors == [1.0] * 4


def test_below_four_the_median_of_the_certificate_before_decides_and_the_own_one_is_certified() -> None:
    factors, median = clip_factors([1.0, 10.0], [1, 1], 1.0)
    assert factors == [1.0, 0.2]
    assert median == 1.0  # the lower one
    assert clip_factors([1.0, 10.0], [1, 1], 0.0) == ([1.0, 1.0], 1.0)  # none yet: no clip


def test_no_units_move_nothing_and_count_for_no_median() -> None:
    factors, median = clip_factors([5.0, 1.0, 1.0, 1.0, 1.0], [0, 1, 1, 1, 1], 0.0)
    assert factors == [0.0, 1.0, 1.0, 1.0, 1.0]
    assert median == 1.0
    assert clip_factors([5.0], [0], 0.7) == ([0.0], 0.7)
    assert clip_factors([], [], 0.7) == ([], 0.7)


@given(st.lists(st.tuples(NORMS, st.integers(1, 64)), min_size=4, max_size=20))
def test_no_clipped_norm_is_above_twice_the_median_and_half_are_untouched(given_: list[tuple[float, int]]) -> None:
    norms, units = [n for n, _ in given_], [u for _, u in given_]
    factors, median = clip_factors(norms, units, 0.0)
    relative = [relative_norm(n * f, u) for n, f, u in zip(norms, factors, units, strict=True)]
    assert all(x <= 2 * median * (1 + 1e-12) for x in relative)
    assert all(0 < f <= 1 for f in factors)
    assert sum(f == 1.0 for f in factors) >= math.ceil(len(factors) / 2)


@given(st.lists(NORMS, min_size=5, max_size=9), NORMS)
def test_one_liar_cannot_move_the_median_beyond_the_others(honest: list[float], lie: float) -> None:
    _, median = clip_factors([*honest, lie], [1] * (len(honest) + 1), 0.0)
    assert min(honest) <= median <= max(honest)
