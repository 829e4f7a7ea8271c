"""UnixFS files and directories as the IPFS world has them: CIDv1, sha2-256, raw leaves, 1 MiB chunks, width 1024.

Pure: bytes in, blocks out. Roots are those of the JavaScript importer with the same parameters (tests/vectors/unixfs.json).
A block is known by its sha-256 digest (the CID's multihash); its codec is raw (0x55) or dag-pb (0x70).
Sources: github.com/ipfs/specs UNIXFS.md, ipld.io dag-pb.
"""

import base64
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass

from swarm import varint
from swarm.errors import PeerFault
from swarm.hashing import sha256

CHUNK_BYTES = 1 << 20
WIDTH = 1024
RAW, DAG_PB = 0x55, 0x70
MAX_DEPTH = 8
MAX_NODE_BYTES = 2 << 20
_FILE, _DIRECTORY = 2, 1


@dataclass(frozen=True, slots=True)
class Block:
    digest: bytes
    codec: int
    data: bytes


@dataclass(frozen=True, slots=True)
class BlockLink:
    """A dag-pb link. `total` is the cumulative size (Tsize), `size` the file bytes below (files only)."""

    name: str
    digest: bytes
    codec: int
    total: int


@dataclass(frozen=True, slots=True)
class BlockNode:
    """A decoded dag-pb UnixFS node."""

    is_directory: bool
    links: tuple[BlockLink, ...]
    sizes: tuple[int, ...]  # file bytes below each link
    file_size: int


def cid_bytes(digest: bytes, codec: int) -> bytes:
    """Binary CIDv1."""
    return bytes((1, codec, 0x12, 32)) + digest


def cid_text(digest: bytes, codec: int = DAG_PB) -> str:
    """CIDv1 as people and gateways write it, in base32."""
    return "b" + base64.b32encode(cid_bytes(digest, codec)).decode().lower().rstrip("=")


def parse_any_cid(text: str) -> tuple[bytes, int]:
    """Digest and codec that a CIDv1 in base32 names, with or without ipfs:// before it. ValueError where it is none of ours."""
    cid = text.removeprefix("ipfs://").rstrip("/")
    if cid[:2] == "Qm":
        raise ValueError(
            "is a CID of version 0, whose blocks have another form: add the content with `ipfs add --cid-version 1`"
        )
    try:
        data = base64.b32decode(cid[1:].upper() + "=" * (-len(cid[1:]) % 8)) if cid[:1] == "b" else b""
    except ValueError:  # binascii's is one
        data = b""
    is_one = len(data) == 36 and data[1] in (RAW, DAG_PB) and data[:4] == cid_bytes(b"", data[1])
    if not is_one or cid_text(data[4:], data[1]) != cid:
        raise ValueError("is no CIDv1 with sha2-256: b and 58 letters and digits")
    return data[4:], data[1]


def parse_cid(text: str) -> bytes:
    """Digest of the root of a directory, as `parse_any_cid`."""
    digest, codec = parse_any_cid(text)
    if codec != DAG_PB:
        raise ValueError("is no CIDv1 of a directory: b and 58 letters and digits")
    return digest


def _dag_pb(links: Sequence[BlockLink], data: bytes) -> bytes:
    out = bytearray()
    for link in links:
        body = (
            varint.field(1, cid_bytes(link.digest, link.codec))
            + varint.field(2, link.name.encode())
            + varint.integer(3, link.total)
        )
        out += varint.field(2, body)
    return bytes(out) + varint.field(1, data)


def file_blocks(
    pieces: Iterable[bytes | memoryview], chunk: int = CHUNK_BYTES, width: int = WIDTH
) -> Generator[Block, None, BlockLink]:
    """All blocks of the file that `pieces` are one after the other, leaves first, one at a time; returns the root link (name empty).
    One chunk or less: the root is the raw leaf itself."""
    leaves: list[BlockLink] = []
    for piece in _chunks(pieces, chunk):
        block = Block(sha256(piece), RAW, piece)
        leaves.append(leaf_link(block.digest, len(piece)))
        yield block
    return (yield from file_nodes(leaves, width))


def leaf_link(digest: bytes, size: int) -> BlockLink:
    """To a raw leaf of `size` bytes."""
    return BlockLink("", digest, RAW, size)


def file_nodes(leaves: Sequence[BlockLink], width: int = WIDTH) -> Generator[Block, None, BlockLink]:
    """The blocks above a file's leaves, the root last, and its link: for who knows the leaves' digests already."""
    level = [(link, link.total) for link in leaves]
    while len(level) > 1:
        above: list[tuple[BlockLink, int]] = []
        for start in range(0, len(level), width):
            group = level[start : start + width]
            size = sum(s for _, s in group)
            unixfs = (
                varint.integer(1, _FILE) + varint.integer(3, size) + b"".join(varint.integer(4, s) for _, s in group)
            )
            node = _dag_pb([link for link, _ in group], unixfs)
            block = Block(sha256(node), DAG_PB, node)
            above.append((BlockLink("", block.digest, DAG_PB, len(node) + sum(link.total for link, _ in group)), size))
            yield block
        level = above
    return level[0][0]


def _chunks(pieces: Iterable[bytes | memoryview], size: int) -> Iterator[bytes]:
    """Of `size` bytes, the last one of what is left; one at least, though it be empty."""
    begun, is_empty = b"", True
    for piece in pieces:
        view, at = memoryview(piece), 0
        while at < len(view):
            part = bytes(view[at : at + size - len(begun)])
            at += len(part)
            begun = begun + part if begun else part
            if len(begun) == size:
                yield begun
                begun, is_empty = b"", False
    if begun or is_empty:
        yield begun


def encode_file(
    data: bytes | memoryview, chunk: int = CHUNK_BYTES, width: int = WIDTH
) -> tuple[BlockLink, Iterator[Block]]:
    """Root link and all blocks, as `file_blocks`, of a file that is small beside the memory."""
    blocks: list[Block] = []
    making = file_blocks((data,), chunk, width)
    while True:
        try:
            blocks.append(next(making))
        except StopIteration as end:
            return end.value, iter(blocks)


def encode_directory(entries: Sequence[tuple[str, BlockLink]]) -> tuple[BlockLink, Block]:
    """A flat directory of (name, root link of a file or directory); names sorted by their bytes."""
    ordered = sorted(entries, key=lambda entry: entry[0].encode())
    links = [BlockLink(name, link.digest, link.codec, link.total) for name, link in ordered]
    node = _dag_pb(links, varint.integer(1, _DIRECTORY))
    block = Block(sha256(node), DAG_PB, node)
    return BlockLink("", block.digest, DAG_PB, len(node) + sum(link.total for link in links)), block


# -- strict decoding ----------------------------------------------------------------------------------------------------
def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    try:
        yield from varint.fields(data)
    except ValueError as error:
        raise PeerFault(f"block: {error}") from None


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise PeerFault("block: bytes expected")
    return value


def _integer(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise PeerFault("block: an integer expected")
    return value


def _decode_link(data: bytes) -> BlockLink:
    cid, name, total = b"", "", 0
    for number, value in _fields(data):
        if number == 1:
            cid = _bytes(value)
        elif number == 2:
            try:
                name = _bytes(value).decode()
            except UnicodeDecodeError:
                raise PeerFault("block: a name that is not UTF-8") from None
        elif number == 3:
            total = _integer(value)
    if len(cid) != 36 or cid[0] != 1 or cid[1] not in (RAW, DAG_PB) or cid[2:4] != b"\x12\x20":
        raise PeerFault("block: a link that is not a CIDv1 with sha2-256")
    return BlockLink(name, cid[4:], cid[1], total)


def decode_node(data: bytes) -> BlockNode:
    """Strict: `PeerFault` for anything `encode_*` would not have written in kind."""
    if len(data) > MAX_NODE_BYTES:
        raise PeerFault(f"block: a node of {len(data)} bytes; at most {MAX_NODE_BYTES}")
    links: list[BlockLink] = []
    inner = b""
    for number, value in _fields(data):
        if number == 2:
            links.append(_decode_link(_bytes(value)))
        elif number == 1:
            inner = _bytes(value)
    kind, file_size, sizes = -1, 0, []
    for number, value in _fields(inner):
        if number == 1:
            kind = _integer(value)
        elif number == 3:
            file_size = _integer(value)
        elif number == 4:
            sizes.append(_integer(value))
    if kind not in (_FILE, _DIRECTORY):
        raise PeerFault("block: neither a file nor a directory")
    if kind == _FILE and (len(sizes) != len(links) or sum(sizes) != file_size):
        raise PeerFault("block: sizes of a file do not add up")
    if kind == _DIRECTORY and len({link.name for link in links}) != len(links):
        raise PeerFault("block: a directory with a name twice")
    return BlockNode(kind == _DIRECTORY, tuple(links), tuple(sizes), file_size)


def read_file(link: BlockLink, get: Callable[[bytes], bytes], max_bytes: int) -> bytes:
    """The bytes of a file from verified blocks. `PeerFault` where the graph lies about sizes or is too deep or large."""
    return b"".join(file_pieces(link, get, max_bytes))


def file_pieces(link: BlockLink, get: Callable[[bytes], bytes], max_bytes: int) -> Iterator[bytes]:
    """The same, one leaf after the other: a fault may come after good pieces."""
    taken = 0

    def walk(digest: bytes, codec: int, depth: int, expected: int | None) -> Iterator[bytes]:
        nonlocal taken
        if depth > MAX_DEPTH:
            raise PeerFault("file: deeper than any honest one")
        begin = taken
        data = get(digest)
        if codec == RAW:
            taken += len(data)
            if taken <= max_bytes:
                yield data
        else:
            node = decode_node(data)
            if node.is_directory or node.file_size > max_bytes:
                raise PeerFault("file: a directory, or larger than allowed")
            for child, size in zip(node.links, node.sizes, strict=True):
                yield from walk(child.digest, child.codec, depth + 1, size)
        if taken > max_bytes:
            raise PeerFault(f"file: more than {max_bytes} bytes")
        if expected is not None and taken - begin != expected:
            raise PeerFault("file: a size in it is a lie")

    yield from walk(link.digest, link.codec, 0, None)
