"""Training events → receipts → co-signatures → ledger. Money is first thought of here.

A certified contribution makes its peer sign a ContributionReceipt. Whoever is a drawn witness of it and received its parts
co-signs; everybody keeps what was signed, so that any one peer can settle alone. Signatures say that the bytes were
delivered; they do not say that the work was useful (PROTOCOL §10).
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from incentives.ledger import Ledger
from peers.notary import values_of
from swarm.averaging.commitments import body_bytes
from swarm.averaging.records import FLAG_REDUCES, ZERO_HASH, ContributionReceipt, Hash, RoundBody, Signed
from swarm.errors import Equivocation
from swarm.events import Certified, Event, PartsReceived
from swarm.notary import Notary

log = logging.getLogger(__name__)
MAX_RECEIVED = 4096  # contributions whose parts we remember having received


def drawn_witnesses(body: RoundBody, peer: bytes, witnesses: int) -> tuple[bytes, ...]:
    """The reducers of a round in rank order that can witness `peer`'s contribution, at most `witnesses`.

    Only contributors with flag 1 other than the peer itself count; fewer than `witnesses` are taken where there are no
    more; none: the contribution is not paid (PROTOCOL §6)."""
    able = {leaf.peer for leaf in body.contributors if leaf.flags & FLAG_REDUCES and leaf.peer != peer}
    return tuple(r for r in body.reducers if r in able)[:witnesses]


@dataclass(frozen=True, slots=True)
class AccountingStatistics:
    receipts_signed: int
    receipts_witnessed: int
    receipts_refused: int


class Accounting:
    """Writes the ledger of one peer. `on_event` takes the events of `swarm.train`, `on_receipt` the receipts of others;
    `publish` sends a signed receipt to everyone. All three may be called from different threads."""

    def __init__(self, notary: Notary, ledger: Ledger, witnesses: int, publish: Callable[[Signed], None]) -> None:
        self.notary, self.ledger, self.witnesses, self.publish = notary, ledger, witnesses, publish
        self._lock = threading.RLock()
        self._received: dict[Hash, bytes] = {}  # contribution → peer
        self._leaves: dict[Hash, tuple[Hash, int, int, bytes]] = {}  # contribution → certificate, epoch, units, peer
        self._bodies: dict[Hash, RoundBody] = {}
        self._waiting: dict[Hash, Signed] = {}  # contribution → receipt seen before its certificate or parts
        self._signed = self._witnessed = self._refused = 0

    def statistics(self) -> AccountingStatistics:
        with self._lock:
            return AccountingStatistics(self._signed, self._witnessed, self._refused)

    def on_event(self, event: Event) -> None:
        with self._lock:
            if isinstance(event, PartsReceived):
                self._received[event.contribution] = event.peer
                while len(self._received) > MAX_RECEIVED:
                    self._received.pop(next(iter(self._received)))
                self._retry(event.contribution)
            elif isinstance(event, Certified):
                self._certified(event)

    def _certified(self, event: Certified) -> None:
        self.ledger.add_certificate(values_of(event.certificate), body_bytes(event.body), event.signatures)
        self.ledger.set_tip(event.id)
        self._bodies[event.id] = event.body
        for leaf in event.body.contributors:
            self._leaves[leaf.contribution] = (event.id, event.certificate.epoch, leaf.units, leaf.peer)
        while len(self._bodies) > 256:
            self._bodies.pop(next(iter(self._bodies)))
        while len(self._leaves) > 256 * 64:
            self._leaves.pop(next(iter(self._leaves)))
        if event.own != ZERO_HASH and event.own in self._leaves:
            _, epoch, units, peer = self._leaves[event.own]
            if units and peer == self.notary.account and drawn_witnesses(event.body, peer, self.witnesses):
                record = ContributionReceipt(event.certificate.run_id, epoch, peer, units, event.own, event.id)
                self._sign(record)
                self._signed += 1
        for leaf in event.body.contributors:
            self._retry(leaf.contribution)

    def _retry(self, contribution: Hash) -> None:
        waiting = self._waiting.pop(contribution, None)
        if waiting is not None:
            self.on_receipt(waiting)

    def on_receipt(self, signed: Signed) -> bool:
        """A receipt as its peer or a witness signed it (signature checked). False: it breaks a rule and is not passed on."""
        receipt = signed.record
        assert isinstance(receipt, ContributionReceipt)
        with self._lock:
            known = self._leaves.get(receipt.contribution)
            if known is None:
                if signed.signer == receipt.peer:
                    self._waiting[receipt.contribution] = signed
                    while len(self._waiting) > 1024:
                        self._waiting.pop(next(iter(self._waiting)))
                self.ledger.add_receipt(values_of(receipt), [(signed.signer, signed.signature)])
                return True
            certificate, epoch, units, peer = known
            if (receipt.certificate, receipt.epoch, receipt.units, receipt.peer) != (certificate, epoch, units, peer):
                self._refused += 1
                return False
            self.ledger.add_receipt(values_of(receipt), [(signed.signer, signed.signature)])
            if signed.signer == peer and peer != self.notary.account:
                self._witness(receipt, signed)
            return True

    def _witness(self, receipt: ContributionReceipt, signed: Signed) -> None:
        body = self._bodies.get(receipt.certificate)
        if body is None or self.notary.account not in drawn_witnesses(body, receipt.peer, self.witnesses):
            return
        if self._received.get(receipt.contribution) != receipt.peer:
            self._waiting[receipt.contribution] = signed  # refused until the parts are here, which may be never
            self._refused += 1
            return
        if self._sign(receipt):
            self._witnessed += 1

    def _sign(self, record: ContributionReceipt) -> bool:
        try:
            signature = self.notary.sign(record)
        except Equivocation as error:
            log.warning("receipt not signed: %s", error)
            return False
        self.ledger.add_receipt(values_of(record), [(self.notary.account, signature)])
        self.publish(Signed(record, self.notary.account, signature))
        return True


__all__ = ["Accounting", "AccountingStatistics", "drawn_witnesses"]
