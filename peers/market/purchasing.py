"""What a buyer does with the shares that holders put on chain: opens them, shows a wrong one wrong, makes the key (protocol §8.8)."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from incentives import sealing
from incentives.chain.license import Licence, LicenseContract, Publication
from incentives.errors import InputError
from incentives.keys import to_checksum
from incentives.sealing import SealedShare

POLL_SECONDS = 2.0


@dataclass(frozen=True)
class Received:
    """Shares that are right, and the holders whose share is wrong."""

    right: dict[int, int]
    wrong: tuple[int, ...]


@dataclass
class Mailbox:
    """What was delivered for a licence. The chain's events are looked through only where the licence says that there is more of them."""

    contract: LicenseContract
    model: bytes
    licensee: bytes
    publication: Publication
    secret: int
    sealed: dict[int, SealedShare] = field(default_factory=dict)

    def received(self, licence: Licence) -> Received:
        """Of the licence as it is now: what was delivered for one that was refunded since does not count. ChainError: the node."""
        if not set(licence.given) <= set(self.sealed):
            found = self.contract.deliveries(self.model, self.licensee)
            self.sealed = {holder: found[holder] for holder in licence.given if holder in found}
        right, wrong = {}, []
        for holder in licence.given:
            if holder not in self.sealed:
                continue  # the node is behind with its events
            share = sealing.open_share(self.sealed[holder], self.secret)
            is_right = 0 < share < sealing.ORDER and sealing.point_of(share) == self.publication.holders[holder][1]
            if is_right:
                right[holder] = share
            else:
                wrong.append(holder)
        return Received(right, tuple(wrong))


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
    mailbox = Mailbox(contract, model, licensee, publication, secret)
    while True:
        contract.chain.renew()
        licence = contract.licence(model, licensee)
        if licence.state == "none":
            raise InputError(
                "MODEL", "0x" + model.hex(), f"{to_checksum(licensee)} has bought no licence: `sparehive model buy`"
            )
        found = mailbox.received(licence)
        if found.wrong and licence.state in ("pending", "complete"):
            return Waited(None, found.wrong)
        key = content_key(found, publication.threshold)
        if key is not None:
            return Waited(key)
        report(len(found.right) / publication.threshold)
        if licence.state != "pending" or contract.chain.block(finalised=False)[1] > licence.deliver_by:
            return Waited(None)
        pause(POLL_SECONDS)


__all__ = ["Mailbox", "Received", "Waited", "content_key", "wait_for_key"]
