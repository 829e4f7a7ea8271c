"""What a step keeps in memory."""

from collections.abc import Callable

import torch

from swarm.device import storage_of
from swarm.models import FlatModel


def kept_bytes(model: FlatModel, loss: Callable[[], torch.Tensor]) -> int:
    """What the forward pass of `loss` keeps for the backward pass, without the parameters."""
    kept: dict[int, int] = {}
    held = []  # so that no memory is counted for two
    own = {storage_of(tensor)[0] for tensor in (model.flat, *model.module.parameters(), *model.module.buffers())}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        held.append(tensor)
        identity, size = storage_of(tensor)
        if identity not in own:
            kept[identity] = size
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss()
    return sum(kept.values())


__all__ = ["kept_bytes"]
