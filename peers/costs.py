"""What a run's units, epochs and deposits cost and last, by its rules. Pure; amounts in the token's base unit."""

from dataclasses import dataclass

from incentives.amounts import Unit
from swarm.config import RunConfig

MOST_CONTRIBUTORS = 256  # to a round: see `swarm.consensus.heard`


@dataclass(frozen=True, slots=True)
class Costs:
    """`epoch_units`: after so many of the whole swarm it averages; `most_epoch_units`: no epoch can have more."""

    unit_amount: int
    epoch_units: int
    most_epoch_units: int

    @classmethod
    def of(cls, config: RunConfig) -> "Costs":
        rounds = config.rounds
        return cls(config.unit_price, rounds.units_per_epoch, MOST_CONTRIBUTORS * rounds.max_units_per_contribution)

    @property
    def epoch_amount(self) -> int:
        return self.unit_amount * self.epoch_units

    @property
    def most_epoch_amount(self) -> int:
        return self.unit_amount * self.most_epoch_units

    def json_value(self) -> dict[str, str]:
        return {
            "unit_price_amount": str(self.unit_amount),
            "epoch_amount": str(self.epoch_amount),
            "epoch_amount_at_most": str(self.most_epoch_amount),
        }

    def line(self, unit: Unit) -> str:
        if not self.unit_amount:
            return "a unit pays nothing"
        return (
            f"a unit pays {unit.shown(self.unit_amount)}, so an epoch of {self.epoch_units} units costs {unit.shown(self.epoch_amount)}; "
            f"no epoch can cost more than {unit.shown(self.most_epoch_amount)}"
        )

    def lasts(self, deposit_amount: int, unit: Unit, epoch_seconds: float) -> list[str]:
        """How far a deposit goes, for people; nothing where work is not paid."""
        if not self.unit_amount:
            return []
        epochs = deposit_amount // self.epoch_amount
        days = epochs * epoch_seconds / 86400
        return [
            f"{unit.shown(deposit_amount)} pay for {epochs:,} such epochs: {days:,.1f} days with one every {epoch_seconds:g} s "
            f"({deposit_amount // self.most_epoch_amount:,} of the dearest)"
        ]


__all__ = ["MOST_CONTRIBUTORS", "Costs"]
