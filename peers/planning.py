"""How long a run is to be: in tokens or samples as its organiser thinks of it, in units and epochs as the run counts. Pure."""

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from peers.errors import ConfigError
from swarm.config import RunConfig
from swarm.config.fields import MAX_COUNT

WARMUP_SHARE = 0.05  # of the units, where they are planned: the rate rises to its peak
RAMP_SHARE = 0.15  # of the rounds, at most: a preset's ramp would leave a short run little at full momentum
_COUNT = re.compile(r"([0-9][0-9_]*(?:\.[0-9]+)?)\s*([kKMGBT]?)")
_FACTORS = {"": 0, "k": 3, "K": 3, "M": 6, "G": 9, "B": 9, "T": 12}


def parse_count(text: str) -> int:
    """1.5M, 20k, 3_000_000. ValueError says what is wrong with it."""
    match = _COUNT.fullmatch(text.strip()) if len(text) <= 40 else None
    if match is None:
        raise ValueError("is no count: give e.g. 1.5M, 20k or 3000000")
    number = Decimal(match[1].replace("_", "")).scaleb(_FACTORS[match[2]])
    if number != number.to_integral_value():
        raise ValueError("is not a whole number: give e.g. 1.5M, 20k or 3000000")
    if not 1 <= number <= MAX_COUNT:
        raise ValueError(f"must be from 1 to {MAX_COUNT}")
    return int(number)


def short_count(number: int) -> str:
    """3,840,000 as 3.84M; small ones as they are."""
    for letter in ("T", "B", "M", "k"):
        size = 10 ** _FACTORS[letter]
        if number >= 10 * size or (letter != "k" and number >= size):
            return f"{number / size:.3g}{letter}" if number < 1000 * size else f"{number // size:,}{letter}"
    return f"{number:,}"


@dataclass(frozen=True, slots=True)
class Plan:
    """Of a run, by its configuration. `tokens_per_sample` is 0 where samples have none."""

    total_units: int
    warmup_units: int
    units_per_epoch: int
    samples_per_unit: int
    tokens_per_sample: int

    @classmethod
    def of(cls, config: RunConfig) -> "Plan":
        inner = config.inner
        return cls(
            inner.total_units,
            inner.warmup_units,
            config.rounds.units_per_epoch,
            inner.batch_size * inner.steps_per_unit,
            config.task.data.tokens_per_sample(),
        )

    @property
    def samples(self) -> int:
        return self.total_units * self.samples_per_unit

    @property
    def tokens(self) -> int:
        return self.samples * self.tokens_per_sample

    @property
    def epochs(self) -> int:
        """At most, if each has as many units as the run says: while a round lasts peers work on, so an epoch has more."""
        return -(-self.total_units // self.units_per_epoch)

    def json_value(self) -> dict[str, int]:
        return {
            "total_units": self.total_units,
            "warmup_units": self.warmup_units,
            "planned_epochs": self.epochs,
            "planned_samples": self.samples,
            "planned_tokens": self.tokens,
        }

    def line(self) -> str:
        tokens = f" ({short_count(self.tokens)} tokens)" if self.tokens else ""
        return (
            f"the run ends after {_many(self.total_units, 'unit')}, {short_count(self.samples)} samples{tokens}: "
            f"{_many(self.epochs, 'epoch')} of {_many(self.units_per_epoch, 'unit')}, or fewer, as more is done while a round lasts; "
            f"the learning rate rises for {_many(self.warmup_units, 'unit')}"
        )


def _many(number: int, word: str) -> str:
    return f"{number:,} {word}" + ("" if number == 1 else "s")


@dataclass(frozen=True, slots=True)
class Length:
    """As `option` (--tokens or --samples) gives it in `text`."""

    option: str
    text: str
    count: int

    def draft(self) -> dict[str, Any]:
        """Values of a run that has no end yet, for `settings`."""
        return {
            "inner": {"total_units": MAX_COUNT, "warmup_units": 0}
        }  # a preset's may be more than another end that is set

    def settings(self, values: dict[str, Any]) -> dict[str, dict[str, int]]:
        """Values for a run of `values`, which begin as `draft`: as many units as it takes, and how long the learning rate and the
        outer momentum rise. ConfigError where it is too little for two, or --set names another end."""
        config = RunConfig.parse(values)
        if config.inner.total_units != MAX_COUNT:
            raise ConfigError(
                self.option, self.text, "decides inner.total_units: leave out --set inner.total_units, or this option"
            )
        plan = Plan.of(config)
        size = plan.samples_per_unit * (plan.tokens_per_sample if self.option == "--tokens" else 1)
        units = -(-self.count // size) if size else 0
        if units < 2:
            raise ConfigError(
                self.option,
                self.text,
                f"is less than two units of {size:,} ({config.inner.steps_per_unit} steps of {config.inner.batch_size} samples): give more",
            )
        epochs = -(-units // plan.units_per_epoch)
        return {
            "inner": {"total_units": units, "warmup_units": min(units - 1, max(1, round(WARMUP_SHARE * units)))},
            "outer": {
                "momentum_ramp_rounds": min(config.outer.momentum_ramp_rounds, max(1, round(RAMP_SHARE * epochs)))
            },
        }


__all__ = ["WARMUP_SHARE", "Length", "Plan", "parse_count", "short_count"]
