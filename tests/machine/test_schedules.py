"""Hundreds of seeded storms against the product's own round (`--storms`); a failing one prints the command that repeats it."""

import pytest

from tests.machine.cheap import cheap_cryptography, journal_directory
from tests.machine.schedules import many, one, reproduction

SEED = 1


def test_storms_never_break_the_round(storms: range) -> None:
    found, count, ran = many((SEED, storms, (), 1e12))
    assert not found, "\n".join(f"{violation}: {reproduction(SEED, index)}" for index, violation in found)
    assert ran == len(storms) and count["healed"] > len(storms) * 0.8
    innocent = {what: times for what, times in count.items() if what.startswith("innocent")}
    assert not innocent, innocent


def test_a_seed_gives_the_same_trace_again() -> None:
    with cheap_cryptography(), journal_directory() as directory:
        assert one(SEED, 7, directory) == one(SEED, 7, directory)


@pytest.mark.parametrize(
    ("seed", "index"),
    [
        (101, 4170),  # the only voter dies; of two joiners one had seated itself alone, which the other never heard of
        (23, 18350),  # after eleven stalls in a split a voter followed a seating of two liars
    ],
)
def test_a_storm_that_ended_badly_once(seed: int, index: int) -> None:
    with cheap_cryptography(), journal_directory() as directory:
        violation, count, _ = one(seed, index, directory)
    assert violation is None and count["healed"]
