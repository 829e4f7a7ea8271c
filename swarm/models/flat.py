"""A module whose trainable parameters are views into one flat vector: what is averaged, merged and hashed."""

from typing import Protocol

import torch

from swarm.device import HOST
from swarm.matrices import Matrix
from swarm.models.layout import Layout

HEADS = ("score", "classifier")  # what transformers calls that which gives the logits of labels


class Trainable(Protocol):
    """What a task asks of a model: `FlatModel` has it, and so has whoever is measured beside it."""

    module: torch.nn.Module
    device: torch.device

    def zero_grad(self) -> None: ...


class FlatModel:
    """`flat` and `grad_flat`: fp32 [P] on `device`; the module's parameters and gradients are views into them (tied ones once).
    `matrices`: which of them are hidden matrices."""

    def __init__(self, module: torch.nn.Module, device: torch.device = HOST) -> None:
        self.module, self.device = _moved(module, device), device
        unique: dict[int, tuple[str, torch.nn.Parameter]] = {}
        for name, parameter in module.named_parameters(remove_duplicate=False):
            if parameter.requires_grad:
                known = unique.get(id(parameter))
                if known is None or name < known[0]:
                    unique[id(parameter)] = (name, parameter)
        ordered = sorted(unique.values(), key=lambda item: item[0])
        self.layout = Layout(tuple(name for name, _ in ordered), tuple(tuple(p.shape) for _, p in ordered))
        self.matrices = _matrices(module, self.layout)
        self.flat = torch.empty(self.layout.num_values(), dtype=torch.float32, device=device)
        self.grad_flat = torch.zeros_like(self.flat)
        views, grads = self.layout.views(self.flat), self.layout.views(self.grad_flat)
        for name, parameter in ordered:
            views[name].copy_(parameter.detach())
            parameter.data = views[name]
            parameter.grad = grads[name]

    def zero_grad(self) -> None:
        self.grad_flat.zero_()


def _matrices(module: torch.nn.Module, layout: Layout) -> tuple[Matrix, ...]:
    """Where the hidden matrices lie: parameters of two dimensions that neither embed nor give the output's logits. What is tied to such
    a one is none."""
    others = {id(part.weight) for part in module.modules() if isinstance(part, torch.nn.Embedding)}
    output = getattr(module, "get_output_embeddings", lambda: None)()
    others |= {id(parameter) for parameter in (output.parameters() if output is not None else ())}
    heads = [part for name, part in module.named_children() if name in HEADS]
    others |= {id(parameter) for head in heads for parameter in head.parameters()}
    found, at = [], 0
    for name, shape, size in zip(layout.names, layout.shapes, layout.sizes(), strict=True):
        if len(shape) == 2 and id(module.get_parameter(name)) not in others:
            found.append(Matrix(at, *shape))
        at += size
    return tuple(found)


def _moved(module: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """To `device`, in place, tied parameters still tied: where a device's tensors are of a type of their own, torch's `to` makes
    a parameter anew for each of its names."""
    names: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    module.to(device)
    for first, *others in names.values():
        for other in others:
            owner, _, attribute = other.rpartition(".")
            setattr(module.get_submodule(owner), attribute, module.get_parameter(first))
    return module
