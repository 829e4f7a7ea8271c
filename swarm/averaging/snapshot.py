"""A restart's state on disk: only what blocks, contributions and kept states do not hold already (decision 0019).

Between a boundary and the first inner step after it that is nothing but a few numbers: the weights are the anchor minus the own
contribution, moments and residual are the committed state. In mid-unit it is the weights, the moments and the residual.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from pydantic_core import from_json

from swarm.atomic import beside, replacing
from swarm.averaging.contribution import EncodedVector
from swarm.device import from_bytes, read_tensors, to_bytes
from swarm.errors import RetryError, disk_remedy
from swarm.optim.codec import part_slices, wire_bytes
from swarm.optim.inner import CommittedState
from swarm.records.types import Hash
from swarm.tensorfile import TensorFile

_INNER = "inner."
PIECE_VALUES = 1 << 20  # are looked at at once: a temporary takes so much


class OnDisk(Protocol):
    """What a snapshot need not hold, each by what was signed. `has_…`: from any thread, and whether the other will give it after a kill at
    any moment; the others: None where it is not here or has rotted."""

    def has_anchor(self, certificate_id: Hash) -> bool: ...

    def anchor(self, certificate_id: Hash) -> torch.Tensor | None:
        """Parameters, fp32 [P]."""

    def has_contribution(self, contribution: Hash) -> bool: ...

    def contribution(self, contribution: Hash) -> bytes | None:
        """An own one's wire bytes, part after part."""

    def has_state(self, key: Hash) -> bool: ...

    def state(self, key: Hash) -> CommittedState | None: ...


@dataclass(frozen=True)
class Snapshot:
    """Everything a restart needs. What training changes in place is no copy: it is looked at and written between two steps."""

    tensors: dict[str, torch.Tensor]
    state: dict[str, Any]

    def slim(self, on_disk: OnDisk) -> "Snapshot":
        """Without what `on_disk` has; `filled` is its inverse, bit for bit."""
        tensors, state = dict(self.tensors), self.state
        if state["inner_step"] == 0 and self._stands_at_its_beginning():
            del tensors["live"]
        if on_disk.has_anchor(bytes.fromhex(state["anchor_id"])):
            del tensors["anchor"]
        if "unspent" in tensors and not state["unsigned"] and on_disk.has_contribution(_key(state, "previous")):
            del tensors["unspent"]  # it is never anything but the newest contribution, or nothing
        for name in [n for n in tensors if n.startswith(_INNER)]:
            tensors[name] = _narrowed(tensors[name], torch.bfloat16)
        if state["inner_step"] == 0 and on_disk.has_state(key := bytes.fromhex(state["state_before"])):
            moments = {n[len(_INNER) :]: v for n, v in tensors.items() if n.startswith(_INNER)}
            if CommittedState(moments, tensors["residual"], state["num_steps"]).hash() == key:
                tensors = {n: v for n, v in tensors.items() if n != "residual" and not n.startswith(_INNER)}
        return Snapshot(tensors, state)

    def unspent(self) -> EncodedVector | None:
        """U. ValueError where its bytes are not of its codec."""
        if self.state["unspent"] is None:
            return None
        codec, part_values = self.state["unspent"]
        data, at, parts = bytes(to_bytes(self.tensors["unspent"])), 0, []
        num_values = self.tensors["anchor"].numel()
        for where in part_slices(num_values, part_values):
            size = wire_bytes(where.stop - where.start, codec)
            parts.append(data[at : at + size])
            at += size
        if at != len(data):
            raise ValueError("unspent: of another length")
        return EncodedVector(codec, num_values, part_values, tuple(parts))

    def _begun(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """The weights right after a boundary, A − U, piece by piece."""
        anchor, unspent = self.tensors["anchor"], self.unspent()
        if unspent is None:
            yield from ((where, anchor[where]) for where in part_slices(anchor.numel(), PIECE_VALUES))
        else:
            for index, where in enumerate(unspent.slices()):
                yield where, anchor[where] - unspent.part(index, anchor.device)

    def _stands_at_its_beginning(self) -> bool:
        return all(torch.equal(self.tensors["live"][where], weights) for where, weights in self._begun())

    def num_bytes(self) -> int:
        return sum(value.nbytes for value in self.tensors.values())

    def begin(self, path: Path) -> "SnapshotFile":
        """Into a file beside `path`: what training changes may go on changing when this returns. `RetryError` where the disk is full."""
        state = json.dumps(self.state)
        metadata = {"state": state, "state_sha256": hashlib.sha256(state.encode()).hexdigest()}
        try:
            with beside(path) as part:
                return SnapshotFile(path, TensorFile(part, self.tensors, metadata))
        except OSError as error:
            raise _unwritten(path, error) from None

    def write(self, path: Path) -> None:
        """All of it at once. `RetryError` where the disk is full; the old snapshot stays."""
        self.begin(path).finish()

    @classmethod
    def read(cls, path: Path) -> "Snapshot | None":
        """As it was written; None where it has rotted. OSError, SafetensorError, ValueError, KeyError: there is none, or something else."""
        tensors, metadata = read_tensors(path)
        text = metadata["state"]
        if metadata.get("state_sha256", "") not in ("", hashlib.sha256(text.encode()).hexdigest()):
            return None
        return cls(tensors, from_json(text)) if _checksum(tensors) == metadata["sha256"] else None

    def filled(self, on_disk: OnDisk | None) -> "Snapshot | None":
        """With all that was left out; None where some of it is gone."""
        tensors, state = dict(self.tensors), self.state
        found: dict[str, torch.Tensor | None] = {}
        if "anchor" not in tensors:
            found["anchor"] = on_disk.anchor(_key(state, "anchor_id")) if on_disk else None
        if "unspent" not in tensors and state["unspent"] is not None:
            wires = on_disk.contribution(_key(state, "previous")) if on_disk else None
            found["unspent"] = None if wires is None else from_bytes(wires, torch.uint8)
        if "residual" not in tensors:
            kept = on_disk.state(_key(state, "state_before")) if on_disk else None
            found["residual"] = None if kept is None else kept.residual
            found.update({} if kept is None else {_INNER + name: value for name, value in kept.tensors.items()})
        for name, value in found.items():
            if value is None:
                return None
            tensors[name] = value
        if "live" not in tensors:
            tensors["live"] = torch.empty_like(tensors["anchor"])
            for where, weights in Snapshot(tensors, state)._begun():
                tensors["live"][where] = weights
        return Snapshot(tensors, state)

    def moments(self) -> dict[str, torch.Tensor]:
        return {name[len(_INNER) :]: value for name, value in self.tensors.items() if name.startswith(_INNER)}


@dataclass(frozen=True)
class SnapshotFile:
    """A snapshot on its way to disk."""

    path: Path
    file: TensorFile

    def finish(self) -> None:
        """It takes the old one's place. `RetryError` where the disk is full; the old one stays then."""
        try:
            with replacing(self.path):
                self.file.seal()
        except OSError as error:
            raise _unwritten(self.path, error) from None


def _unwritten(path: Path, error: OSError) -> RetryError:
    return RetryError(f"{path}: the snapshot cannot be written ({error}); {disk_remedy(error)}")


def _key(state: dict[str, Any], name: str) -> Hash:
    return bytes.fromhex(state[name])


def _narrowed(value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """As the narrower type where that loses nothing."""
    if value.dtype != torch.float32:
        return value
    narrow = torch.empty_like(value, dtype=dtype)
    flat, to = value.view(-1), narrow.view(-1)
    for where in part_slices(value.numel(), PIECE_VALUES):
        to[where] = flat[where]
        if not torch.equal(to[where].float(), flat[where]):
            return value
    return narrow


def _checksum(tensors: dict[str, torch.Tensor]) -> str:
    """safetensors has none of its own, and a peer that trains on from rotten moments would fail an audit."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(name.encode() + b"\0")
        digest.update(to_bytes(value))
    return digest.hexdigest()


__all__ = ["OnDisk", "Snapshot", "SnapshotFile"]
