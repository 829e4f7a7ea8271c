"""The weighted average of one part over a set (protocol §3.5)."""

from collections.abc import Sequence

import torch


def average_part(parts: Sequence[torch.Tensor], units: Sequence[int], factors: Sequence[float]) -> torch.Tensor:
    """Σ uᵢ·sᵢ·Dᵢ / Σ uᵢ over decoded parts (fp32 [n] each), contributors ascending by address; fp32 [n].

    `units` are capped by the run already. Multiply and add are separate elementwise operations in a fixed order. A set
    without units gives zeros."""
    total = sum(units)
    result = torch.zeros_like(parts[0])
    if total == 0:
        return result
    for part, count, factor in zip(parts, units, factors, strict=True):
        if count:
            weighted = part * (count * factor / total)
            result = result + weighted
    return result
