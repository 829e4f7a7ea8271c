from hypothesis import given
from hypothesis import strategies as st

from swarm.averaging.progress import swarm_units

accounts = st.binary(min_size=20, max_size=20)


def test_units_of_all_peers_add_up() -> None:
    assert swarm_units({b"a": 2, b"b": 3}, 10) == 5


def test_nobody_counts_more_than_the_cap() -> None:
    assert swarm_units({b"a": 2, b"b": 10**9}, 10) == 12


def test_from_three_peers_on_one_loud_peer_cannot_end_the_epoch() -> None:
    assert swarm_units({b"a": 2, b"b": 2, b"c": 10**9}, 10**6) == 2 + 2 + 8


@given(st.dictionaries(accounts, st.integers(-5, 10**9), max_size=8), st.integers(1, 100))
def test_the_sum_stays_within_peers_times_cap(units: dict[bytes, int], cap: int) -> None:
    assert 0 <= swarm_units(units, cap) <= len(units) * cap
