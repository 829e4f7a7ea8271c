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
MAX_OPEN = 8192  # receipts in memory that lack a signature, of certificates that are still witnessed
MAX_LATE, MAX_UNKNOWN = 1024, 1024  # the same, of those that are not any more, and of those that are not here
MAX_OF_STRANGERS = 256  # of one certificate, that wait for a witness and are of no linked storer
MAX_OF_STORER = 2  # of one certificate, that one storer signs: an honest one signs one
# Of one certificate, that one witness signs: twice its part of so many, and so many however many witnesses there are.
MAX_OF_WITNESSES, MIN_OF_WITNESS = 1024, 64
_Key = tuple[Hash, Hash]  # certificate, hash of the receipt


class StoragePages(Protocol):
    """What is written: a `Ledger`, or `peers.books.Books`."""

    def add_storage_receipt(self, receipt: Values, signatures: Iterable[tuple[bytes, bytes]]) -> object: ...


@dataclass(slots=True)
class _Waiting:
    """Until its storer and a witness have signed it."""

    record: StorageReceipt
    signed: dict[Account, Signed] = field(default_factory=dict)
    is_strangers: bool = False


@dataclass(slots=True)
class _Challenge:
    """A certificate that is one. `electorate`: those whom it seats."""

    epoch: int
    electorate: tuple[Account, ...]
    written: set[Hash] = field(default_factory=set)
    # Receipts that are written or wait, by who has signed them: keys cost nothing, and one can be found that draws a given witness, so
    # whoever lies takes what is its own, and nothing from others.
    by_storer: Counter[Account] = field(default_factory=Counter)
    by_witness: Counter[Account] = field(default_factory=Counter)
    strangers: int = 0  # that wait

    def admits(self, signer: Account, waiting: _Waiting, is_own: bool, is_strangers: bool) -> bool:
        """Whether one more that `signer` signs has room; it is counted then."""
        is_storer = signer == waiting.record.peer
        counted, most = (self.by_storer, MAX_OF_STORER) if is_storer else (self.by_witness, self._most_of_witness())
        is_strangers = is_strangers and is_storer and not waiting.signed
        if not is_own and (counted[signer] >= most or (is_strangers and self.strangers >= MAX_OF_STRANGERS)):
            return False
        counted[signer] += 1
        if is_strangers:
            waiting.is_strangers, self.strangers = True, self.strangers + 1
        return True

    def _most_of_witness(self) -> int:
        return max(MIN_OF_WITNESS, 2 * MAX_OF_WITNESSES // len(self.electorate))

    def forget(self, waiting: _Waiting) -> None:
        """One that waited is gone."""
        self.strangers -= waiting.is_strangers
        for signer in waiting.signed:
            counted = self.by_storer if signer == waiting.record.peer else self.by_witness
            counted[signer] -= 1


class _Room:
    """Receipts that wait, the oldest first; those that are too many are given to `gone`."""

    def __init__(self, most: int, gone: Callable[[_Waiting], None] = lambda waiting: None) -> None:
        self._most, self._gone, self._held = most, gone, dict[_Key, _Waiting]()

    def get(self, key: _Key) -> _Waiting | None:
        return self._held.get(key)

    def put(self, key: _Key, waiting: _Waiting) -> None:
        self._held[key] = waiting
        while len(self._held) > self._most:
            self._gone(self._held.pop(next(iter(self._held))))

    def pop(self, key: _Key) -> _Waiting | None:
        return self._held.pop(key, None)

    def of(self, certificate: Hash) -> list[_Key]:
        return [key for key in self._held if key[0] == certificate]


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
        self._open, self._late = _Room(MAX_OPEN, self._forget), _Room(MAX_LATE, self._forget)
        self._unknown = _Room(MAX_UNKNOWN)
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
        for key in self._unknown.of(event.id):
            waiting = self._unknown.pop(key)
            for signed in () if waiting is None else waiting.signed.values():
                self.on_receipt(signed)

    # -- what others say -----------------------------------------------------------------------------------------------
    def on_receipt(self, signed: Signed) -> bool:
        """As its storer or a witness signed it (signature checked). False: it breaks a rule, or is one too many, and is not passed on."""
        record = signed.record
        assert isinstance(record, StorageReceipt)
        with self._lock:
            challenge = self._known.get(record.certificate)
            if challenge is None:
                return self._await_certificate(record, signed)
            witnesses = self.witnesses(record, challenge)
            if witnesses is None or signed.signer not in (record.peer, *witnesses):
                return False
            if not self._take(record, signed, challenge, witnesses):
                return False
            if signed.signer == record.peer and self.notary.account in witnesses and self.is_open(record.epoch):
                self.ask(record)
            return True

    def _await_certificate(self, record: StorageReceipt, signed: Signed) -> bool:
        """What is pushed out comes again with the history of who has it, once it is written there."""
        key = record.certificate, self.notary.hash(record)
        waiting = self._unknown.get(key) or _Waiting(record)
        if len(waiting.signed) > self.rules.witnesses and signed.signer not in waiting.signed:
            return False
        waiting.signed[signed.signer] = signed
        self._unknown.put(key, waiting)
        return True

    def _take(
        self, record: StorageReceipt, signed: Signed, challenge: _Challenge, witnesses: tuple[Account, ...]
    ) -> bool:
        """Written down once its storer and a witness have signed; until then it waits. False: one too many."""
        hash_ = self.notary.hash(record)
        if hash_ in challenge.written:
            self._write(record, hash_, [signed], challenge)
            return True
        key, own = (record.certificate, hash_), self.notary.account
        waiting = self._open.get(key) or self._late.get(key) or _Waiting(record)
        if signed.signer not in waiting.signed:
            is_strangers = record.peer != own and not self.is_storer(record.peer)
            if not challenge.admits(signed.signer, waiting, signed.signer == own, is_strangers):
                return False
        waiting.signed[signed.signer] = signed
        if record.peer not in waiting.signed or waiting.signed.keys().isdisjoint(witnesses):
            is_open = self.is_open(challenge.epoch) or self._open.get(key) is not None
            (self._open if is_open else self._late).put(key, waiting)
            return True
        self._open.pop(key)
        self._late.pop(key)
        challenge.strangers -= waiting.is_strangers
        self._write(record, hash_, list(waiting.signed.values()), challenge)
        return True

    def _forget(self, waiting: _Waiting) -> None:
        challenge = self._known.get(waiting.record.certificate)
        if challenge is not None:
            challenge.forget(waiting)

    def witnesses(self, record: StorageReceipt, challenge: _Challenge | None = None) -> tuple[Account, ...] | None:
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

    def _write(self, record: StorageReceipt, hash_: Hash, signed: list[Signed], challenge: _Challenge) -> None:
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
