"""Whether a Merkle proof holds, as the contract judges it; the product makes proofs and leaves judging to the chain."""

from collections.abc import Sequence

from eth_hash.auto import keccak


def depth_of(count: int) -> int:
    """Levels above the leaves: the length of every proof in a tree of `count` leaves."""
    return (count - 1).bit_length() if count > 0 else 0


def verify(root: bytes, leaf: bytes, index: int, count: int, proof: Sequence[bytes]) -> bool:
    """Whether `leaf` is number `index` of the `count` leaves under `root`. False for any malformed argument."""
    if not 0 <= index < count or len(proof) != depth_of(count) or any(len(node) != 32 for node in proof):
        return False
    if len(leaf) != 32 or len(root) != 32:
        return False
    node = leaf
    for sibling in proof:
        node = keccak(sibling + node) if index & 1 else keccak(node + sibling)
        index >>= 1
    return bool(node == root)
