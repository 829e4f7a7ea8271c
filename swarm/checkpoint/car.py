"""CAR files of version 1, in which IPFS programs hand on content: a header with the roots, then block after block.

Pure but for the stream. Read strictly: each block has the digest that its CID says. Source: ipld.io/specs/transport/car/carv1.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

from swarm import varint
from swarm.checkpoint.unixfs import DAG_PB, MAX_NODE_BYTES, RAW, Block, cid_bytes, decode_node
from swarm.errors import PeerFault
from swarm.hashing import sha256

MAX_BLOCK_BYTES = MAX_NODE_BYTES
MAX_HEADER_BYTES = 1 << 16
_CID_BYTES = 36
_OF_VERSION_2 = bytes.fromhex("0aa16776657273696f6e02")  # how such a file begins

Root = tuple[bytes, int]  # digest, codec


def car_header(roots: Iterable[Root]) -> bytes:
    """The bytes before the first block: dag-cbor of {"roots": […], "version": 1}, its keys the shorter first, with its length."""
    cids = [b"\xd8\x2a" + _cbor(2, _CID_BYTES + 1) + b"\0" + cid_bytes(*root) for root in roots]
    value = _cbor(5, 2) + _text("roots") + _cbor(4, len(cids)) + b"".join(cids) + _text("version") + _cbor(0, 1)
    return varint.encoded(len(value)) + value


def car_section(block: Block) -> bytes:
    """One block with its CID and their length."""
    return varint.encoded(_CID_BYTES + len(block.data)) + cid_bytes(block.digest, block.codec) + block.data


def car_bytes(root: Root, blocks: Iterable[Block]) -> Iterator[bytes]:
    """A whole file, piece by piece."""
    yield car_header([root])
    for block in blocks:
        yield car_section(block)


def graph_blocks(root: Root, get: Callable[[bytes], bytes]) -> Iterator[Block]:
    """All blocks below `root`, depth first, each once: the order in which who reads a CAR can unpack as it comes. What `get` raises;
    `PeerFault` where a node is none of ours."""
    seen: set[bytes] = set()
    waiting = [root]
    while waiting:
        digest, codec = waiting.pop()
        if digest in seen:
            continue
        seen.add(digest)
        data = get(digest)
        yield Block(digest, codec, data)
        if codec == DAG_PB:
            waiting += [(link.digest, link.codec) for link in reversed(decode_node(data).links)]


class CarReader:
    """Of a stream at its beginning. `roots` are known at once; iterated once, it gives blocks whose digests were checked, in the order of
    the file. `PeerFault` for anything that is no CAR of version 1 with CIDv1, sha2-256, raw or dag-pb, blocks of at most 2 MiB."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._at = 0
        size = self._varint()
        if size is None:
            raise PeerFault("car: it is empty")
        if not 0 < size <= MAX_HEADER_BYTES:
            raise PeerFault("car: it does not begin as a CAR")
        header = self._read(size)
        if varint.encoded(size) + header == _OF_VERSION_2:
            raise PeerFault("car: it is of version 2; write one of version 1, as `ipfs dag export` does")
        self.roots = _roots(header)

    def __iter__(self) -> Iterator[Block]:
        for block, _ in self.placed():
            yield block

    def placed(self) -> Iterator[tuple[Block, int]]:
        """The same, each with the offset at which its bytes begin in the stream."""
        while (size := self._varint()) is not None:
            if not _CID_BYTES <= size <= _CID_BYTES + MAX_BLOCK_BYTES:
                raise PeerFault(
                    f"car: a section of {size} bytes at byte {self._at}; blocks have at most {MAX_BLOCK_BYTES}"
                )
            cid = self._read(_CID_BYTES)
            digest, codec = _parse_cid(cid)
            begin = self._at
            data = self._read(size - _CID_BYTES)
            if sha256(data) != digest:
                raise PeerFault(f"car: the block at byte {begin} is not the one that its CID names")
            yield Block(digest, codec, data), begin

    def _read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._at += len(data)
        if len(data) != size:
            raise PeerFault(f"car: it is cut off at byte {self._at}")
        return data

    def _varint(self) -> int | None:
        """None at the end of the file."""
        read = bytearray()
        while not read or read[-1] & 0x80:
            byte = self._stream.read(1)
            if not byte and not read:
                return None
            if not byte or len(read) == 9:
                raise PeerFault(f"car: it is cut off, or no CAR, at byte {self._at}")
            read += byte
            self._at += 1
        return varint.decoded(bytes(read), 0)[0]


def _cbor(kind: int, value: int) -> bytes:
    """The head of an item in its shortest form, of at most 16 bits."""
    if value < 24:
        return bytes((kind << 5 | value,))
    if value < 256:
        return bytes((kind << 5 | 24, value))
    return bytes((kind << 5 | 25,)) + value.to_bytes(2, "big")


def _text(word: str) -> bytes:
    return _cbor(3, len(word)) + word.encode()


def _roots(header: bytes) -> tuple[Root, ...]:
    """Strict: what `car_header` writes, and nothing else."""
    begin, cid_head = _cbor(5, 2) + _text("roots"), b"\xd8\x2a" + _cbor(2, _CID_BYTES + 1) + b"\0"
    found = []
    at = header.find(cid_head)
    while at >= 0 and header[at : at + len(cid_head)] == cid_head:
        at += len(cid_head)
        cid = header[at : at + _CID_BYTES]
        if len(cid) != _CID_BYTES:
            break
        found.append(_parse_cid(cid))
        at += _CID_BYTES
    if not found or header != car_header(found)[-len(header) :] or not header.startswith(begin):
        raise PeerFault("car: its header is none of version 1 with roots of CIDv1 and sha2-256")
    return tuple(found)


def _parse_cid(cid: bytes) -> Root:
    if cid[:2] == b"\x12\x20":
        raise PeerFault(
            "car: it has CIDs of version 0; add the content with `ipfs add --cid-version 1` and export it again"
        )
    if cid[0] != 1 or cid[1] not in (RAW, DAG_PB) or cid[2:4] != b"\x12\x20":
        raise PeerFault("car: a CID that is not of version 1 with sha2-256, raw or dag-pb")
    return cid[4:], cid[1]


__all__ = ["MAX_BLOCK_BYTES", "CarReader", "car_bytes", "car_header", "car_section", "graph_blocks"]
