"""Shares of a model's content key: split, sealed to a buyer, opened, and shown to be wrong (protocol §8.8). Pure.

The curve is alt_bn128 (EIP-196), which the contract ModelLicense computes on, too. Points are (x, y), scalars whole numbers
below ORDER. A scalar's point is the scalar times the generator.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eth_abi.abi import encode
from py_ecc.fields import optimized_bn128_FQ as FQ
from py_ecc.optimized_bn128.optimized_curve import G1, Z1, add, curve_order, is_on_curve, multiply, normalize
from py_ecc.optimized_bn128.optimized_curve import b as _B

from incentives.errors import InputError
from incentives.hashing import keccak

ORDER = int(curve_order)
Point = tuple[int, int]


@dataclass(frozen=True, slots=True)
class SealedShare:
    """As a key holder puts it on chain: `ephemeral` = r × generator, `sealed_share` = share + hash(r × buyer's key)."""

    ephemeral: Point
    sealed_share: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """That `shared` is what the buyer's secret makes of a delivery's `ephemeral`: whoever has it can open that share."""

    key: Point
    sealed: SealedShare
    shared: Point
    challenge: int
    response: int

    def arguments(self) -> tuple[object, ...]:
        """As the contract takes it."""
        return (
            self.key, self.sealed.ephemeral, self.sealed.sealed_share, self.shared, self.challenge, self.response,
        )  # fmt: skip


def new_scalar() -> int:
    """A secret that nobody can guess."""
    return 1 + secrets.randbelow(ORDER - 1)


def point_of(scalar: int) -> Point:
    """InputError where it is no scalar, or the one of infinity."""
    return _times((1, 2), _checked("scalar", scalar))


def content_key(secret: int) -> bytes:
    """The 32 bytes that weights are encrypted with."""
    return bytes(keccak(_checked("secret", secret).to_bytes(32, "big")))


def split(secret: int, threshold: int, count: int) -> list[int]:
    """Shares of holders 0, 1, …: any `threshold` of them make the secret, fewer say nothing of it. InputError: numbers that do not fit."""
    if not 1 <= threshold <= count <= 16:
        raise InputError(
            "threshold", threshold, f"must be from 1 to the number of holders ({count}), which are 16 at most"
        )
    polynomial = [_checked("secret", secret), *(new_scalar() for _ in range(threshold - 1))]
    return [sum(c * pow(at, power, ORDER) for power, c in enumerate(polynomial)) % ORDER for at in range(1, count + 1)]


def combine(shares: Mapping[int, int]) -> int:
    """The secret, of as many shares as its threshold, by holder. Fewer, or a wrong one, give another number."""
    return sum(share * weight for share, weight in zip(shares.values(), _weights(list(shares), 0), strict=True)) % ORDER


def is_consistent(commitments: Sequence[Point], threshold: int) -> bool:
    """Whether the shares behind them lie on one polynomial, so that any `threshold` make the same secret. To be asked before buying."""
    chosen = list(range(threshold))
    for holder in range(threshold, len(commitments)):
        found = Z1
        for index, weight in zip(chosen, _weights(chosen, holder + 1), strict=True):
            found = add(found, multiply(_inner(commitments[index]), weight))
        if _outer(found) != commitments[holder]:
            return False
    return True


def seal(share: int, key: Point, nonce: int) -> SealedShare:
    """`nonce`: a new scalar each time; who knows it, or the key's secret, can open it. InputError: no point of the curve."""
    shared = _times(key, _checked("nonce", nonce))
    return SealedShare(point_of(nonce), (share + _mask(shared)) % ORDER)


def open_share(sealed: SealedShare, secret: int) -> int:
    """By the secret of the key that it was sealed to."""
    return (sealed.sealed_share - _mask(_times(sealed.ephemeral, secret))) % ORDER


def show(sealed: SealedShare, secret: int, model: bytes, licensee: bytes) -> Evidence:
    """What lets the contract open a share, and see itself whether it is wrong (Chaum and Pedersen 1992). Only of a share
    that is wrong: it tells everybody what was in it."""
    key, shared, nonce = point_of(secret), _times(sealed.ephemeral, secret), new_scalar()
    first, second = point_of(nonce), _times(sealed.ephemeral, nonce)
    types = ["bytes32", "address", *("(uint256,uint256)",) * 5]
    hashed = keccak(encode(types, [model, licensee, key, sealed.ephemeral, shared, first, second]))
    challenge = int.from_bytes(hashed) % ORDER
    return Evidence(key, sealed, shared, challenge, (nonce - challenge * secret) % ORDER)


def _weights(holders: Sequence[int], at: int) -> list[int]:
    """Of Lagrange: what each holder's share counts in the polynomial's value at `at`."""
    weights = []
    for one in holders:
        weight = 1
        for other in holders:
            if other != one:
                weight = weight * (at - other - 1) * pow(one - other, -1, ORDER) % ORDER
        weights.append(weight)
    return weights


def _mask(shared: Point) -> int:
    return int.from_bytes(keccak(b"".join(value.to_bytes(32, "big") for value in shared))) % ORDER


def _checked(name: str, scalar: int) -> int:
    if not 0 < scalar < ORDER:
        raise InputError(name, scalar, "must be above zero and below the order of alt_bn128")
    return scalar


def _times(point: Point, scalar: int) -> Point:
    return _outer(multiply(_inner(point), scalar))


def _inner(point: Point) -> Any:
    if point == (1, 2):
        return G1
    found = (FQ(point[0]), FQ(point[1]), FQ(1))
    if max(point) >= FQ.field_modulus or not is_on_curve(found, _B):
        raise InputError("point", point, "is not on the curve alt_bn128")
    return found


def _outer(point: Any) -> Point:
    x, y = normalize(point)
    return int(x), int(y)


__all__ = [
    "ORDER", "Evidence", "Point", "SealedShare", "combine", "content_key", "is_consistent", "new_scalar", "open_share", "point_of",
    "seal", "show", "split",
]  # fmt: skip
