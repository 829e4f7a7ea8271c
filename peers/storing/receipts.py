"""StorageReceipts as everybody keeps them: taken in, bounded, written down once a witness stands behind them (protocol §14.2).

A storer signs that it has shown pieces; drawn witnesses co-sign; the books keep what both have signed. Anybody can sign as a storer,
with as many keys as it likes: so what no witness has signed stays in memory, little of it, and is in nobody's books, its storer's own
neither: books that differ for ever would be compared, and sent, for ever (`peers.history`).
"""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from incentives.errors import InputError
from incentives.records import Values
from incentives.storage import GRACE_EPOCHS, StorageRules, held_objects, storage_witnesses
from peers.notary import values_of
from swarm.errors import Equivocation
from swarm.events import Certified, Event, Undone
from swarm.records.notary import Notary
from swarm.records.types import FLAG_STORES, Account, Hash, Signed, StorageReceipt

log = logging.getLogger(__name__)
MAX_KNOWN = 8192  # certificates that receipts are compared with; those of longer ago come with the history no more
MAX_WAITING = 4096  # receipts in memory that lack a witness or their certificate
MAX_OF_ONE = 256  # of one certificate, from strangers
MAX_WRITTEN = 1024  # of one certificate
MIN_BY_WITNESS = 64  # of those, that one witness may stand behind, however many there are
_Key = tuple[Hash, Hash]  # certificate, hash of the receipt


class StoragePages(Protocol):
    """What is written: a `Ledger`, or `peers.books.Books`."""

    def add_storage_receipt(self, receipt: Values, signatures: Iterable[tuple[bytes, bytes]]) -> object: ...


@dataclass(slots=True)
class _Challenge:
    """A certificate that is one. `electorate`: those whom it seats."""

    epoch: int
    electorate: tuple[Account, ...]
    written: set[Hash] = field(default_factory=set)
    by_witness: Counter[Account] = field(default_factory=Counter)  # of what is written
    strangers: int = 0  # receipts that wait, of who is no storer that is linked


@dataclass(slots=True)
class _Waiting:
    record: StorageReceipt
    signed: dict[Account, Signed] = field(default_factory=dict)
    is_strangers: bool = True


class StorageAccounting:
    """Of one peer. `publish` sends a signed receipt to all, once what was added before is on disk; `ask(receipt)` is told of each
    receipt that this peer is drawn to witness, and answered by `witness` where the proof was right; `is_storer(account)`: one that is
    linked now. All may be called from different threads."""

    def __init__(
        self,
        notary: Notary,
        ledger: StoragePages,
        rules: StorageRules,
        publish: Callable[[Signed], None],
        ask: Callable[[StorageReceipt], None] = lambda receipt: None,
        is_storer: Callable[[Account], bool] = lambda account: True,
    ) -> None:
        self.notary, self.ledger, self.rules, self.publish = notary, ledger, rules, publish
        self.ask, self.is_storer = ask, is_storer
        self._lock = threading.RLock()
        self._known: dict[Hash, _Challenge] = {}
        self._epoch = 0  # of the newest certificate that is followed
        self._waiting: dict[_Key, _Waiting] = {}
        self._own: dict[Hash, set[Account]] = {}  # own receipts → who has signed
        self.num_cosigned = 0  # own receipts that all their witnesses have signed

    def is_open(self, epoch: int) -> bool:
        """Whether receipts for the certificate of that epoch are still witnessed: fewer than three have followed it."""
        return self._epoch <= epoch + GRACE_EPOCHS

    def on_event(self, event: Event) -> None:
        with self._lock:
            if isinstance(event, Undone):
                for identity in event.ids:
                    self._known.pop(identity, None)
            elif isinstance(event, Certified):
                self._certified(event)

    def _certified(self, event: Certified) -> None:
        self._epoch = event.certificate.epoch
        if not self.rules.is_challenged(self._epoch):
            return
        self._known[event.id] = _Challenge(self._epoch, event.body.electorate)
        while len(self._known) > MAX_KNOWN:
            self._known.pop(next(iter(self._known)))
        for key in [key for key in self._waiting if key[0] == event.id]:
            for signed in list(self._waiting.pop(key).signed.values()):
                self.on_receipt(signed)

    # -- what others say -----------------------------------------------------------------------------------------------
    def on_receipt(self, signed: Signed) -> bool:
        """As its storer or a witness signed it (signature checked). False: it breaks a rule, or is one too many, and is not passed on."""
        record = signed.record
        assert isinstance(record, StorageReceipt)
        with self._lock:
            challenge = self._known.get(record.certificate)
            if challenge is None:
                return self._wait(record, signed, None)
            witnesses = self.witnesses(record, challenge)
            if witnesses is None or signed.signer not in (record.peer, *witnesses):
                return False
            hash_ = self.notary.hash(record)
            if hash_ in challenge.written:
                self._write(record, hash_, [signed], challenge)
            elif not self._wait(record, signed, challenge):
                return False
            elif not self._waiting[record.certificate, hash_].signed.keys().isdisjoint(witnesses):
                waited = self._waiting.pop((record.certificate, hash_))
                challenge.strangers -= waited.is_strangers
                if not self._has_room(challenge, waited.signed.keys() & set(witnesses)):
                    return False
                self._write(record, hash_, list(waited.signed.values()), challenge)
            if signed.signer == record.peer and self.notary.account in witnesses and self.is_open(record.epoch):
                self.ask(record)
            return True

    def witnesses(self, record: StorageReceipt, challenge: "_Challenge | None" = None) -> tuple[Account, ...] | None:
        """Who has to co-sign it; None where it answers no challenge, or nobody could."""
        challenge = challenge or self._known.get(record.certificate)
        if challenge is None or challenge.epoch != record.epoch:
            return None
        try:
            held_objects(record.held, self.rules)
        except InputError:
            return None
        found = storage_witnesses(challenge.electorate, record.certificate, record.peer, self.rules.witnesses)
        return found or None

    def _wait(self, record: StorageReceipt, signed: Signed, challenge: "_Challenge | None") -> bool:
        """What is pushed out here comes again with the history of who has it, once a witness has signed."""
        key = (record.certificate, self.notary.hash(record))
        found = self._waiting.get(key)
        if found is None:
            is_strangers = record.peer != self.notary.account and not self.is_storer(record.peer)
            if challenge is not None and is_strangers and challenge.strangers >= MAX_OF_ONE:
                return False
            while len(self._waiting) >= MAX_WAITING:
                old = self._waiting.pop(next(iter(self._waiting)))
                if old.is_strangers and (at := self._known.get(old.record.certificate)) is not None:
                    at.strangers -= 1
            found = self._waiting[key] = _Waiting(record, is_strangers=is_strangers)
            if challenge is not None:
                challenge.strangers += is_strangers
        if len(found.signed) > self.rules.witnesses and signed.signer not in found.signed:
            return False
        found.signed[signed.signer] = signed
        return True

    def _has_room(self, challenge: "_Challenge", signed: set[Account]) -> bool:
        """For one more that these witnesses have signed; it is counted. Keys cost a storer nothing, and one is found to any witness that
        lies: alone it must not fill the books of a challenge, so it gets twice the part of each."""
        most = max(MIN_BY_WITNESS, 2 * MAX_WRITTEN // len(challenge.electorate))
        if len(challenge.written) >= MAX_WRITTEN or any(challenge.by_witness[who] >= most for who in signed):
            return False
        challenge.by_witness.update(signed)
        return True

    def _write(self, record: StorageReceipt, hash_: Hash, signed: list[Signed], challenge: "_Challenge") -> None:
        challenge.written.add(hash_)
        self.ledger.add_storage_receipt(values_of(record), [(each.signer, each.signature) for each in signed])
        if record.peer == self.notary.account:
            self._count(record, hash_, {each.signer for each in signed})

    def _count(self, record: StorageReceipt, hash_: Hash, signers: set[Account]) -> None:
        had = self._own.setdefault(hash_, set())
        witnesses = set(self.witnesses(record) or ())
        was_paid = witnesses <= had
        had |= signers
        self.num_cosigned += bool(witnesses) and not was_paid and witnesses <= had

    # -- what this peer says -------------------------------------------------------------------------------------------
    def may_answer(self, certificate: Hash) -> tuple[int, tuple[Account, ...]] | None:
        """Epoch and electorate of a certificate that this peer may answer now; None: it is no challenge, too long ago, or nobody could
        witness."""
        with self._lock:
            challenge = self._known.get(certificate)
            if challenge is None or not self.is_open(challenge.epoch):
                return None
            has_witness = bool(set(challenge.electorate) - {self.notary.account})
            return (challenge.epoch, challenge.electorate) if has_witness else None

    def say(self, record: StorageReceipt) -> bool:
        """Sign as the storer; False where another one was signed for this certificate before."""
        return self._sign(record)

    def witness(self, record: StorageReceipt) -> bool:
        """Co-sign what was asked for, where its proof was found right. False: too late."""
        with self._lock:
            if not self.is_open(record.epoch) or self.notary.account not in (self.witnesses(record) or ()):
                return False
            return self._sign(record)

    def _sign(self, record: StorageReceipt) -> bool:
        try:
            signature = self.notary.sign(record)
        except Equivocation as error:
            log.warning("storage receipt not signed: %s", error)
            return False
        own = Signed(record, self.notary.account, signature)
        self.on_receipt(own)
        self.publish(own)
        return True


def is_linked_storer(linked: Callable[[], dict[Account, int]]) -> Callable[[Account], bool]:
    """Whether an account has a link now and says that it stores."""
    return lambda account: bool(linked().get(account, 0) & FLAG_STORES)


__all__ = ["StorageAccounting", "StoragePages", "is_linked_storer"]
