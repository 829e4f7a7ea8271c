"""The canonical anchor (protocol §9): the same state has the same bytes on every machine, hence the same root CID.

A UnixFS directory of `parameters.safetensors` and `momentum.safetensors` (fp32, sorted names, a fixed header) and
`manifest.json` (canonical JSON; no signer, time, host or version).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from pydantic_core import from_json

from swarm.checkpoint.unixfs import (
    CHUNK_BYTES,
    RAW,
    Block,
    BlockLink,
    decode_node,
    encode_directory,
    encode_file,
    file_nodes,
    file_pieces,
    leaf_link,
    read_file,
)
from swarm.device import to_bytes
from swarm.errors import PeerFault
from swarm.finite import is_finite
from swarm.hashing import canonical_json, sha256
from swarm.models.layout import Layout

MAX_MANIFEST_BYTES = 1 << 20


class ValuesFile:
    """One of an anchor's two files, in chunks, none of which is held: a fixed header, then fp32 values."""

    def __init__(self, layout: Layout, values: torch.Tensor) -> None:
        """`values`: fp32 [P] on the host, looked at when a chunk is asked for."""
        self._header, self._values = layout.header(), to_bytes(values)
        self.num_bytes = len(self._header) + self._values.nbytes
        self.num_chunks = -(-self.num_bytes // CHUNK_BYTES)

    def chunk(self, number: int) -> bytes:
        """All of `CHUNK_BYTES`, but for the last one."""
        start, end, cut = number * CHUNK_BYTES, (number + 1) * CHUNK_BYTES, len(self._header)
        return self._header[start:end] + bytes(self._values[max(0, start - cut) : max(0, end - cut)])

    def digest(self, number: int) -> bytes:
        """SHA-256 of that chunk."""
        start, end, cut = number * CHUNK_BYTES, (number + 1) * CHUNK_BYTES, len(self._header)
        return sha256(self.chunk(number) if start < cut else self._values[start - cut : end - cut])

    def chunks_of(self, values: slice) -> range:
        """Numbers of the chunks that hold some of these values; the header's are of the first value."""
        first = 0 if values.start == 0 else len(self._header) + 4 * values.start
        return range(first // CHUNK_BYTES, (len(self._header) + 4 * values.stop - 1) // CHUNK_BYTES + 1)

    def links(self, digests: tuple[bytes, ...]) -> list[BlockLink]:
        """Of all its chunks, whose digests these are."""
        last = self.num_bytes - (self.num_chunks - 1) * CHUNK_BYTES
        return [leaf_link(d, CHUNK_BYTES) for d in digests[:-1]] + [leaf_link(digests[-1], last)]


@dataclass(frozen=True)
class Anchor:
    """parameters, momentum: fp32 [P] on the host, never changed in place. `counted_units` and `num_rounds` drive the clocks.
    `hashed`: digests of all chunks of the two files, where whoever made it has hashed them."""

    parameters: torch.Tensor
    momentum: torch.Tensor
    layout: Layout
    counted_units: int
    num_rounds: int
    hashed: tuple[tuple[bytes, ...], tuple[bytes, ...]] | None = field(default=None, compare=False, repr=False)

    def files(self) -> tuple[ValuesFile, ValuesFile]:
        """parameters.safetensors and momentum.safetensors."""
        return ValuesFile(self.layout, self.parameters), ValuesFile(self.layout, self.momentum)

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
    digests = leaf_digests(anchor)
    for file, those in zip(anchor.files(), digests, strict=True):
        yield from (Block(digest, RAW, file.chunk(number)) for number, digest in enumerate(those))
    yield from upper_blocks(anchor, digests)


def upper_blocks(anchor: Anchor, digests: tuple[tuple[bytes, ...], tuple[bytes, ...]]) -> Iterator[Block]:
    """What is above the chunks of its two files, whose digests these are: nodes, the manifest, the root directory last."""
    entries: list[tuple[str, BlockLink]] = []
    for name, file, those in zip(("parameters", "momentum"), anchor.files(), digests, strict=True):
        entries.append((f"{name}.safetensors", (yield from file_nodes(file.links(those)))))
    link, blocks = encode_file(anchor.manifest())
    yield from blocks
    yield encode_directory([*entries, ("manifest.json", link)])[1]


def leaf_digests(anchor: Anchor) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Of the chunks of its two files."""
    if anchor.hashed is not None:
        return anchor.hashed
    first, second = (tuple(map(file.digest, range(file.num_chunks))) for file in anchor.files())
    return first, second


def anchor_root(anchor: Anchor) -> bytes:
    """Digest of the root CID: what certificates hold as prevRoot and nextRoot."""
    digest = b""
    for block in upper_blocks(anchor, leaf_digests(anchor)):
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


__all__ = [
    "Anchor",
    "Layout",
    "ValuesFile",
    "anchor_blocks",
    "anchor_root",
    "leaf_digests",
    "read_anchor",
    "upper_blocks",
]
