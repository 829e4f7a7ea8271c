"""What who has no link is given in a day: in all, for one identity, and however they come."""

from hypothesis import given
from hypothesis import strategies as st

from swarm.transport.allowance import AT_ONCE, DAY_SECONDS, MAX_REMEMBERED, OWN_SHARE, Allowance

DAY = 1000


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_one_identity_has_a_share_and_all_have_the_whole() -> None:
    allowance = Allowance(DAY, Clock())
    own = int(AT_ONCE * OWN_SHARE * DAY)
    assert not allowance.take("a", own + 1)
    assert allowance.take("a", own)
    assert not allowance.take("a", 1)
    assert allowance.take("b", own)
    assert not allowance.take("c", 1), "all together have had what goes at once"


def test_none_is_none() -> None:
    assert not Allowance(0, Clock()).take("a", 1)


def test_the_rest_comes_with_time() -> None:
    clock = Clock()
    allowance = Allowance(DAY, clock)
    assert allowance.take("a", 250)
    clock.now = DAY_SECONDS / 10
    assert allowance.take("a", 25)
    assert not allowance.take("a", 25)


def test_an_identity_that_was_forgotten_gets_no_more_than_all_together() -> None:
    allowance = Allowance(DAY, Clock())
    assert (
        sum(250 * allowance.take(str(number % (2 * MAX_REMEMBERED)), 250) for number in range(10_000)) <= AT_ONCE * DAY
    )


@given(st.lists(st.tuples(st.floats(0, DAY_SECONDS / 4), st.sampled_from("abc"), st.integers(1, 300)), max_size=60))
def test_in_no_day_is_it_more_than_a_day_s_bytes(asked: list[tuple[float, str, int]]) -> None:
    clock = Clock()
    allowance = Allowance(DAY, clock)
    given_at: list[tuple[float, int]] = []
    for pause, peer_id, num_bytes in asked:
        clock.now += pause
        if allowance.take(peer_id, num_bytes):
            given_at.append((clock.now, num_bytes))
    for begin, _ in given_at:
        assert sum(size for at, size in given_at if begin <= at < begin + DAY_SECONDS) <= DAY + 1e-6
