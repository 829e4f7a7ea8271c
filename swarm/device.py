"""Where tensors lie, and the one door between the two places.

On the model's device: weights, gradients, moments, and what the merge adds to them (anchor, U, r). On the host: what is certified, encoded,
hashed or written. `to_host` (and what stands on it here) is the only way out, `to_device` and `copy_` the only ways in; nothing else in
`swarm` and `peers` asks a tensor for its memory.
"""

import platform
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from swarm.errors import InputError, printable

HOST = torch.device("cpu")


@dataclass(frozen=True)
class Cards:
    """What torch can compute with on a machine besides the processor: the names of CUDA's (ROCm's) cards, and whether Apple's is there."""

    cuda: tuple[str, ...] = ()
    has_mps: bool = False

    @classmethod
    def here(cls) -> "Cards":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        return cls(
            tuple(torch.cuda.get_device_name(index) for index in range(count)), torch.backends.mps.is_available()
        )

    def names(self) -> list[str]:
        """Of devices, as `choose_device` takes them."""
        found = [f"cuda:{index} ({name})" for index, name in enumerate(self.cuda)]
        return [*found, *(["mps"] if self.has_mps else []), "cpu"]


def choose_device(wanted: str, cards: Cards) -> torch.device:
    """`wanted`: auto (the first of CUDA's cards, else the processor), cpu, cuda, cuda:N or mps. InputError for one that is not there."""
    kind, _, index = wanted.partition(":")
    if wanted == "auto":
        return torch.device("cuda:0" if cards.cuda else "cpu")  # Apple's lacks fp64, and was never tried
    if wanted == "cpu" or (wanted == "mps" and cards.has_mps):
        return torch.device(wanted)
    if kind == "cuda" and int(index or 0) < len(cards.cuda):
        return torch.device("cuda", int(index or 0))
    remedy = f"is not there: torch finds {', '.join(cards.names())}"
    if kind == "cuda" and not cards.cuda:
        remedy += "; a card needs its driver and a build of torch for it (https://pytorch.org), or take cpu"
    raise InputError("device", wanted, remedy)


def device_class(device: torch.device) -> bytes:
    """What a contribution says of where its steps were computed, ASCII, filled to 32 bytes with zeros: kinds of devices whose kernels
    round alike, as far as names can say that. Nothing tells one machine from another of its kind."""
    kind = device.type
    if kind == "cpu":
        kind += f" {platform.machine()}"
    elif kind == "cuda":
        about = torch.cuda.get_device_properties(device)
        kind = f"rocm {about.gcnArchName.split(':')[0]}" if torch.version.hip else f"cuda {about.major}.{about.minor}"
    return kind.encode("ascii", "replace")[:32].ljust(32, b"\0")


def shown_device_class(word: bytes) -> str:
    """For people, from a stranger's record: "" where it says nothing."""
    return printable(word.rstrip(b"\0").decode("ascii", "replace"), 32)


_NO_ROOM = ("can't allocate memory", "not enough memory", "backend out of memory")  # the host's allocators, and Apple's


def is_out_of_memory(error: BaseException) -> bool:
    """Whether what was asked of a device, or of the host, is more than it has: less may fit."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_ROOM)


def forget_freed(device: torch.device) -> None:
    """Give back what the allocator of `device` keeps for later: pieces of the wrong size."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def failed_card(error: BaseException) -> str:
    """What is to be told of an error that shows a device to be too small, or broken: starting again does not help. Empty for others."""
    if is_out_of_memory(error) and not isinstance(error, torch.OutOfMemoryError):
        return "this machine's memory is too small for a step of this run, or others use it: close them, or take a larger one"
    if is_out_of_memory(error):
        return "its memory is too small for a step of this run, or others use it: close them, or take another one (--device cpu)"
    if isinstance(error, torch.AcceleratorError):
        return "it has failed: see the driver's log, restart it or the machine, or take another one (--device cpu)"
    return ""


def to_host(tensor: torch.Tensor) -> torch.Tensor:
    """Its values on the host, without a gradient: the tensor's own memory where it lies there."""
    return tensor.detach().to(HOST)


def copy_to_host(tensor: torch.Tensor) -> torch.Tensor:
    """The same in memory of its own: for what is changed in place meanwhile."""
    return tensor.detach().to(HOST, copy=True)


def storage_of(tensor: torch.Tensor) -> tuple[int, int]:
    """Which memory it lies in, and how many bytes that is: views of one tensor lie in the same."""
    storage = tensor.untyped_storage()
    return storage._cdata, storage.nbytes()


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
