"""What a buyer does with the shares that holders put on chain: opens them, shows a wrong one wrong, makes the key (protocol §8.8)."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from incentives import sealing
from incentives.chain.license import LicenseContract, Publication
from incentives.errors import InputError
from incentives.keys import to_checksum

POLL_SECONDS = 2.0


@dataclass(frozen=True)
class Received:
    """Shares that are right, and the holders whose share is wrong."""

    right: dict[int, int]
    wrong: tuple[int, ...]


def received(
    contract: LicenseContract, model: bytes, licensee: bytes, publication: Publication, secret: int
) -> Received:
    """Of the licence as it is now: what was delivered for one that was refunded since does not count. ChainError: the node."""
    given = set(contract.licence(model, licensee).given)
    right, wrong = {}, []
    for holder, sealed in contract.deliveries(model, licensee).items():
        if holder not in given:
            continue
        share = sealing.open_share(sealed, secret)
        is_right = 0 < share < sealing.ORDER and sealing.point_of(share) == publication.holders[holder][1]
        if is_right:
            right[holder] = share
        else:
            wrong.append(holder)
    return Received(right, tuple(sorted(wrong)))


def content_key(found: Received, threshold: int) -> bytes | None:
    """None: too few shares are right."""
    if len(found.right) < threshold:
        return None
    chosen = dict(sorted(found.right.items())[:threshold])
    return sealing.content_key(sealing.combine(chosen))


@dataclass(frozen=True)
class Waited:
    """How waiting ended: `key`, or wrong shares, or neither: the time is over, and the money can be had back."""

    key: bytes | None
    wrong: tuple[int, ...] = ()


def wait_for_key(
    contract: LicenseContract,
    model: bytes,
    licensee: bytes,
    publication: Publication,
    secret: int,
    report: Callable[[float], None],
    pause: Callable[[float], None] = time.sleep,
) -> Waited:
    """Until the shares that make the key are there, one of them is wrong, or the delivery's time is over. InputError: no licence."""
    while True:
        contract.chain.renew()
        licence = contract.licence(model, licensee)
        if licence.state == "none":
            raise InputError(
                "MODEL", "0x" + model.hex(), f"{to_checksum(licensee)} has bought no licence: `sparehive model buy`"
            )
        found = received(contract, model, licensee, publication, secret)
        if found.wrong and licence.state in ("pending", "complete"):
            return Waited(None, found.wrong)
        key = content_key(found, publication.threshold)
        if key is not None:
            return Waited(key)
        report(len(found.right) / publication.threshold)
        if licence.state != "pending" or contract.chain.block(finalised=False)[1] > licence.deliver_by:
            return Waited(None)
        pause(POLL_SECONDS)


__all__ = ["Received", "Waited", "content_key", "received", "wait_for_key"]
