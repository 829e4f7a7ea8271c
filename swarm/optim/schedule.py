"""What depends on how far the run is: learning rate and momentum, pure functions of clocks that all peers agree on."""

import math


def learning_rate(clock: int, peak: float, warmup_units: int, total_units: int) -> float:
    """Linear warm-up, then a cosine to zero. `clock` counts units: the anchor's cumulative units plus the peer's own since
    the boundary (protocol §4.2). Never negative; zero from `total_units` on."""
    if clock < warmup_units:
        return peak * (clock + 1) / warmup_units
    if clock >= total_units:
        return 0.0
    return peak * (0.5 + 0.5 * math.cos(math.pi * (clock - warmup_units) / max(1, total_units - warmup_units)))


def momentum_at(num_rounds: int, momentum: float, ramp_rounds: int) -> float:
    """Outer momentum of round `num_rounds` (the first is 1), ramped from 0: full momentum over the first short rounds is the
    main loss of the recipe (+2 to +16 %)."""
    return momentum * min(1.0, num_rounds / ramp_rounds) if ramp_rounds > 0 else momentum
