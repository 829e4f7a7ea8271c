"""The hashes by which a record commits to content that travels beside it (protocol §2.4, docs/decisions/0002),
and the draw.

Everything here is pure. Packed integers are big-endian. Leaves are keccak(keccak(abi.encode(kind, …))), nodes
keccak(left ‖ right), trees are positional and padded with zero leaves to a power of two; the root of no leaves is zero.
`incentives` computes the same from the published JSON, written separately; a test compares the two.

Lists that must be ascending are checked, not sorted: a list in another order has another hash, and whoever sent it
broke a rule, so `swarm.errors.PeerFault` is raised. So it is for numbers out of range and floats that are not finite.
"""

import math
import struct
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from swarm.errors import PeerFault
from swarm.hashing import canonical_json, keccak256
from swarm.records.types import ZERO_HASH, Account, ContributorLeaf, Hash, Merge, PartLeaf, RoundBody

# Kinds 1 to 3 are the settlement's trees (`incentives.tables`): no leaf of one tree can be shown as one of another.
LEAF_CONTRIBUTOR, LEAF_PART = 4, 5


def contributors_root(leaves: Sequence[ContributorLeaf]) -> Hash:
    """Root over (uint8 4, address peer, bytes32 contribution, uint32 units, uint32 flags), ascending by peer."""
    _ascending("contributors", [leaf.peer for leaf in leaves], 20)
    return _root(
        _leaf(
            _word(LEAF_CONTRIBUTOR, 8, "kind"),
            bytes(12) + leaf.peer,
            _sized("contribution", leaf.contribution, 32),
            _word(leaf.units, 32, "units"),
            _word(leaf.flags, 32, "flags"),
        )
        for leaf in leaves
    )


def parts_root(parts: Sequence[PartLeaf]) -> Hash:
    """Root over (uint8 5, uint32 index, uint32 length, bytes32 sha-256, uint64 bits of the squared norm as fp64)."""
    leaves = []
    for position, part in enumerate(parts):
        if part.index != position:
            raise PeerFault(f"parts[{position}].index = {part.index}: parts are numbered from 0 without gaps")
        leaves.append(
            _leaf(
                _word(LEAF_PART, 8, "kind"),
                _word(part.index, 32, "index"),
                _word(part.length, 32, "length"),
                _sized("digest", part.digest, 32),
                bytes(24) + _fp64(part.squared_norm, "squared_norm"),
            )
        )
    return _root(leaves)


def electorate_hash(accounts: Sequence[Account]) -> Hash:
    """keccak of the packed 20-byte accounts, strictly ascending."""
    _ascending("electorate", accounts, 20)
    return keccak256(b"".join(accounts))


def reducers_hash(accounts: Sequence[Account]) -> Hash:
    """keccak of the packed 20-byte accounts in rank order."""
    if len(set(accounts)) != len(accounts):
        raise PeerFault("reducers: an account is listed twice")
    return keccak256(b"".join(_sized("reducer", account, 20) for account in accounts))


def complete_hash(hashes: Sequence[Hash]) -> Hash:
    """keccak of the packed contribution hashes, strictly ascending."""
    _ascending("complete", hashes, 32)
    return keccak256(b"".join(hashes))


def merges_hash(merges: Sequence[Merge]) -> Hash:
    """keccak of the canonical JSON of [[kind, "0x" + hash, inner step], …] in the order of the merges."""
    rows = [[merge.kind, _hex("merge", merge.hash, 32), _uint("inner_step", merge.inner_step, 53)] for merge in merges]
    return keccak256(canonical_json(rows))


def body_hash(body: RoundBody) -> Hash:
    """keccak of `body_bytes`."""
    return keccak256(body_bytes(body))


def body_bytes(body: RoundBody) -> bytes:
    """Canonical JSON of the body: what is hashed, published and kept in the ledger."""
    return canonical_json(body_value(body))


def body_value(body: RoundBody) -> dict[str, Any]:
    """The body as a JSON value; bytes as lower-case hex with 0x, floats as the 16 hex digits of their fp64 bits."""
    _ascending("contributors", [leaf.peer for leaf in body.contributors], 20)
    _ascending("electorate", body.electorate, 20)
    if len(body.clip_factors) != len(body.contributors):
        raise PeerFault(f"clip_factors has {len(body.clip_factors)} entries for {len(body.contributors)} contributors")
    return {
        "contributors": [
            [
                _hex("peer", leaf.peer, 20),
                _hex("contribution", leaf.contribution, 32),
                _uint("units", leaf.units, 32),
                _uint("flags", leaf.flags, 32),
            ]
            for leaf in body.contributors
        ],
        "reducers": [_hex("reducer", account, 20) for account in body.reducers],
        "averages": [_hex("average", digest, 32) for digest in body.averages],
        "clip_factors": ["0x" + _fp64(factor, "clip_factor").hex() for factor in body.clip_factors],
        "median_norm": "0x" + _fp64(body.median_norm, "median_norm").hex(),
        "electorate": [_hex("electorate", account, 20) for account in body.electorate],
    }


def draw_rank(prev_certificate: Hash, epoch: int, attempt: int, account: Account) -> Hash:
    """keccak(prevCertificate ‖ uint64 epoch ‖ uint32 attempt ‖ account): the smallest is drawn first."""
    packed = _sized("prev_certificate", prev_certificate, 32)
    packed += _uint("epoch", epoch, 64).to_bytes(8, "big") + _uint("attempt", attempt, 32).to_bytes(4, "big")
    return keccak256(packed + _sized("account", account, 20))


def draw_order(prev_certificate: Hash, epoch: int, attempt: int, accounts: Iterable[Account]) -> tuple[Account, ...]:
    """The accounts, each once, in the order in which they are drawn."""
    return tuple(sorted(set(accounts), key=lambda account: draw_rank(prev_certificate, epoch, attempt, account)))


def quorum(num_voters: int) -> int:
    """Signatures that decide among `num_voters`: ⌊2n/3⌋ + 1 from n = 4, a majority below (1 of 1, 2 of 2, 2 of 3)."""
    if num_voters < 1:
        raise ValueError(f"num_voters = {num_voters}: an electorate has at least one voter")
    return 2 * num_voters // 3 + 1 if num_voters >= 4 else num_voters // 2 + 1


def _root(leaves: Iterable[Hash]) -> Hash:
    level = list(leaves)
    if not level:
        return ZERO_HASH
    level += [ZERO_HASH] * ((1 << (len(level) - 1).bit_length()) - len(level))
    while len(level) > 1:
        level = [keccak256(level[i] + level[i + 1]) for i in range(0, len(level), 2)]
    return level[0]


def _leaf(*words: bytes) -> Hash:
    return keccak256(keccak256(b"".join(words)))


def _word(value: int, bits: int, name: str) -> bytes:
    return _uint(name, value, bits).to_bytes(32, "big")


def _uint(name: str, value: int, bits: int) -> int:
    if not 0 <= value < 1 << bits:
        raise PeerFault(f"{name} = {value}: must be a whole number below 2**{bits}")
    return value


def _sized(name: str, value: bytes, length: int) -> bytes:
    if len(value) != length:
        raise PeerFault(f"{name} has {len(value)} bytes: must be {length}")
    return value


def _hex(name: str, value: bytes, length: int) -> str:
    return "0x" + _sized(name, value, length).hex()


def _fp64(value: float, name: str) -> bytes:
    # Negative zero and the many NaNs are refused so that equal numbers have equal bits.
    if not math.isfinite(value) or math.copysign(1.0, value) < 0:
        raise PeerFault(f"{name} = {value}: must be finite and not negative")
    return struct.pack(">d", value)


def _ascending(name: str, values: Sequence[bytes], length: int) -> None:
    for value in values:
        _sized(name, value, length)
    if any(left >= right for left, right in pairwise(values)):
        raise PeerFault(f"{name}: must be strictly ascending, each once")
