"""The outer step against torch.optim.SGD with Nesterov momentum."""

import pytest
import torch

from swarm.optim.outer import outer_step
from swarm.optim.schedule import momentum_at


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_the_outer_step_equals_torch_sgd_over_several_rounds(momentum: float) -> None:
    generator = torch.Generator().manual_seed(1)
    parameters = torch.randn(1000, generator=generator)
    theirs = torch.nn.Parameter(parameters.clone())
    optimizer = torch.optim.SGD([theirs], lr=0.7, momentum=momentum, nesterov=momentum > 0)
    velocity = torch.zeros_like(parameters)
    for _ in range(8):
        average = torch.randn(1000, generator=generator)
        theirs.grad = average.clone()
        optimizer.step()
        parameters, velocity = outer_step(parameters, velocity, average, 0.7, momentum)
        torch.testing.assert_close(parameters, theirs.detach(), rtol=1e-6, atol=1e-6)


def test_the_ramp_is_torch_sgd_with_the_momentum_of_each_round() -> None:
    generator = torch.Generator().manual_seed(2)
    parameters = torch.randn(100, generator=generator)
    theirs = torch.nn.Parameter(parameters.clone())
    optimizer = torch.optim.SGD([theirs], lr=0.7, momentum=0.9, nesterov=True)
    velocity = torch.zeros_like(parameters)
    for number in range(1, 8):
        average = torch.randn(100, generator=generator)
        momentum = momentum_at(number, 0.9, 5)
        assert momentum == pytest.approx(0.9 * min(1.0, number / 5))
        optimizer.param_groups[0]["momentum"] = momentum
        theirs.grad = average.clone()
        optimizer.step()
        parameters, velocity = outer_step(parameters, velocity, average, 0.7, momentum)
        torch.testing.assert_close(parameters, theirs.detach(), rtol=1e-6, atol=1e-6)


def test_the_arguments_are_not_changed() -> None:
    parameters, velocity, average = torch.ones(4), torch.ones(4), torch.ones(4)
    outer_step(parameters, velocity, average, 0.7, 0.9)
    assert all(bool((x == 1).all()) for x in (parameters, velocity, average))
