"""The ledger of a running peer, written beside its loop: many certificates and receipts with one commit, in a thread.

What is published `after` something was added leaves once the commit is on disk, and no commit holds a signature of this
peer's own before its journal does: else a start after a crash would find a ledger that shows what the journal has forgotten."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias, Union

from incentives.errors import IncentivesError
from incentives.evidence import SignedCertificate
from incentives.journal import SigningJournal
from incentives.ledger import Ledger
from incentives.records import Values
from peers.writer import Writer
from swarm.errors import DiskError

ROOM = 4096  # entries that wait for the disk; beyond that links are read no further
AT_ONCE = 256  # in one commit: each is a signature or more to check again

_Pairs: TypeAlias = list[tuple[bytes, bytes]]
_Entry: TypeAlias = Union[
    tuple[Callable[[], object], None],  # to be added to the ledger
    tuple[None, Callable[[], None]],  # to be done in the loop after the commit
]


class Books:
    """Writes `ledger`; `reader` is a second connection to it (`Ledger.read`), so that nobody who reads waits for a commit. Both are
    closed by their owner, after the books. To be made in the loop; `add_…`, `set_tip` and `after` from any thread."""

    def __init__(self, ledger: Ledger, reader: Ledger, journal: SigningJournal) -> None:
        self.reader, self._ledger, self._journal = reader, ledger, journal
        self.failure: Exception | None = None  # nothing is written any more, and nothing published
        self._loop = asyncio.get_running_loop()
        self._waiting: set[asyncio.Future[None]] = set()
        self._writer = Writer[_Entry]("books", self._write, self._broken, AT_ONCE)

    @property
    def num_waiting(self) -> int:
        """Entries that are not on disk yet, and what is to follow them."""
        return self._writer.num_waiting

    # -- as `Ledger`, but beside the loop -----------------------------------------------------------------------------
    def add_certificate(self, certificate: Values, body: bytes, signatures: Iterable[tuple[bytes, bytes]]) -> None:
        pairs: _Pairs = list(signatures)
        self._writer.put((lambda: self._ledger.add_certificate(certificate, body, pairs), None))

    def add_receipt(self, receipt: Values, signatures: Iterable[tuple[bytes, bytes]]) -> None:
        pairs: _Pairs = list(signatures)
        self._writer.put((lambda: self._ledger.add_receipt(receipt, pairs), None))

    def add_storage_receipt(self, receipt: Values, signatures: Iterable[tuple[bytes, bytes]]) -> None:
        pairs: _Pairs = list(signatures)
        self._writer.put((lambda: self._ledger.add_storage_receipt(receipt, pairs), None))

    def set_tip(self, certificate_id: bytes) -> None:
        self._writer.put((lambda: self._ledger.set_tip(certificate_id), None))

    def tip(self) -> bytes | None:
        return self.reader.tip()

    def certificate(self, certificate_id: bytes) -> SignedCertificate | None:
        return self.reader.certificate(certificate_id)

    # -- what waits for it --------------------------------------------------------------------------------------------
    def after(self, act: Callable[[], None]) -> None:
        """Call `act` in the loop once all that was added so far is on disk; never, where the disk refuses."""
        self._writer.put((None, act))

    async def room(self) -> None:
        """Until more may be added: whoever brings what others have signed is read no further meanwhile. What this peer signs itself is
        never held back here. Returns at once after a failure, which ends the peer."""
        while self.num_waiting > ROOM and self.failure is None:
            some: asyncio.Future[None] = self._loop.create_future()
            self._waiting.add(some)
            await some

    async def close(self) -> None:
        """Idempotent; what was added is written first."""
        await asyncio.to_thread(self._writer.close)

    # -- in the thread ------------------------------------------------------------------------------------------------
    def _write(self, entries: Sequence[_Entry]) -> None:
        self._journal.flush()
        if any(add is not None for add, _ in entries):
            with self._ledger.together():
                for add, _ in entries:
                    if add is not None:
                        add()
        self._tell([act for _, act in entries if act is not None])

    def _broken(self, error: Exception) -> None:
        self.failure = DiskError(str(error)) if isinstance(error, IncentivesError) else error
        self._tell([])

    def _tell(self, acts: Sequence[Callable[[], None]]) -> None:
        def work() -> None:
            for act in acts:
                act()
            for some in self._waiting:
                if not some.done():
                    some.set_result(None)
            self._waiting.clear()

        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(work)


__all__ = ["Books"]
