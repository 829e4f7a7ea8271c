"""An anchor in memory as blocks by digest, so that it can be handed out without having been written."""

from collections.abc import Iterator

from swarm.checkpoint.anchor import Anchor, leaf_digests, upper_blocks
from swarm.records.types import Hash


class HeldAnchor:
    """Blocks of `anchor`: what is inside its two files is cut out when it is asked for, so no value is held twice."""

    def __init__(self, anchor: Anchor) -> None:
        self._files, digests = anchor.files(), leaf_digests(anchor)
        self.num_bytes = sum(file.num_bytes for file in self._files)
        self._blocks: dict[Hash, bytes | tuple[int, int]] = {}  # small ones as they are; else file and number
        for which, those in enumerate(digests):
            self._blocks.update((digest, (which, number)) for number, digest in enumerate(those))
        for block in upper_blocks(anchor, digests):
            self._blocks[block.digest] = block.data
            self.num_bytes += len(block.data)
            self.root: Hash = block.digest

    def get(self, digest: Hash) -> bytes | None:
        found = self._blocks.get(digest)
        return self._files[found[0]].chunk(found[1]) if isinstance(found, tuple) else found

    def has(self, digest: Hash) -> bool:
        return digest in self._blocks

    def digests(self) -> Iterator[Hash]:
        """The root directory last."""
        return iter(self._blocks)


__all__ = ["HeldAnchor"]
