"""Training events → receipts → co-signatures → ledger. Money is first thought of here.

A certified contribution makes its peer sign a ContributionReceipt. Whoever is a drawn witness of it and received its parts
co-signs; everybody keeps what was signed, so that any one peer can settle alone. Signatures say that the bytes were
delivered; they do not say that the work was useful (protocol §10).
"""

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Protocol

from incentives.checks import drawn_witnesses
from incentives.evidence import SignedCertificate
from incentives.records import Values
from peers.notary import values_of
from swarm.errors import Equivocation
from swarm.events import Certified, Event, PartsReceived
from swarm.records.commitments import body_bytes
from swarm.records.notary import Notary
from swarm.records.types import ZERO_HASH, ContributionReceipt, Hash, RoundBody, Signed

log = logging.getLogger(__name__)
MAX_RECEIVED = 4096  # contributions whose parts we remember having received
MAX_WAITING = 4096  # receipts that came before their certificate or their parts: anybody can sign such
MAX_WAITING_OF_ONE = 32  # of one contribution; its peer and at most 16 witnesses sign


class Pages(Protocol):
    """What is written: a `Ledger`, which has it on disk at once, or `peers.books.Books`, which do so beside the loop."""

    def add_certificate(
        self, certificate: Values, body: bytes, signatures: Iterable[tuple[bytes, bytes]]
    ) -> object: ...

    def add_receipt(self, receipt: Values, signatures: Iterable[tuple[bytes, bytes]]) -> object: ...

    def set_tip(self, certificate_id: bytes) -> None: ...

    def tip(self) -> bytes | None: ...

    def certificate(self, certificate_id: bytes) -> SignedCertificate | None: ...


class Accounting:
    """Writes the ledger of one peer. `on_event` takes the events of `swarm.train`, `on_receipt` the receipts of others;
    `publish` sends a signed receipt to everyone, once what was written before is on disk; `body_of` gives the body of a certificate
    that a quorum has signed. All may be called from different threads, and wait for nothing that the ledger does not wait for.

    Only what a certificate calls for goes to disk: strangers can sign receipts without end."""

    def __init__(
        self,
        notary: Notary,
        ledger: Pages,
        witnesses: int,
        publish: Callable[[Signed], None],
        body_of: Callable[[Hash], RoundBody | None],
    ) -> None:
        self.notary, self.ledger, self.witnesses, self.publish = notary, ledger, witnesses, publish
        self._body_of = body_of
        # Of an earlier process, until its lineage has been announced up to there once more.
        self._tip_before = ledger.tip()
        self._lock = threading.RLock()
        self._received: dict[Hash, bytes] = {}  # contribution → peer
        self._leaves: dict[Hash, tuple[Hash, int, int, bytes]] = {}  # contribution → certificate, epoch, units, peer
        self._waiting: dict[Hash, dict[bytes, Signed]] = {}  # contribution → signer → too early
        self.num_waiting = 0
        # Drawn witnesses that have not signed the receipt of `_own`, the newest contribution.
        self._uncosigned: set[bytes] = set()
        self._own = ZERO_HASH
        self._owed: set[Hash] = set()  # contributions of the newest certificate that this peer is to witness

    def is_quits(self) -> bool:
        """Whether all receipts of the newest certificate that this peer has to do with are signed: its own by the witnesses, and
        by it those that it witnesses. Who leaves before may cost itself or another the pay: a witness remembers what it received
        only while it runs."""
        with self._lock:
            return not self._uncosigned and not self._owed

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
        if self._tip_before is not None and (event.id == self._tip_before or self.ledger.certificate(event.id) is None):
            self._tip_before = None
        self.ledger.add_certificate(values_of(event.certificate), body_bytes(event.body), event.signatures)
        # Else it would go back to the run's beginning, under whoever settles from this ledger.
        if self._tip_before is None:
            self.ledger.set_tip(event.id)
        for leaf in event.body.contributors:
            self._leaves[leaf.contribution] = (event.id, event.certificate.epoch, leaf.units, leaf.peer)
        while len(self._leaves) > 256 * 64:
            self._leaves.pop(next(iter(self._leaves)))
        self._own, self._uncosigned = ZERO_HASH, set()
        self._owed = {
            leaf.contribution
            for leaf in event.body.contributors
            if leaf.units
            and leaf.contribution in self._received
            and self.notary.account in drawn_witnesses(event.body, leaf.peer, self.witnesses)
        }
        if event.own != ZERO_HASH and event.own in self._leaves:
            _, epoch, units, peer = self._leaves[event.own]
            drawn = drawn_witnesses(event.body, peer, self.witnesses)
            if units and peer == self.notary.account and drawn:
                self._own, self._uncosigned = event.own, set(drawn)
                record = ContributionReceipt(event.certificate.run_id, epoch, peer, units, event.own, event.id)
                self._sign(record)
        for leaf in event.body.contributors:
            self._retry(leaf.contribution)

    def _retry(self, contribution: Hash) -> None:
        for waiting in self._no_longer(contribution):
            self.on_receipt(waiting)

    def _no_longer(self, contribution: Hash) -> list[Signed]:
        """What waits for this contribution; it is forgotten here."""
        found = list(self._waiting.pop(contribution, {}).values())
        self.num_waiting -= len(found)
        return found

    def _wait(self, signed: Signed) -> None:
        """What is pushed out here comes again with the history of who has it (`peers.history`)."""
        receipt = signed.record
        assert isinstance(receipt, ContributionReceipt)
        early = self._waiting.get(receipt.contribution, {})
        if len(early) >= MAX_WAITING_OF_ONE and signed.signer not in early:
            return
        while self.num_waiting >= MAX_WAITING:
            self._no_longer(next(iter(self._waiting)))
        early = self._waiting.setdefault(receipt.contribution, {})
        self.num_waiting += signed.signer not in early
        early[signed.signer] = signed

    def on_receipt(self, signed: Signed) -> bool:
        """A receipt as its peer or a witness signed it (signature checked). False: it breaks a rule and is not passed on."""
        receipt = signed.record
        assert isinstance(receipt, ContributionReceipt)
        with self._lock:
            body = self._body_of(receipt.certificate)
            if body is None:
                self._wait(signed)
                return True
            leaf = next((leaf for leaf in body.contributors if leaf.contribution == receipt.contribution), None)
            witnesses = drawn_witnesses(body, receipt.peer, self.witnesses)
            if (
                leaf is None
                or (leaf.peer, leaf.units) != (receipt.peer, receipt.units)
                or signed.signer not in (receipt.peer, *witnesses)
            ):
                return False
            known = self._leaves.get(receipt.contribution)
            if known is None:
                self._wait(signed)  # certified, but not followed here yet: nobody has checked its epoch
                return True
            if known[:2] != (receipt.certificate, receipt.epoch):
                return False
            self.ledger.add_receipt(values_of(receipt), [(signed.signer, signed.signature)])
            if receipt.contribution == self._own:
                self._uncosigned.discard(signed.signer)
            if signed.signer == receipt.peer and self.notary.account in witnesses:
                self._witness(receipt, signed)
            return True

    def _witness(self, receipt: ContributionReceipt, signed: Signed) -> None:
        if self._received.get(receipt.contribution) != receipt.peer:
            self._wait(signed)  # refused until the parts are here, which may be never
            return
        self._owed.discard(receipt.contribution)
        self._sign(receipt)

    def _sign(self, record: ContributionReceipt) -> None:
        try:
            signature = self.notary.sign(record)
        except Equivocation as error:
            log.warning("receipt not signed: %s", error)
            return
        self.ledger.add_receipt(values_of(record), [(self.notary.account, signature)])
        self.publish(Signed(record, self.notary.account, signature))


__all__ = ["Accounting"]
