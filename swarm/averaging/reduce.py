"""The weighted average of one part over a set (protocol §3.5)."""

import math
from collections.abc import Sequence

import torch

from swarm.optim.codec import inner_product, squared_norm

AGAINST = 0.2  # least cosine to the others, times −1; chance alone does not get there in a part of a thousand values
CHANCE = 6.0  # standard deviations of a cosine by chance, which is 1 / √values
MIN_FOR_DIRECTION = 4


def average_part(
    parts: Sequence[torch.Tensor], squared_norms: Sequence[float], weights: Sequence[int], factors: Sequence[float]
) -> torch.Tensor:
    """Σ wᵢ·sᵢ·Dᵢ / Σ wᵢ over decoded parts (fp32 [n] each) with their squared norms, contributors ascending by address; fp32 [n].

    Who pulls against all the others together is left out, the worst first and fewer than a third of them; Σ wᵢ stays. Multiply and
    add are separate elementwise operations in a fixed order. A set without units gives zeros."""
    total = sum(weights)
    scales = [w * s / total if w else 0.0 for w, s in zip(weights, factors, strict=True)]
    counting = [i for i, scale in enumerate(scales) if scale > 0.0]
    result = _sum(parts, scales, counting)
    may_leave = (len(counting) - 1) // 3 if len(counting) >= MIN_FOR_DIRECTION else 0
    while may_leave:
        worst = _worst(parts, squared_norms, scales, counting, result)
        if worst is None:
            break
        counting.remove(worst)
        result = _sum(parts, scales, counting)
        may_leave -= 1
    return result


def _sum(parts: Sequence[torch.Tensor], scales: Sequence[float], counting: Sequence[int]) -> torch.Tensor:
    result = torch.zeros_like(parts[0])
    for i in counting:
        weighted = parts[i] * scales[i]
        result.add_(weighted)
    return result


def _worst(
    parts: Sequence[torch.Tensor],
    squared_norms: Sequence[float],
    scales: Sequence[float],
    counting: Sequence[int],
    result: torch.Tensor,
) -> int | None:
    """Whose cosine to the sum of the others is least, where that is below what is allowed. √, ×, ÷ and sums in a fixed order: all peers
    find the same. Of the sum S of all, ⟨D, S − c·D⟩ = ⟨D, S⟩ − c·‖D‖²: one product of vectors for each."""
    worst, least = None, -max(AGAINST, CHANCE / math.sqrt(float(result.numel())))
    whole = squared_norm(result)
    for i in counting:
        own, c = squared_norms[i], scales[i]
        product = inner_product(parts[i], result)
        others = whole - 2.0 * c * product + c * c * own
        if own > 0.0 and others > 0.0:
            cosine = (product - c * own) / (math.sqrt(own) * math.sqrt(others))
            if cosine < least:
                worst, least = i, cosine
    return worst


def largest_norm(squared_norms: Sequence[float], weights: Sequence[int], factors: Sequence[float]) -> float:
    """Σ wᵢ·sᵢ·‖Dᵢ‖ / Σ wᵢ from the committed squared norms of one part: no average is longer."""
    total = sum(weights)
    bound = 0.0
    for squared, weight, factor in zip(squared_norms, weights, factors, strict=True):
        if weight:
            bound += weight * factor / total * math.sqrt(squared)
    return bound
