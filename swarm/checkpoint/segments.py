"""A tree over the 1 KiB segments of content, by which who stores it shows that it has a piece of it (protocol §14).

It is the tree of RFC 9162, section 2.1 with SHA-256: leaf = sha256(0x00 ‖ segment), node = sha256(0x01 ‖ left ‖ right), a last odd node
goes up as it is. The *segments root* commits to the length too: sha256(0x02 ‖ uint64 bytes ‖ top). Only the last segment may be shorter,
and it is not filled up. Content is bytes: of a folder its files one after the other, in `content_order`. A path in UnixFS would be up to
a MiB.

Pure. `incentives.storage` and `contracts/src/SegmentTree.sol` check paths too, each written apart; tests/vectors/segments.json has all
three. A storer keeps 32 bytes per MiB (`SegmentTree.groups`) and reads one MiB for a proof.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from swarm.errors import InputError

SEGMENT_BYTES = 1024
GROUP_SEGMENTS = 1024
GROUP_BYTES = SEGMENT_BYTES * GROUP_SEGMENTS  # what a proof reads
MAX_CONTENT_BYTES = 2**53 - 1
_LEAF, _NODE, _ROOT = b"\0", b"\1", b"\2"


def content_order(paths: Iterable[str]) -> list[str]:
    """Paths with forward slashes as content has them: as walked through folders whose names ascend by their bytes."""
    return sorted(paths, key=lambda path: path.encode().split(b"/"))


def num_segments(num_bytes: int) -> int:
    """Of content of so many bytes."""
    return -(-num_bytes // SEGMENT_BYTES)


def segment_bytes(num_bytes: int, index: int) -> int:
    """Length of segment number `index` of content of `num_bytes`."""
    return min(SEGMENT_BYTES, num_bytes - SEGMENT_BYTES * index)


def path_length(num_bytes: int, index: int) -> int:
    """How many hashes lead from segment number `index` of content of `num_bytes` to the top."""
    length, last = 0, num_segments(num_bytes) - 1
    while last:
        length += index & 1 or index < last
        index, last = index >> 1, last >> 1
    return length


def segments_root(pieces: Iterable[bytes | memoryview]) -> tuple[bytes, int]:
    """Segments root (32 bytes) and bytes of the content that `pieces` are one after the other, of whatever lengths; memory is that of one
    MiB and one piece. InputError where there are no bytes."""
    size = 0

    def heads() -> Iterator[bytes]:
        nonlocal size
        for group in _groups(pieces):
            size += len(group)
            yield _group_head(group)

    top = _fold(heads())
    if top is None:
        raise InputError("content", "0 bytes", "has nothing that could be stored; leave it out")
    return _root(size, top), size


@dataclass(frozen=True, slots=True)
class SegmentTree:
    """What paths are made of. `groups`: 32 bytes per MiB of the content, the head of the tree below it."""

    num_bytes: int
    groups: bytes

    @classmethod
    def of(cls, pieces: Iterable[bytes | memoryview]) -> "SegmentTree":
        """Read once, as `segments_root`."""
        size, heads = 0, bytearray()
        for group in _groups(pieces):
            size += len(group)
            heads += _group_head(group)
        if not size:
            raise InputError("content", "0 bytes", "has nothing that could be stored; leave it out")
        return cls(size, bytes(heads))

    @property
    def root(self) -> bytes:
        """The segments root: 32 bytes."""
        top = _fold(self._heads())
        assert top is not None
        return _root(self.num_bytes, top)

    def group_of(self, index: int) -> tuple[int, int]:
        """Offset and length, in bytes of the content, of what `prove` has to be given for a segment."""
        start = index // GROUP_SEGMENTS * GROUP_BYTES
        return start, min(GROUP_BYTES, self.num_bytes - start)

    def prove(self, index: int, group: bytes) -> tuple[bytes, tuple[bytes, ...]]:
        """Segment number `index` and its path, the sibling of the leaf first. `group`: the content's bytes at `group_of(index)`.
        ValueError where they are not those that the tree was made of: they rotted, fetch them again."""
        if not 0 <= index < num_segments(self.num_bytes):
            raise ValueError(f"segment {index}: the content has {num_segments(self.num_bytes)}")
        number, at = divmod(index, GROUP_SEGMENTS)
        heads = list(self._heads())
        leaves = list(_leaves(group))
        if len(group) != self.group_of(index)[1] or _fold(iter(leaves)) != heads[number]:
            raise ValueError(f"bytes from {number * GROUP_BYTES} on are not those that the tree was made of")
        segment = group[at * SEGMENT_BYTES : (at + 1) * SEGMENT_BYTES]
        return segment, (*_path(leaves, at), *_path(heads, number))

    def _heads(self) -> Iterator[bytes]:
        return (self.groups[at : at + 32] for at in range(0, len(self.groups), 32))


def verify(root: bytes, num_bytes: int, index: int, segment: bytes, path: Sequence[bytes]) -> bool:
    """Whether `segment` is number `index` of the content of `num_bytes` under the segments root."""
    if not 0 < num_bytes <= MAX_CONTENT_BYTES or not 0 <= index < num_segments(num_bytes):
        return False
    if len(segment) != segment_bytes(num_bytes, index) or any(len(each) != 32 for each in path):
        return False
    node, last, used = _sha256(_LEAF + segment), num_segments(num_bytes) - 1, 0
    while last:
        if index & 1 or index < last:
            if used == len(path):
                return False
            node = _node(path[used], node) if index & 1 else _node(node, path[used])
            used += 1
        index, last = index >> 1, last >> 1
    return used == len(path) and _root(num_bytes, node) == root


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return _sha256(_NODE + left + right)


def _root(num_bytes: int, top: bytes) -> bytes:
    return _sha256(_ROOT + num_bytes.to_bytes(8, "big") + top)


def _groups(pieces: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """The same bytes, a MiB at a time; the last has what is left."""
    held = bytearray()
    for piece in pieces:
        view = memoryview(piece)
        while view:
            room = GROUP_BYTES - len(held)
            held += view[:room]
            view = view[room:]
            if len(held) == GROUP_BYTES:
                yield bytes(held)
                held.clear()
    if held:
        yield bytes(held)


def _leaves(group: bytes) -> Iterator[bytes]:
    return (_sha256(_LEAF + group[at : at + SEGMENT_BYTES]) for at in range(0, len(group), SEGMENT_BYTES))


def _group_head(group: bytes) -> bytes:
    head = _fold(_leaves(group))
    assert head is not None
    return head


def _fold(hashes: Iterator[bytes]) -> bytes | None:
    """The head of the tree over them, holding one hash per level; None where there are none."""
    stack: list[bytes] = []
    for number, node in enumerate(hashes):
        while number & 1:
            node, number = _node(stack.pop(), node), number >> 1
        stack.append(node)
    while len(stack) > 1:
        right = stack.pop()
        stack.append(_node(stack.pop(), right))
    return stack[0] if stack else None


def _path(level: list[bytes], index: int) -> Iterator[bytes]:
    while len(level) > 1:
        if index ^ 1 < len(level):
            yield level[index ^ 1]
        odd = level[-1:] if len(level) & 1 else []
        level = [_node(level[at], level[at + 1]) for at in range(0, len(level) - 1, 2)] + odd
        index >>= 1


__all__ = [
    "GROUP_BYTES",
    "MAX_CONTENT_BYTES",
    "SEGMENT_BYTES",
    "SegmentTree",
    "content_order",
    "num_segments",
    "path_length",
    "segment_bytes",
    "segments_root",
    "verify",
]
