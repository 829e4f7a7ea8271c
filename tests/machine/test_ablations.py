"""Rules taken out of the product one at a time: a seeded storm finds each. The others are argued in docs/decisions/0003."""

import pytest

from tests.machine.cheap import cheap_cryptography, journal_directory
from tests.machine.schedules import one


@pytest.mark.parametrize(
    ("rule", "seed", "index", "violation"),
    [
        ("ghost", 1, 24, "S3 more than one lineage"),
        ("linear", 1, 74, "S4 a unit lost silently"),
        ("patient", 1, 7, "S5 a seating of liars alone was followed"),
        ("seatq", 1, 64, "S3 more than one lineage"),
        ("setq", 1, 519, "S6 electorate captured in one round"),
        ("contested", 1, 2676, "S3 more than one lineage"),
        ("support", 7, 16108, "S5 a lineage of liars was followed"),
        ("looks", 1, 88, "A2 a wrong average was certified"),
    ],
)
def test_a_storm_finds_the_missing_rule(rule: str, seed: int, index: int, violation: str) -> None:
    with cheap_cryptography(), journal_directory() as directory:
        assert one(seed, index, directory, (rule,))[0] == violation
        assert one(seed, index, directory)[0] is None
