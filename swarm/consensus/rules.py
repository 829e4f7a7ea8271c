"""What of a run's agreement the round needs, in one frozen record."""

from collections.abc import Iterable
from dataclasses import dataclass

from swarm.config import RunConfig
from swarm.records.types import Account, Hash

NO_END = 1 << 62


@dataclass(frozen=True, slots=True)
class RunRules:
    """What of a run the machine needs. Lengths of time in seconds."""

    run_id: Hash
    initial_root: Hash
    founders: tuple[Account, ...]
    num_parts: int
    max_attempts: int
    max_reducers: int
    max_units: int
    min_seated: int
    contribute_seconds: float
    average_seconds: float
    vote_seconds: float
    stall_seconds: float
    recheck_share: float = 0.0  # of the parts
    total_units: int = NO_END  # on the run's clock: it ends there

    @classmethod
    def of(cls, run: RunConfig, founders: Iterable[Account], num_values: int) -> "RunRules":
        r = run.rounds
        return cls(
            run.run_id,
            bytes.fromhex(run.initial_root),
            tuple(sorted(founders)),
            -(-num_values // run.codec.part_values),
            r.max_attempts,
            r.max_reducers,
            r.max_units_per_contribution,
            r.min_seated,
            r.contribute_seconds,
            r.average_seconds,
            r.vote_seconds,
            r.stall_seconds,
            r.recheck_share,
            run.inner.total_units,
        )
