"""Transactions of a key that are in no block: which number waits for what, and the next one with that number that pays more.

A chain takes a key's transactions by their numbers, one after the other. One that offers too little, or was lost by its node,
holds all that follow. What commands had signed is in the outbox (KEYFILE.sending); of others only their number is known.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from incentives.chain.outbox import NOTHING, Offer, SignedTransaction, offer_of

MAX_RAISES = 6  # of a transaction that another program sent, whose offer is not known


@dataclass(frozen=True, slots=True)
class Waiting:
    """A number that is not used up. `signed`: what a command noted for it last; `is_known`: the node has one with that number, or it."""

    nonce: int
    signed: SignedTransaction | None
    is_known: bool

    @property
    def offer(self) -> Offer | None:
        return None if self.signed is None else offer_of(self.signed)

    def in_words(self) -> str:
        if self.signed is not None and self.offer is not None:
            what = "one that does nothing" if self.signed.what == NOTHING else f"{self.signed.what} to {self.signed.to}"
            where = "waits" if self.is_known else "was lost by the node"
            return f"number {self.nonce}: {what} {where}; it offers {self.offer.max_fee / 10**9:.9g} gwei per gas"
        if self.is_known:
            return f"number {self.nonce}: sent by another program, waits"
        return f"number {self.nonce}: missing, and those after it wait for it"


def waiting_of(count: int, following: int, noted: Sequence[SignedTransaction], known: frozenset[str]) -> list[Waiting]:
    """`count`: transactions in blocks; `following`: what the node says that the next number is; `noted`: oldest first; `known`: hashes
    of those that the node has."""
    last = {each.nonce: each for each in noted if each.nonce >= count}
    for each in noted:  # of two with a number the one that the node has
        if each.nonce >= count and each.hash in known:
            last[each.nonce] = each
    end = max([following, *(nonce + 1 for nonce in last)])
    return [
        Waiting(nonce, last.get(nonce), last[nonce].hash in known if nonce in last else nonce < following)
        for nonce in range(count, end)
    ]


def raised(fees: dict[str, int], offered: Offer | None) -> dict[str, int]:
    """Today's fees, and an eighth above what was offered at least: nodes take no replacement for less than a tenth more."""
    if offered is None:
        return fees
    more, tip = offered.max_fee * 9 // 8 + 1, offered.tip * 9 // 8 + 1
    if "gasPrice" in fees:
        return {"gasPrice": max(fees["gasPrice"], more)}
    tip = max(fees["maxPriorityFeePerGas"], tip)
    return {"maxFeePerGas": max(fees["maxFeePerGas"], more, tip), "maxPriorityFeePerGas": tip}


__all__ = ["MAX_RAISES", "Waiting", "raised", "waiting_of"]
