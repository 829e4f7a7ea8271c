"""The libp2p identity as the chain knows it: PeerBinding's `netId`, without starting hivemind."""

import hashlib
from pathlib import Path

from incentives.hashing import keccak
from swarm import varint

UNKNOWN = bytes(32)
_RSA_PRIVATE = b"\x08\x00\x12"  # protobuf of libp2p's keys: field 1, type RSA; field 2, the key


def net_id_of(identity: Path) -> bytes:
    """keccak-256 of the libp2p peer id (its multihash) of a hivemind identity file.

    Zeros where the file is missing or no RSA key, or on a machine without `cryptography`, which hivemind brings: the
    binding counts without it, it only cannot be compared with the peer's address in the swarm."""
    peer_id = peer_id_of(identity)
    return UNKNOWN if peer_id is None else bytes(keccak(peer_id))


def peer_id_of(identity: Path) -> bytes | None:
    """sha2-256 multihash of the public key's protobuf (https://github.com/libp2p/specs/blob/master/peer-ids)."""
    try:
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_private_key

        data = identity.read_bytes()
        if not data.startswith(_RSA_PRIVATE):
            return None
        length, start = varint.decoded(data, len(_RSA_PRIVATE))
        private = load_der_private_key(data[start : start + length], password=None)
        public = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (OSError, ValueError, ModuleNotFoundError):
        return None
    message = _RSA_PRIVATE + varint.encoded(len(public)) + public
    return b"\x12\x20" + hashlib.sha256(message).digest()
