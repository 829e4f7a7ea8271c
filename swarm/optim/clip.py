"""How much a contribution may pull on the average (protocol §3.5): capped weights, clip by committed norms, what steps can move.

Nothing here believes the units that a peer states beyond twice what the others do: who lies about them gains pay, and no say. Plain
Python: the factors are certified, so every operation is one that IEEE 754 rounds correctly everywhere (√, ×, ÷), never `pow`.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from swarm.config import InnerConfig
from swarm.records.units import capped_weights

PULL_MULTIPLE = 2.0  # × the median pull: the most that one keeps
MIN_FOR_OWN_MEDIAN = 3


class Pull(NamedTuple):
    """`weights`: whole units that count, one per contribution; `factors` in [0, 1] on its values; `median` to be certified (0.0: none)."""

    weights: tuple[int, ...]
    factors: tuple[float, ...]
    median: float


def relative_norm(norm: float, units: int) -> float:
    """norm / units^0.75; honest norms grow with units^0.66–0.85. units^0.75 = √units · √√units."""
    root = math.sqrt(float(units))
    return norm / (root * math.sqrt(root))


def largest_motion(inner: InnerConfig, num_values: int, units: int, clock: int) -> float:
    """The largest norm that `units` units of inner steps give, from `clock` units of the swarm on, for parameters of a
    root-mean-square of 1 at most.

    A step of AdamW moves a parameter by lr · (max(1, (1 − β₁) / √(1 − β₂)) + decay · |θ|) at most (arXiv:1412.6980), one of Muon a
    matrix by lr · 0.2 · 1.21 · √size and less, its singular values being 1.21 at most, a step of SGD
    all together by lr · (clip_norm + decay · ‖θ‖). The cosine of the schedule is left out: libm rounds it as it likes."""
    steps = units * inner.steps_per_unit
    rate = inner.lr
    if clock + units < inner.warmup_units:
        rate = inner.lr * (clock + units) / inner.warmup_units
    width = math.sqrt(float(num_values))
    if inner.optimizer == "sgd":
        return steps * rate * (inner.clip_norm + inner.weight_decay * width)
    sharpest = max(1.0, (1.0 - inner.betas[0]) / math.sqrt(1.0 - inner.betas[1]))
    return steps * rate * (sharpest + inner.weight_decay) * width


def pull(norms: Sequence[float], units: Sequence[int], previous_median: float, largest: Sequence[float]) -> Pull:
    """Of a set's contributions: `norms` as committed, `units` capped by the run, `largest` norm that each could have (inf: no bound).

    w = `capped_weights`; x = `relative_norm` of norm and w; m = lower median of x over the n with units (n < 3: of the certificate before;
    0: none). A contribution pulls w · norm; a median one pulls m · w̃^1.75, w̃ the lower median of w. s = min(1, 2 · median pull / own
    pull, largest / norm). A contribution of 0 units has factor 0: it shows that its peer lives, and moves nothing."""
    weights = capped_weights(units)
    known = sorted(w for w in weights if w > 0)
    if not known:
        return Pull(weights, (0.0,) * len(weights), previous_median)
    relative = sorted(relative_norm(n, w) for n, w in zip(norms, weights, strict=True) if w > 0)
    own = relative[(len(relative) - 1) // 2]
    median = own if len(known) >= MIN_FOR_OWN_MEDIAN else previous_median
    middle = known[(len(known) - 1) // 2]
    root = math.sqrt(float(middle))
    most = PULL_MULTIPLE * median * middle * root * math.sqrt(root)
    factors = []
    for norm, weight, bound in zip(norms, weights, largest, strict=True):
        factor = 0.0 if weight == 0 else 1.0
        if median > 0.0 and weight * norm > most:
            factor = most / (weight * norm)
        if norm * factor > bound:
            factor = bound / norm
        factors.append(factor)
    return Pull(weights, tuple(factors), own)
