"""Positional Merkle trees (protocol §2.4, docs/decisions/0002).

Leaves stand in the order given and are padded with zeros to a power of two; node = keccak(left ‖ right); leaf =
keccak(keccak(abi.encode(kind, …))), hashed twice so that no node can be shown as a leaf (second preimage). A proof is
checked against index and count, so that order, neighbours and absence can be proved too, which sorted pairs cannot.
"""

from collections.abc import Sequence

from incentives.errors import InputError
from incentives.hashing import keccak

EMPTY = bytes(32)  # a padding leaf, and the root of no leaves


class Tree:
    """All levels of one tree, so that every proof is a look-up. Build with `build`."""

    def __init__(self, levels: list[list[bytes]], paddings: list[bytes]) -> None:
        self._levels, self._paddings = levels, paddings

    @property
    def root(self) -> bytes:
        return self._levels[-1][0] if self._levels[-1] else EMPTY

    @property
    def count(self) -> int:
        """Leaves, without the padding."""
        return len(self._levels[0])

    def proof(self, index: int) -> tuple[bytes, ...]:
        """Siblings from the leaf up; InputError where there is no such leaf."""
        if not 0 <= index < self.count:
            raise InputError("index", index, f"must be below the number of leaves, {self.count}")
        siblings = []
        for level, padding in zip(self._levels[:-1], self._paddings, strict=False):
            sibling = index ^ 1
            siblings.append(level[sibling] if sibling < len(level) else padding)
            index >>= 1
        return tuple(siblings)


def build(leaves: Sequence[bytes]) -> Tree:
    """The padding is not stored: whole subtrees of it have one known hash per level."""
    level = list(leaves)
    for index, leaf in enumerate(level):
        if len(leaf) != 32:
            raise InputError(f"leaves[{index}]", leaf, "must be 32 bytes")
    levels, paddings, padding = [level], [], EMPTY
    while len(level) > 1:
        if len(level) % 2:
            level = [*level, padding]
        paddings.append(padding)
        level = [keccak(level[i] + level[i + 1]) for i in range(0, len(level), 2)]
        levels.append(level)
        padding = keccak(padding + padding)
    return Tree(levels, paddings)


def hash_words(words: bytes) -> bytes:
    """The leaf whose abi.encode is `words` (`incentives.records.packer` makes it)."""
    return bytes(keccak(keccak(words)))
