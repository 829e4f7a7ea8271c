"""Tensors on their way into a file of safetensors, piece by piece: what they are in memory may change once they are in the file.

The library writes a file at once. What trains on meanwhile would have to be copied for that, a multiple of the model.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from swarm.device import to_bytes

PIECE_VALUES = 1 << 20
_TYPES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int8: "I8",
    torch.uint8: "U8",
}
_UNKNOWN = "0" * 64


class TensorFile:
    """A file whose metadata ends with the sha-256 of all that is in it, which is known last. OSError where it cannot be written."""

    def __init__(self, path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
        """All values are in the file when this returns; none of them is sure to be on disk, and `seal` is to follow."""
        self.path, self._metadata = path, dict(metadata)
        self._entries: dict[str, dict[str, Any]] = {}
        at = 0
        for name, tensor in sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0])):
            end = at + tensor.nbytes  # wide types first: each lies where it may be read in place
            self._entries[name] = {
                "dtype": _TYPES[tensor.dtype],
                "shape": list(tensor.shape),
                "data_offsets": [at, end],
            }
            at = end
        with open(path, "wb", buffering=0) as handle:
            handle.write(self._header(_UNKNOWN))
            for name in self._entries:
                values = tensors[name].reshape(-1)
                for start in range(0, values.numel(), PIECE_VALUES):
                    _write_all(handle, to_bytes(values[start : start + PIECE_VALUES]))

    def _header(self, digest: str) -> bytes:
        text = json.dumps({"__metadata__": {**self._metadata, "sha256": digest}, **self._entries}).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text

    def seal(self) -> None:
        """The hash of what is in the file, into its header: over each tensor's name and bytes, in order of the names."""
        begin, digest = len(self._header(_UNKNOWN)), hashlib.sha256()
        with open(self.path, "r+b", buffering=0) as handle:
            for name, entry in sorted(self._entries.items()):
                digest.update(name.encode() + b"\0")
                at, end = entry["data_offsets"]
                handle.seek(begin + at)
                while at < end and (piece := handle.read(min(4 * PIECE_VALUES, end - at))):
                    digest.update(piece)
                    at += len(piece)
            handle.seek(0)
            handle.write(self._header(digest.hexdigest()))


def _write_all(handle: Any, data: memoryview) -> None:
    """An unbuffered file may take less at once: the rest, or the error why not."""
    while data:
        data = data[handle.write(data) :]


__all__ = ["TensorFile"]
