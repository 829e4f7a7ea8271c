"""The outer step: SGD with Nesterov momentum on averaged pseudo-gradients (DiLoCo, arXiv:2311.08105)."""

import torch


def outer_step(
    parameters: torch.Tensor, velocity: torch.Tensor, average: torch.Tensor, lr: float, momentum: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """θ' and v' from θ, v and the averaged pseudo-gradient g (all fp32 [P]; the arguments are not changed).

    v' = μ·v + g; θ' = θ − η·(g + μ·v'). Every multiply and add is an elementwise fp32 operation of its own, in this order
    (no fused multiply-add), hence bit-identical on every platform; equal to torch.optim.SGD(nesterov=True)."""
    new_velocity = (velocity * momentum).add_(average)
    step = (new_velocity * momentum).add_(average).mul_(lr)
    return torch.sub(parameters, step, out=step), new_velocity
