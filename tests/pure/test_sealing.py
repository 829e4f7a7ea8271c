"""Shares of a key, sealed and opened. That the contract computes the same: tests/chain/test_license.py."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incentives import sealing
from incentives.errors import InputError


@settings(max_examples=20, deadline=None)
@given(st.integers(1, sealing.ORDER - 1), st.integers(1, 6), st.integers(0, 4), st.randoms())
def test_any_shares_of_the_threshold_make_the_secret_and_fewer_do_not(
    secret: int, threshold: int, spare: int, random: Random
) -> None:
    shares = dict(enumerate(sealing.split(secret, threshold, threshold + spare)))
    chosen = random.sample(sorted(shares), threshold)
    assert sealing.combine({holder: shares[holder] for holder in chosen}) == secret
    if threshold > 1:
        assert sealing.combine({holder: shares[holder] for holder in chosen[1:]}) != secret


def test_a_sealed_share_is_opened_by_its_key_alone() -> None:
    sealed = sealing.seal(42, sealing.point_of(99), 7)
    assert sealing.open_share(sealed, 99) == 42
    assert sealing.open_share(sealed, 98) != 42


def test_commitments_of_two_polynomials_are_found_before_buying() -> None:
    points = [sealing.point_of(share) for share in sealing.split(5, 2, 4)]
    assert sealing.is_consistent(points, 2)
    for index in range(4):
        assert not sealing.is_consistent([*points[:index], sealing.point_of(1234), *points[index + 1 :]], 2)


def test_what_is_no_scalar_or_point_is_one_line() -> None:
    with pytest.raises(InputError, match="secret"):
        sealing.content_key(sealing.ORDER)
    with pytest.raises(InputError, match="not on the curve"):
        sealing.seal(1, (1, 3), 5)
    with pytest.raises(InputError, match="threshold"):
        sealing.split(1, 4, 3)
