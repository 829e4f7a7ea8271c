"""keccak-256, as the EVM has it."""

from eth_hash.backends import pysha3
from eth_hash.main import Keccak256

# Named, for eth_hash.auto takes pycryptodome where that is installed, too: 6 us a digest of 64 bytes instead of 1, nine times a receipt.
keccak = Keccak256(pysha3.backend)

__all__ = ["keccak"]
