"""Presence: a peer's signed word that it is there, where, and what it has. Pure.

The only kind of record in the DHT. It is bound to its owner's account by a signature over every field, the expiry and the
libp2p identity included, so nobody can forge it, move it to another subkey or make it live longer.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from pydantic_core import from_json

from swarm.errors import PeerFault
from swarm.hashing import canonical_json, keccak256
from swarm.records.types import Account, Hash
from swarm.transport.addresses import MAX_ADDRESSES, addresses_of, is_peer_id

MAX_RECORD_BYTES = 4096
MAX_AHEAD_SECONDS = 600  # no record may claim to hold longer
_MAX_EPOCH = 2**53


@dataclass(frozen=True, slots=True)
class Presence:
    """`addresses` are complete multiaddrs; none: the peer opens every stream. `expires_at`: unix seconds."""

    run_id: Hash
    account: Account
    peer_id: str
    addresses: tuple[str, ...]
    flags: int
    epoch: int
    tip: Hash
    expires_at: int

    def digest(self) -> Hash:
        return keccak256(b"sparehive presence" + canonical_json(self._fields()))

    def _fields(self) -> dict[str, object]:
        return {
            "account": self.account.hex(),
            "addresses": list(self.addresses),
            "epoch": self.epoch,
            "expires_at": self.expires_at,
            "flags": self.flags,
            "peer_id": self.peer_id,
            "run": self.run_id.hex(),
            "tip": self.tip.hex(),
        }

    def encode(self, sign: Callable[[bytes], bytes]) -> bytes:
        """Canonical JSON with the signature; at most `MAX_RECORD_BYTES` for up to `MAX_ADDRESSES` addresses."""
        return canonical_json({**self._fields(), "signature": sign(self.digest()).hex()})


def presence_key(run_id: Hash) -> bytes:
    """What hivemind hashes to the key under which all of a run's peers are found; the subkey is the owner's account."""
    return keccak256(run_id + b"presence")


def decode_presence(value: bytes, run_id: Hash, now: float, recover: Callable[[bytes, bytes], Account]) -> Presence:
    """`PeerFault` names the rule that the record breaks."""
    if len(value) > MAX_RECORD_BYTES:
        raise PeerFault(f"presence: {len(value)} bytes, at most {MAX_RECORD_BYTES}")
    try:
        raw = from_json(value)
        signature = bytes.fromhex(raw.pop("signature"))
        peer_id, addresses = raw["peer_id"], raw["addresses"]
        presence = Presence(
            bytes.fromhex(raw["run"]),
            bytes.fromhex(raw["account"]),
            peer_id,
            tuple(addresses),
            raw["flags"],
            raw["epoch"],
            bytes.fromhex(raw["tip"]),
            raw["expires_at"],
        )
        is_canonical = value == canonical_json({**presence._fields(), "signature": signature.hex()})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise PeerFault("presence: cannot be read") from None
    numbers = (presence.flags, presence.epoch, presence.expires_at)
    if not is_canonical or any(type(n) is not int or not 0 <= n < _MAX_EPOCH for n in numbers):
        raise PeerFault("presence: not in canonical form")
    if presence.run_id != run_id:
        raise PeerFault("presence: of another run")
    if len(presence.account) != 20 or len(presence.tip) != 32 or not is_peer_id(presence.peer_id):
        raise PeerFault("presence: account, tip or peer id malformed")
    if len(addresses) > MAX_ADDRESSES or addresses_of(peer_id, addresses) != presence.addresses:
        raise PeerFault("presence: an address is malformed or of another peer")
    if not now < presence.expires_at <= math.ceil(now) + MAX_AHEAD_SECONDS:
        raise PeerFault("presence: expired, or valid for too long")
    if recover(presence.digest(), signature) != presence.account:
        raise PeerFault("presence: not signed by its account")
    return presence
