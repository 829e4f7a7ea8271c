"""The yardstick of this directory: the swarm's pace when nobody attacks it."""

from tests.faults.swarm import Swarm
from tests.hostile.pace import epochs_per_second


def test_a_calm_swarm_keeps_a_pace(swarm: Swarm) -> None:
    assert epochs_per_second(swarm, 4.0) > 0.2
