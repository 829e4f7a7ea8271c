"""A file encrypted in chunks, of which each opens by itself (protocol §8.9). Pure: bytes in, bytes out.

XChaCha20-Poly1305 in the STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizár 2015): a chunk's nonce is the file's 19 random bytes,
the chunk's number and whether it is the last. So chunks that are missing, repeated, in another order or of another file do not open.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from Crypto.Cipher import ChaCha20_Poly1305

from incentives.errors import TamperedError

TAG_BYTES, PREFIX_BYTES, KEY_BYTES = 16, 19, 32
CHUNK_BYTES = (1 << 20) - TAG_BYTES  # of plain text: an encrypted chunk is one block of 1 MiB
_LABEL = b"sparehive model 1\0"


@dataclass(frozen=True, slots=True)
class Position:
    """Which file of a publication is meant: its place in the manifest, name, plain bytes, and the 19 random bytes of its nonces."""

    index: int
    name: str
    size: int
    prefix: bytes

    @property
    def num_chunks(self) -> int:
        """One at least, though it be empty."""
        return max(1, -(-self.size // CHUNK_BYTES))

    @property
    def encrypted_size(self) -> int:
        """Bytes."""
        return self.size + TAG_BYTES * self.num_chunks

    def _cipher(self, key: bytes, chunk: int) -> "ChaCha20_Poly1305.ChaCha20Poly1305Cipher":
        is_last = chunk == self.num_chunks - 1
        cipher = ChaCha20_Poly1305.new(key=key, nonce=self.prefix + struct.pack(">IB", chunk, is_last))
        cipher.update(_LABEL + struct.pack(">IQQ", self.index, self.size, chunk) + self.name.encode())
        return cipher

    def encrypt(self, key: bytes, chunk: int, data: bytes) -> bytes:
        """`data`: the chunk's plain bytes. With one key and prefix a chunk may be encrypted once only."""
        encrypted, tag = self._cipher(key, chunk).encrypt_and_digest(data)
        return encrypted + tag

    def decrypt(self, key: bytes, chunk: int, data: bytes) -> bytes:
        """TamperedError: another key, another chunk, another file."""
        try:
            return self._cipher(key, chunk).decrypt_and_verify(data[:-TAG_BYTES], data[-TAG_BYTES:])
        except ValueError:
            raise TamperedError(
                f"{self.name}: chunk {chunk + 1} of {self.num_chunks} does not open: the key is of other weights than were published"
            ) from None


def encrypted_pieces(key: bytes, position: Position, plain: Iterable[bytes]) -> Iterator[bytes]:
    """Chunks of the encrypted file. TamperedError where `plain`, in pieces of any size, is not of the size that was said."""
    chunk, held = 0, bytearray()
    for piece in plain:
        held += piece
        while len(held) >= CHUNK_BYTES and chunk < position.num_chunks - 1:
            yield position.encrypt(key, chunk, bytes(held[:CHUNK_BYTES]))
            del held[:CHUNK_BYTES]
            chunk += 1
    if chunk != position.num_chunks - 1 or chunk * CHUNK_BYTES + len(held) != position.size:
        raise TamperedError(f"{position.name} has changed while it was read: leave it alone and try again")
    yield position.encrypt(key, chunk, bytes(held))


def decrypted_pieces(key: bytes, position: Position, encrypted: Iterable[bytes]) -> Iterator[bytes]:
    """Plain chunks. TamperedError where a chunk does not open, or the file is shorter or longer."""
    chunk, held, whole = 0, bytearray(), CHUNK_BYTES + TAG_BYTES
    for piece in encrypted:
        held += piece
        while len(held) >= whole and chunk < position.num_chunks - 1:
            yield position.decrypt(key, chunk, bytes(held[:whole]))
            del held[:whole]
            chunk += 1
    if chunk != position.num_chunks - 1 or chunk * whole + len(held) != position.encrypted_size:
        raise TamperedError(f"{position.name} is shorter or longer than its manifest says: it was published so")
    yield position.decrypt(key, chunk, bytes(held))


__all__ = [
    "CHUNK_BYTES", "KEY_BYTES", "PREFIX_BYTES", "TAG_BYTES", "Position", "decrypted_pieces", "encrypted_pieces",
]  # fmt: skip
