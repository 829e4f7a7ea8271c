"""Whether all values of a tensor are finite, without another tensor of its size."""

import torch


def is_finite(values: torch.Tensor) -> bool:
    """Neither inf nor NaN among them; one pass, of which each value reaches the smallest or the largest. No values: yes."""
    if values.numel() == 0:
        return True
    smallest, largest = torch.aminmax(values)  # a NaN anywhere makes both NaN
    return bool(torch.isfinite(smallest) & torch.isfinite(largest))


__all__ = ["is_finite"]
