from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.optim.schedule import learning_rate, momentum_at


def test_the_rate_warms_up_and_falls_to_zero() -> None:
    rates = [learning_rate(clock, 1.0, 10, 100) for clock in range(120)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == pytest.approx(1.0)
    assert rates[55] == pytest.approx(0.5)
    assert all(a < b for a, b in pairwise(rates[:10]))
    assert all(a > b for a, b in pairwise(rates[10:100]))
    assert set(rates[100:]) == {0.0}


@given(st.integers(0, 10**9), st.integers(0, 1000), st.integers(1, 10**6))
def test_the_rate_is_never_negative_nor_above_its_peak(clock: int, warmup: int, length: int) -> None:
    assert 0.0 <= learning_rate(clock, 0.3, warmup, warmup + length) <= 0.3


def test_without_warmup_the_first_rate_is_the_peak() -> None:
    assert learning_rate(0, 0.3, 0, 100) == 0.3


def test_momentum_is_ramped_from_the_first_round_on() -> None:
    assert [momentum_at(n, 0.8, 4) for n in (1, 2, 3, 4, 5, 100)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8])
    assert momentum_at(1, 0.8, 0) == 0.8
