"""An anchor in memory as blocks by digest, so that it can be handed out without having been written."""

from collections.abc import Iterator

from swarm.checkpoint.anchor import Anchor, anchor_blocks
from swarm.checkpoint.unixfs import CHUNK_BYTES, RAW
from swarm.device import to_bytes
from swarm.records.types import Hash


class HeldAnchor:
    """Blocks of `anchor`: what is inside its two files is cut out when it is asked for, so no value is held twice."""

    def __init__(self, anchor: Anchor) -> None:
        self._header = anchor.layout.header()
        self._files = [to_bytes(anchor.parameters), to_bytes(anchor.momentum)]
        self.num_bytes = 0
        self._blocks: dict[Hash, bytes | tuple[int, int]] = {}  # small ones as they are; else file and number
        self.root: Hash = b""
        chunks = -(-(len(self._header) + self._files[0].nbytes) // CHUNK_BYTES)
        seen = 0
        for block in anchor_blocks(anchor):
            is_of_file = block.codec == RAW and seen < 2 * chunks
            self._blocks[block.digest] = divmod(seen, chunks) if is_of_file else block.data
            seen += is_of_file
            self.num_bytes += len(block.data)
            self.root = block.digest

    def get(self, digest: Hash) -> bytes | None:
        found = self._blocks.get(digest)
        if not isinstance(found, tuple):
            return found
        file, number = found
        start, end = number * CHUNK_BYTES, (number + 1) * CHUNK_BYTES
        cut = len(self._header)
        return self._header[start:end] + bytes(self._files[file][max(0, start - cut) : max(0, end - cut)])

    def has(self, digest: Hash) -> bool:
        return digest in self._blocks

    def digests(self) -> Iterator[Hash]:
        """The root directory last."""
        return iter(self._blocks)


__all__ = ["HeldAnchor"]
