"""The canonical anchor (protocol §9): the same state has the same bytes on every machine, hence the same root CID.

A UnixFS directory of `parameters.safetensors` and `momentum.safetensors` (fp32, sorted names, a fixed header) and
`manifest.json` (canonical JSON; no signer, time, host or version).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from pydantic_core import from_json

from swarm.checkpoint.unixfs import (
    Block,
    BlockLink,
    decode_node,
    encode_directory,
    file_blocks,
    file_pieces,
    read_file,
)
from swarm.device import to_bytes
from swarm.errors import PeerFault
from swarm.finite import is_finite
from swarm.hashing import canonical_json
from swarm.models.layout import Layout

MAX_MANIFEST_BYTES = 1 << 20


@dataclass(frozen=True)
class Anchor:
    """parameters, momentum: fp32 [P] on the host, never changed in place. `counted_units` and `num_rounds` drive the clocks."""

    parameters: torch.Tensor
    momentum: torch.Tensor
    layout: Layout
    counted_units: int
    num_rounds: int

    def manifest(self) -> bytes:
        return _manifest(self.parameters.numel(), self.counted_units, self.num_rounds)


def _manifest(num_parameters: int, counted_units: int, num_rounds: int) -> bytes:
    value = {
        "counted_units": counted_units,
        "format": 2,
        "num_parameters": num_parameters,
        "num_rounds": num_rounds,
    }
    return canonical_json(value)


def anchor_blocks(anchor: Anchor) -> Iterator[Block]:
    """All blocks, the root directory last; each is made when it is asked for."""
    header = anchor.layout.header()
    entries: list[tuple[str, BlockLink]] = []
    files = (
        ("parameters.safetensors", (header, to_bytes(anchor.parameters))),
        ("momentum.safetensors", (header, to_bytes(anchor.momentum))),
        ("manifest.json", (anchor.manifest(),)),
    )
    for name, pieces in files:
        entries.append((name, (yield from file_blocks(pieces))))
    yield encode_directory(entries)[1]


def anchor_root(anchor: Anchor) -> bytes:
    """Digest of the root CID: what certificates hold as prevRoot and nextRoot."""
    digest = b""
    for block in anchor_blocks(anchor):
        digest = block.digest
    return digest


def read_anchor(root: bytes, get: Callable[[bytes], bytes], layout: Layout) -> Anchor:
    """From verified blocks. `PeerFault` where the content is no anchor of this layout."""
    node = decode_node(get(root))
    files = {link.name: link for link in node.links}
    if not node.is_directory or set(files) != {"parameters.safetensors", "momentum.safetensors", "manifest.json"}:
        raise PeerFault("anchor: the directory has other files than an anchor")
    text = read_file(files["manifest.json"], get, MAX_MANIFEST_BYTES)
    try:
        manifest = from_json(text)
        units, rounds = manifest["counted_units"], manifest["num_rounds"]
        canonical = _manifest(layout.num_values(), units, rounds) == text and min(units, rounds) >= 0
    except (ValueError, KeyError, TypeError, RecursionError):
        raise PeerFault("anchor: the manifest cannot be read") from None
    if not canonical:
        raise PeerFault("anchor: the manifest is not that of an anchor of this run's model")
    parameters, momentum = (
        _read_values(f"{what}.safetensors", files[f"{what}.safetensors"], get, layout)
        for what in ("parameters", "momentum")
    )
    return Anchor(parameters, momentum, layout, units, rounds)


def _read_values(name: str, link: BlockLink, get: Callable[[bytes], bytes], layout: Layout) -> torch.Tensor:
    """fp32 [P], filled block by block."""
    header = layout.header()
    values = torch.empty(layout.num_values())
    into, start, at = to_bytes(values), bytearray(), 0
    for piece in file_pieces(link, get, len(header) + into.nbytes):
        cut = len(header) - len(start)
        start += piece[:cut]
        left = memoryview(piece)[cut:] if cut else piece
        into[at : at + len(left)] = left
        at += len(left)
    if at != into.nbytes or start != header:
        raise PeerFault(f"anchor: {name} is not of this run's model")
    if not is_finite(values):
        raise PeerFault(f"anchor: {name} has values that are not finite")
    return values


__all__ = ["Anchor", "Layout", "anchor_blocks", "anchor_root", "read_anchor"]
