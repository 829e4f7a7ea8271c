"""Where tensors lie, and the one door between the two places.

On the model's device: weights, gradients, moments, and what the merge adds to them (anchor, U, r). On the host: what is certified, encoded,
hashed or written. `to_host` (and what stands on it here) is the only way out, `to_device` and `copy_` the only ways in; nothing else in
`swarm` and `peers` asks a tensor for its memory.
"""

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

HOST = torch.device("cpu")


def to_host(tensor: torch.Tensor) -> torch.Tensor:
    """Its values on the host, without a gradient: the tensor's own memory where it lies there."""
    return tensor.detach().to(HOST)


def copy_to_host(tensor: torch.Tensor) -> torch.Tensor:
    """The same in memory of its own: for what is changed in place meanwhile."""
    return tensor.detach().to(HOST, copy=True)


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Its values on `device`: the tensor itself where it lies there."""
    return tensor.to(device)


def to_bytes(tensor: torch.Tensor) -> memoryview:
    """Its values one after the other, little-endian as on every machine that torch is built for here: what is encoded and hashed.
    A view where the values lie so on the host already."""
    return to_host(tensor).contiguous().view(-1).view(torch.uint8).numpy().data


def from_bytes(data: bytes, dtype: torch.dtype) -> torch.Tensor:
    """What `to_bytes` made such bytes of, one-dimensional, on the host."""
    return torch.frombuffer(bytearray(data), dtype=dtype)


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """As a file of safetensors. OSError or SafetensorError where it cannot be written."""
    save_file({name: to_host(tensor).contiguous() for name, tensor in tensors.items()}, path, metadata)


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """What `write_tensors` wrote, on the host. OSError or SafetensorError where it cannot be read."""
    with safe_open(path, "pt") as handle:  # which is no mapping: it has keys(), and cannot be iterated over
        return {name: handle.get_tensor(name) for name in handle.keys()}, handle.metadata() or {}  # noqa: SIM118
