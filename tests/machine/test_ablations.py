"""Rules taken out of the product one at a time: a seeded storm finds each. The others are argued in docs/decisions/0003."""

import pytest

from tests.machine.cheap import cheap_cryptography, journal_directory
from tests.machine.schedules import one


@pytest.mark.parametrize(
    ("rule", "index", "violation"),
    [
        ("ghost", 10, "S3 more than one lineage"),
        ("linear", 74, "S4 a unit lost silently"),
        ("patient", 7, "S5 a seating of liars alone was followed"),
        ("seatq", 64, "S3 more than one lineage"),
        ("setq", 519, "S6 electorate captured in one round"),
        ("key", 1124, "L1 stalled with a quorum alive"),
        ("init", 1228, "L1 stalled with a quorum alive"),
        ("contested", 180, "S3 more than one lineage"),
    ],
)
def test_a_storm_finds_the_missing_rule(rule: str, index: int, violation: str) -> None:
    with cheap_cryptography(), journal_directory() as directory:
        assert one(1, index, directory, (rule,))[0] == violation
        assert one(1, index, directory)[0] is None
