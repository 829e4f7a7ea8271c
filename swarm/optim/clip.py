"""The robust clip of contributions by their committed norms (protocol §3.5). Plain Python: the factors are certified, so
every operation is one that IEEE 754 rounds correctly everywhere (√, ×, ÷), never `pow`."""

import math
from collections.abc import Sequence

CLIP_MULTIPLE = 2.0
MIN_FOR_OWN_MEDIAN = 4


def relative_norm(norm: float, units: int) -> float:
    """norm / units^0.75; honest norms grow with units^0.66–0.85. units^0.75 = √units · √√units."""
    root = math.sqrt(float(units))
    return norm / (root * math.sqrt(root))


def clip_factors(norms: Sequence[float], units: Sequence[int], previous_median: float) -> tuple[list[float], float]:
    """Factor in [0, 1] per contribution, and the median to be certified (0.0: none).

    s = min(1, 2m / x), x = `relative_norm`, m = lower median of the x of contributions with units; with fewer than four of
    them, m is that of the previous certificate (0.0: no clip). A contribution of 0 units has factor 0: it shows that its
    peer lives, and moves nothing."""
    relative = [relative_norm(n, u) if u > 0 else None for n, u in zip(norms, units, strict=True)]
    known = sorted(x for x in relative if x is not None)
    if not known:
        return [0.0] * len(relative), previous_median
    own = known[(len(known) - 1) // 2]
    used = own if len(known) >= MIN_FOR_OWN_MEDIAN else previous_median
    factors = []
    for x in relative:
        if x is None:
            factors.append(0.0)
        elif used <= 0.0 or x <= CLIP_MULTIPLE * used:
            factors.append(1.0)
        else:
            factors.append(CLIP_MULTIPLE * used / x)
    return factors, own
