"""The ledger's certificates and receipts as the messages they once were, for a peer that links up later."""

import struct
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from incentives.commitments import parse_body
from incentives.evidence import SignedCertificate, SignedReceipt, SignedStorageReceipt
from incentives.ledger import Ledger
from swarm.errors import PeerFault
from swarm.hashing import sha256
from swarm.records.types import (
    ContributionReceipt,
    ContributorLeaf,
    RoundBody,
    RoundCertificate,
    Signed,
    StorageReceipt,
)
from swarm.records.wire import pack

WINDOW_EPOCHS = 16
MAX_WINDOWS = 4096  # of one summary; longer runs have longer windows in it
FRESH_WINDOWS = 2
COMPLETE_SECONDS = 600.0


def _fp64(bits: bytes) -> float:
    value: float = struct.unpack(">d", bits)[0]
    return value


def round_body(data: bytes) -> RoundBody:
    """A body as the ledger keeps it."""
    body = parse_body(data)
    return RoundBody(
        tuple(ContributorLeaf(x.peer, x.contribution, x.units, x.flags) for x in body.contributors),
        tuple(body.reducers),
        tuple(body.averages),
        tuple(_fp64(bits) for bits in body.clip_factors),
        _fp64(body.median_norm),
        tuple(body.electorate),
    )


def certified(certificate: SignedCertificate) -> tuple[RoundCertificate, RoundBody]:
    """What the ledger holds as the round knows it, of attempt 0."""
    return _of_attempt(certificate, 0), round_body(certificate.body)


def _of_attempt(certificate: SignedCertificate, attempt: int) -> RoundCertificate:
    return RoundCertificate(**{**certificate.values, "attempt": attempt})  # type: ignore[arg-type]  # a row: any values


def certificate_messages(certificate: SignedCertificate) -> list[bytes]:
    """One message per signature that the ledger holds."""
    content = round_body(certificate.body)
    return [
        pack(Signed(_of_attempt(certificate, attempt), signer, signature, content))
        for attempt, signatures in sorted(certificate.signatures.items())
        for signer, signature in signatures
    ]


def receipt_messages(receipt: SignedReceipt) -> list[bytes]:
    """One message per signature that the ledger holds."""
    record = ContributionReceipt(**receipt.values)  # type: ignore[arg-type]
    return [pack(Signed(record, signer, signature)) for signer, signature in receipt.signatures]


def storage_messages(receipt: SignedStorageReceipt) -> list[bytes]:
    """One message per signature that the ledger holds."""
    record = StorageReceipt(**receipt.values)  # type: ignore[arg-type]
    return [pack(Signed(record, signer, signature)) for signer, signature in receipt.signatures]


class LedgerHistory:
    """Implements `swarm.transport.sync.History` on a ledger: windows of epochs are compared by a hash of what is held, and only
    the windows that differ are sent.

    Told is the lineage that this peer follows, and what `current` weighs against it: who follows another branch tells of that.

    Of a certificate any quorum of signatures will do. Each peer holds those that it happened to hear first: where these
    were compared, no two peers ever agreed, and all of a run's history went over every link again and again."""

    def __init__(
        self,
        ledger: Ledger,
        current: Callable[[], Iterable[Signed]],
        since: Callable[[int], Iterable[Signed]] = lambda epoch: (),
        may_show: Callable[[Signed], bool] = lambda signed: True,
    ) -> None:
        """`current()`: the round under way; `since(epoch)`: certificates after an epoch that the ledger may not have yet;
        `may_show(signed)`: not what this peer has signed and not yet journaled on disk."""
        self._ledger, self._current, self._since, self._may_show = ledger, current, since, may_show
        self._windows: dict[int, int] = {}  # window → xor of the hashes of what is held
        self._way: dict[int, bytes] = {}  # epoch → certificate, of the lineage that is followed
        self._tip: bytes | None = None
        self._newest = 0
        self.complete_at = float("-inf")

    def summary(self) -> bytes:
        windows = self._scan()
        size = WINDOW_EPOCHS
        while windows and max(windows) >= MAX_WINDOWS:
            windows, size = _coarser(windows), 2 * size
        last = max(windows, default=-1)
        return struct.pack(">Q", size) + b"".join(struct.pack(">Q", windows.get(w, 0)) for w in range(last + 1))

    def missing(self, summary: bytes) -> Iterator[bytes]:
        if len(summary) < 8 or len(summary) % 8 or len(summary) > 8 * (MAX_WINDOWS + 1):
            raise PeerFault("summary: cannot be read")
        size, *theirs = struct.unpack(f">{len(summary) // 8}Q", summary)
        if size not in {WINDOW_EPOCHS << k for k in range(32)}:
            raise PeerFault("summary: no such window")
        windows, reached = self._scan(), WINDOW_EPOCHS
        while reached < size:
            windows, reached = _coarser(windows), 2 * reached
        differ = [w for w, value in sorted(windows.items()) if w >= len(theirs) or theirs[w] != value]
        return self._messages(differ, size, self._newest)

    def _messages(self, windows: Sequence[int], size: int, newest: int) -> Iterator[bytes]:
        """What differs, then what came after `newest` while that went out: an answer may take minutes, and a joiner takes no news
        before it is through."""
        for window in windows:
            yield from self._window(window * size, (window + 1) * size)
        self._look()
        while (newer := self._newest) > newest:
            yield from self._window(newest + 1, newer + 1)
            newest = newer
            self._look()

    def _window(self, from_epoch: int, before_epoch: int) -> Iterator[bytes]:
        for epoch in range(from_epoch, min(before_epoch, self._newest + 1)):
            certificate = self._ledger.certificate(self._way[epoch]) if epoch in self._way else None
            if certificate is None:
                continue
            yield from certificate_messages(certificate)
            for receipt in self._ledger.receipts(certificate.id):
                yield from receipt_messages(receipt)
            for stored in self._ledger.storage_receipts(certificate.id):
                yield from storage_messages(stored)

    def _look(self) -> None:
        """Which certificates are on the way to what is followed now: as many are read as are new."""
        tip = self._ledger.tip()
        if tip is None or tip == self._tip:
            return
        way, first = self._ledger.way_back(tip), True
        for epoch, identity in way:
            if first:
                for later in range(epoch + 1, self._newest + 1):
                    self._way.pop(later, None)
                    self.complete_at = float("-inf")
                self._newest, first = epoch, False
            known = self._way.get(epoch)
            if known == identity:
                break
            if known is not None:  # another branch was followed
                self.complete_at = float("-inf")
            self._way[epoch] = identity
        self._tip = tip

    def everything(self) -> Iterator[bytes]:
        """All certificates and receipts, oldest first."""
        return self.missing(struct.pack(">Q", WINDOW_EPOCHS))

    def current(self) -> Iterable[bytes]:
        self._look()
        newest = self._newest - 1  # it may have grown since the answer ended
        return [pack(signed) for signed in (*self._since(newest), *self._current()) if self._may_show(signed)]

    def _scan(self) -> dict[int, int]:
        """The newest windows are read anew each time, all of them now and then (a late receipt of long ago)."""
        self._look()
        first = max(max(self._windows, default=0) - FRESH_WINDOWS, 0)
        if time.monotonic() - self.complete_at > COMPLETE_SECONDS:
            first, self.complete_at = 0, time.monotonic()
        windows = {w: value for w, value in self._windows.items() if w < first}
        for epoch, certificate, hash_, signer in self._ledger.held(first * WINDOW_EPOCHS):
            if self._way.get(epoch) != certificate:
                continue
            key = int.from_bytes(sha256(hash_ + signer)[:8], "big")
            windows[epoch // WINDOW_EPOCHS] = windows.get(epoch // WINDOW_EPOCHS, 0) ^ key
        self._windows = windows
        return windows


def _coarser(windows: dict[int, int]) -> dict[int, int]:
    """The same with windows of twice the length."""
    out: dict[int, int] = {}
    for window, value in windows.items():
        out[window // 2] = out.get(window // 2, 0) ^ value
    return out
