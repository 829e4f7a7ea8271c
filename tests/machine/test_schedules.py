"""2,000 seeded storms against the product's own round; a failing one prints the command that repeats it."""

import pytest

from tests.machine.cheap import cheap_cryptography, journal_directory
from tests.machine.schedules import many, one, reproduction

SEED, CHUNK, CHUNKS = 1, 100, 20


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_storms_never_break_the_round(chunk: int) -> None:
    indices = range(chunk * CHUNK, (chunk + 1) * CHUNK)
    found, count, ran = many((SEED, indices, (), 1e12))
    assert not found, "\n".join(f"{violation}: {reproduction(SEED, index)}" for index, violation in found)
    assert ran == CHUNK and count["healed"] > CHUNK * 0.8
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
