"""Where each trainable parameter lies in the flat vector of a model."""

from dataclasses import dataclass
from typing import Any

import torch

from swarm.hashing import canonical_json


@dataclass(frozen=True)
class Layout:
    """Names (sorted) and shapes of the trainable parameters, in the order in which they lie in the flat vector."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    def sizes(self) -> tuple[int, ...]:
        out = []
        for shape in self.shapes:
            size = 1
            for n in shape:
                size *= n
            out.append(size)
        return tuple(out)

    def num_values(self) -> int:
        return sum(self.sizes())

    def header(self) -> bytes:
        """Length and JSON header of safetensors, padded with spaces to a multiple of 8."""
        at = 0
        entries: dict[str, Any] = {}
        for name, shape, size in zip(self.names, self.shapes, self.sizes(), strict=True):
            entries[name] = {"data_offsets": [at, at + 4 * size], "dtype": "F32", "shape": list(shape)}
            at += 4 * size
        text = canonical_json(entries)
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text

    def views(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        """Views into `flat` [P] by name."""
        out, at = {}, 0
        for name, shape, size in zip(self.names, self.shapes, self.sizes(), strict=True):
            out[name] = flat[at : at + size].view(shape)
            at += size
        return out
