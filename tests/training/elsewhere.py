"""A device that is not the host, for machines without one: every operation is the CPU's, but the memory is nobody's to read.

Its tensors have no `.numpy()`, no pointer and no storage, and no operation takes one of them beside one of the host's (numbers without
dimensions excepted, as with every accelerator). Values come and go by copies alone. Results are bit for bit the CPU's.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch.utils import backend_registration
from torch.utils._pytree import tree_leaves, tree_map

NAME = "elsewhere"
_COPIES = ("aten::copy_", "aten::_to_copy")
_TO_PYTHON = ("aten::_local_scalar_dense", "aten::equal")


class _Backend:
    """What torch asks of a backend's module; there is no state to seed."""

    def is_available(self) -> bool:
        return True

    def is_initialized(self) -> bool:
        return True

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        pass

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return 1


class ElsewhereTensor(torch.Tensor):
    hidden: torch.Tensor

    @staticmethod
    def __new__(cls, hidden: torch.Tensor) -> "ElsewhereTensor":
        made: ElsewhereTensor = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            hidden.shape,
            strides=hidden.stride(),
            storage_offset=hidden.storage_offset(),
            dtype=hidden.dtype,
            device=torch.device(NAME, 0),
        )
        made.hidden = hidden
        return made

    def __init__(self, hidden: torch.Tensor) -> None:
        pass

    @property
    def data(self) -> torch.Tensor:
        return self.detach()

    @data.setter
    def data(self, other: "ElsewhereTensor") -> None:  # type: ignore[override]
        self.hidden = other.hidden

    def __repr__(self, **_: Any) -> str:
        return f"ElsewhereTensor({tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, *args, **(kwargs or {}))


def _run(func: Any, *args: Any, **kwargs: Any) -> Any:
    name = func._schema.name
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    here = [t for t in tensors if not isinstance(t, ElsewhereTensor)]
    there = [t for t in tensors if isinstance(t, ElsewhereTensor)]
    if there and any(t.dim() for t in here) and name not in _COPIES:
        raise RuntimeError(f"{name}: tensors on two devices, cpu and {NAME}")
    goes = kwargs.get("device")
    leaves = goes is not None and torch.device(goes).type == "cpu"
    if name == "aten::copy_":
        leaves = not isinstance(args[0], ElsewhereTensor)
    out = func(*tree_map(_hidden, args), **tree_map(_hidden, kwargs))
    if leaves or name in _TO_PYTHON:
        return out
    own = {id(t.hidden): t for t in there}  # what was changed in place comes back as itself

    def wrapped(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        return own[id(leaf)] if id(leaf) in own else ElsewhereTensor(leaf)

    return tree_map(wrapped, out)


def _hidden(leaf: Any) -> Any:
    if isinstance(leaf, ElsewhereTensor):
        return leaf.hidden
    return torch.device("cpu") if isinstance(leaf, torch.device) and leaf.type == NAME else leaf


@cache
def elsewhere() -> torch.device:
    """Known to torch from now on, once in a process, and before its first backward pass: that counts the devices there are."""
    setup: Callable[..., None] = backend_registration._setup_privateuseone_for_python_backend
    setup(NAME, backend_module=_Backend())
    library = torch.library.Library("_", "IMPL")
    library.fallback(_run, "PrivateUse1")
    elsewhere.library = library  # type: ignore[attr-defined]  # what it registers goes with it
    return torch.device(NAME, 0)
